"""State space duality against the recurrence."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sequences import duality, permutations
from ssmdiff.ops import decode_order
from ssmdiff_blocks import ssd as ssd_module
from ssmdiff_blocks.ssd import ssd
from torch import Tensor


def inputs(length: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """x, dt, A, B, C, D, dt_bias for B = 2, K = 3, H = 2, P = 3, N = 4."""
    shapes = [(2, 3, length, 2, 3), (2, 3, length, 2), (3, 2), *[(2, 3, length, 4)] * 2]
    values = [torch.randn(shape, dtype=dtype) for shape in [*shapes, (3, 2), (3, 2)]]
    values[2] = -values[2].exp()
    return tuple(value.requires_grad_() for value in values)


def restarts_of(directions: int, length: int, restarts: bool) -> Tensor | None:
    """Where the orders of :func:`permutations` start anew; None for nowhere."""
    return decode_order(permutations(directions, length, restarts))[1] if restarts else None


def recurrence(given: tuple[Tensor, ...], restart: Tensor | None) -> Tensor:
    x, dt, A, B, C, D, bias = given
    delta = F.softplus(dt + bias[:, None])
    rows = []
    for k in range(x.shape[1]):
        marks = [] if restart is None else torch.nonzero(restart[k])[:, 0].tolist()
        edges = sorted({0, *marks, x.shape[2]})
        parts = [
            duality(x[:, k, s], delta[:, k, s], A[k], B[:, k, s], C[:, k, s], D[k])
            for s in (slice(a, b) for a, b in itertools.pairwise(edges))
        ]
        rows.append(torch.cat(parts, 1))
    return torch.stack(rows, 1)


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize(("length", "chunk"), [(1, 16), (7, 16), (16, 16), (50, 16), (50, 64)])
def test_equals_the_recurrence(length: int, chunk: int, restarts: bool) -> None:
    given, restart = inputs(length), restarts_of(3, length, restarts)
    results = []
    for run in (lambda: ssd(*given, restart, chunk), lambda: recurrence(given, restart)):
        y = run()
        weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
        results.append([y, *torch.autograd.grad((y * weights).sum(), given)])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected)


def test_a_restart_cuts_strong_decays_without_nan() -> None:
    """A thousand steps that forget all but nothing and all but everything, in float32."""
    x, dt, A, B, C, D, bias = (value.detach().float() for value in inputs(1000))
    dt = dt + 40 * (torch.rand_like(dt) < 0.3)
    restart = restarts_of(3, 1000, True)
    y = ssd(x, dt, 16 * A, B, C, D, bias, restart)
    given = tuple(value.double() for value in (x, dt, 16 * A, B, C, D, bias))
    torch.testing.assert_close(y.double(), recurrence(given, restart), atol=1e-3, rtol=1e-4)


def test_half_precision_scans_in_float32() -> None:
    x, dt, A, B, C, D, bias = (value.detach().float() for value in inputs(300))
    half = [value.bfloat16() for value in (x, dt, B, C)]
    with torch.autocast("cpu", torch.bfloat16):
        y = ssd(half[0], half[1], A, half[2], half[3], D, bias)
    assert y.dtype == torch.bfloat16
    exact = ssd(half[0].float(), half[1].float(), A, half[2].float(), half[3].float(), D, bias)
    assert torch.equal(y, exact.bfloat16())


@pytest.mark.parametrize("restarts", [False, True])
def test_the_triton_kernel_would_be_called_as_it_wants(
    restarts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in with mamba-ssm's signature gives the same numbers."""

    def mamba_chunk_scan_combined(
        x, dt, A, B, C, chunk_size, D=None, z=None, dt_bias=None, initial_states=None,
        seq_idx=None, cu_seqlens=None, dt_softplus=False, dt_limit=(0.0, float("inf")),
        return_final_states=False, return_varlen_states=False,
    ) -> Any:  # type: ignore[no-untyped-def]  # fmt: skip
        (batch, length, heads, _), groups = x.shape, B.shape[2]
        assert dt.shape == (batch, length, heads)
        assert A.shape == D.shape == dt_bias.shape == (heads,)
        assert B.shape == C.shape == (batch, length, groups, 4)
        assert dt_softplus
        assert chunk_size == 16
        restart = None
        if seq_idx is not None:
            assert seq_idx.dtype == torch.int32
            assert seq_idx.shape == (batch, length)
            restart = F.pad(seq_idx[:1].diff(dim=1) > 0, (1, 0))
        rows = (x, dt, B.squeeze(2), C.squeeze(2))
        x, dt, B, C = (value[:, None] for value in rows)
        return recurrence((x, dt, A[None], B, C, D[None], dt_bias[None]), restart)[:, 0]

    given, restart = inputs(37), restarts_of(3, 37, restarts)
    expected = ssd(*given, restart, 16)
    monkeypatch.setattr(ssd_module, "runs_on", lambda x: True)
    monkeypatch.setattr(ssd_module, "installed", lambda *names: mamba_chunk_scan_combined)
    torch.testing.assert_close(ssd(*given, restart, 16), expected)
