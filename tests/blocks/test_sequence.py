"""Visiting order, and the causal convolution along it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from sequences import convolved, permutations, pieces
from ssmdiff.ops import decode_order
from ssmdiff_blocks import sequence
from ssmdiff_blocks.sequence import CausalConv, leave, visit


def test_visits_and_leaves() -> None:
    x, order = torch.randn(2, 7, 3), permutations(2, 7)
    visited = visit(x, order)
    for k in range(2):
        assert torch.equal(visited[:, k], x[:, order[k].long()])
    assert torch.equal(leave(visited, order), x[:, None].expand(2, 2, 7, 3))
    own = torch.randn(2, 2, 7, 3)
    assert torch.equal(leave(visit(own, order), order), own)


@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.parametrize("length", [1, 2, 3, 11])
def test_convolution_is_permute_conv1d_unpermute(width: int, length: int) -> None:
    conv = CausalConv(2, 5, width).double()
    x = torch.randn(3, length, 5, dtype=torch.float64)
    order = permutations(2, length)
    got = leave(conv(visit(x, order)), order)
    for k in range(2):
        index = order[k].long()
        along = convolved(x[:, index], conv.weight[k], conv.bias[k])
        expected = torch.zeros_like(x).index_copy(1, index, along)
        torch.testing.assert_close(got[:, k], expected)


def test_no_tap_reaches_across_a_restart() -> None:
    conv = CausalConv(3, 2, 4).double()
    x, order = torch.randn(2, 40, 2, dtype=torch.float64), permutations(3, 40, restarts=True)
    tokens_of, restart = decode_order(order)
    got = leave(conv(visit(x, tokens_of), restart), tokens_of)
    for k in range(3):
        for tokens in pieces(order, k):
            expected = convolved(x[:, tokens], conv.weight[k], conv.bias[k])
            torch.testing.assert_close(got[:, k, tokens], expected)


def test_half_precision_adds_in_float32() -> None:
    conv, x = CausalConv(1, 8, 4), torch.randn(2, 1, 30, 8).bfloat16()
    exact = conv(x.float())
    with torch.autocast("cpu", torch.bfloat16):
        y = conv(x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, exact.bfloat16())
    assert conv.to(torch.bfloat16)(x).dtype == torch.bfloat16


@pytest.mark.parametrize("restarts", [False, True])
def test_the_package_would_be_called_as_it_wants(
    restarts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in with causal-conv1d's signature and its checks gives the same numbers."""

    def causal_conv1d_fn(
        x, weight, bias=None, seq_idx=None, initial_states=None, return_final_states=False,
        final_states_out=None, activation=None,
    ):  # type: ignore[no-untyped-def]  # fmt: skip
        assert x.stride(1) == 1
        assert x.stride(2) % 8 == 0
        assert x.stride(0) % 8 == 0
        assert weight.dtype == bias.dtype
        assert activation == "silu"
        assert weight.shape == (x.shape[1], 4)
        if seq_idx is None:
            return convolved(x.transpose(1, 2), weight, bias).transpose(1, 2)
        assert seq_idx.dtype == torch.int32
        assert seq_idx.is_contiguous()
        assert seq_idx.shape == (x.shape[0], x.shape[2])
        y = torch.zeros_like(x)
        for number in seq_idx.unique():
            where = torch.nonzero(seq_idx[0] == number)[:, 0]
            part = convolved(x[:, :, where].transpose(1, 2), weight, bias)
            y[:, :, where] = part.transpose(1, 2)
        return y

    conv, order = CausalConv(2, 8, 4), permutations(2, 17, restarts)
    tokens, restart = decode_order(order)
    restart = restart if restarts else None
    x = visit(torch.randn(3, 17, 8), tokens)
    expected = conv(x, restart)
    monkeypatch.setattr(sequence, "runs_on", lambda x: True)
    monkeypatch.setattr(sequence, "installed", lambda *names: causal_conv1d_fn)
    torch.testing.assert_close(conv(x, restart), expected)
    narrow = CausalConv(2, 6, 4)  # the kernel cannot take 6 channels
    narrow(torch.randn(1, 2, 5, 6))


def test_kernels_stay_away_from_the_cpu_and_from_absent_packages() -> None:
    assert not sequence.runs_on(torch.zeros(1))
    assert sequence.installed("a_package_that_is_not_there.ops", "f") is None
    assert sequence.installed("torch.nn.functional", "silu") is F.silu
