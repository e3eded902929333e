"""What the blocks compute, and what they have in common."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import pytest
import ssmdiff
import torch
import torch.nn.functional as F
from sequences import coded, convolved, duality, permutations, pieces, s6
from ssmdiff.errors import ConfigError
from ssmdiff.networks.layers import to_map, to_tokens
from ssmdiff.ops import decode_order, note_order
from ssmdiff_blocks.attention import Attention
from ssmdiff_blocks.mamba import Mamba
from ssmdiff_blocks.mamba2 import Mamba2
from torch import Tensor

GRID, LENGTH = (4, 5), 20
OPTIONS: dict[str, dict[str, Any]] = {
    "vss": {"state": 3, "mlp_ratio": 2},
    "mamba": {"state": 3},
    "mamba2": {"state": 3, "head_channels": 4, "chunk": 16},
    "attention": {"head_channels": 4, "mlp_ratio": 2},
}
SCANS = ["vss", "mamba", "mamba2"]
ALONG = ["mamba", "mamba2"]  # the order is all that they know of the grid


def block(name: str, directions: int = 2) -> Any:
    """A block for 8 channels and a time of 6."""
    wired = {"channels": 8, "time_channels": 6, "directions": directions}
    return ssmdiff.create("block", {"name": name, **OPTIONS[name]}, **wired)


def run(module: Any, x: Tensor, order: Tensor, time: Tensor | None = None) -> Tensor:
    """One pass; the time is all ones unless it is given."""
    time = x.new_ones(x.shape[0], 6) if time is None else time
    orders: Sequence[Tensor] = [order] * module.scan_calls
    y: Tensor = module(x, time, orders)
    return y


@pytest.mark.parametrize("restarts", [False, True])
def test_mamba_is_the_papers_loop(restarts: bool) -> None:
    mamba = Mamba(6, directions=2, state=3, dt_rank=2).double()
    x, order = torch.randn(2, LENGTH, 6).double(), permutations(2, LENGTH, restarts)
    projected, merged = mamba.in_proj(x), torch.zeros(2, LENGTH, 12).double()
    for k in range(2):
        for tokens in pieces(order, k):
            u = convolved(projected[:, tokens], mamba.conv.weight[k], mamba.conv.bias[k])
            dt, B, C = (u @ mamba.x_weight[k]).split([2, 3, 3], -1)
            delta = F.softplus(dt @ mamba.dt_weight[k] + mamba.dt_bias[k])
            merged[:, tokens] += s6(u, delta, -mamba.A_log[k].exp(), B, C, mamba.D[k])
    expected = mamba.out_proj(merged * F.silu(mamba.gate_proj(x)))
    torch.testing.assert_close(mamba(x, GRID, order), expected)


@pytest.mark.parametrize("restarts", [False, True])
def test_mamba2_is_the_papers_loop(restarts: bool) -> None:
    mamba = Mamba2(6, directions=2, state=3, head_channels=4, chunk=16).double()
    x, order = torch.randn(2, LENGTH, 6).double(), permutations(2, LENGTH, restarts)
    projected, merged = mamba.in_proj(x), torch.zeros(2, LENGTH, 12).double()
    own = mamba.ssm_proj(x).chunk(2, -1)
    for k in range(2):
        for tokens in pieces(order, k):
            u = convolved(projected[:, tokens], mamba.conv.weight[k], mamba.conv.bias[k])
            BC, dt = own[k][:, tokens].split([6, 3], -1)
            BC = convolved(BC, mamba.ssm_conv.weight[k], mamba.ssm_conv.bias[k])
            delta = F.softplus(dt + mamba.dt_bias[k])
            A = -mamba.A_log[k].exp()
            y = duality(u.unflatten(2, (3, 4)), delta, A, *BC.chunk(2, -1), mamba.D[k])
            merged[:, tokens] += y.flatten(2)
    gated = merged * F.silu(mamba.gate_proj(x))
    rms = gated / (gated.square().mean(-1, keepdim=True) + 1e-5).sqrt() * mamba.norm.weight
    torch.testing.assert_close(mamba(x, GRID, order), mamba.out_proj(rms))


def test_attention_depends_on_distances_alone() -> None:
    """The same patch of tokens on another part of a larger grid attends within itself alike."""
    attention = Attention(8, head_channels=8).double()
    x = torch.randn(1, 8, 3, 3).double()
    scores = []
    for corner in ((0, 0), (2, 4)):
        canvas = torch.zeros(1, 8, 6, 8).double()
        canvas[:, :, corner[0] : corner[0] + 3, corner[1] : corner[1] + 3] = x
        inside = canvas.abs().sum(1, keepdim=True) > 0
        seen: dict[str, Tensor] = {}

        def spy(q: Tensor, k: Tensor, v: Tensor, seen: dict[str, Tensor] = seen) -> Tensor:
            seen["scores"] = q @ k.mT
            return v

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(F, "scaled_dot_product_attention", spy)
            attention(to_tokens(canvas), (6, 8))
        kept = torch.nonzero(inside.flatten())[:, 0]
        scores.append(seen["scores"][0, 0][kept][:, kept])
    torch.testing.assert_close(scores[0], scores[1])
    assert not torch.allclose(scores[0], scores[0].T)


def test_attention_tells_rows_from_columns() -> None:
    attention, x = Attention(8, head_channels=4).double(), torch.randn(1, 12, 8).double()
    assert not torch.allclose(attention(x, (3, 4)), attention(x, (4, 3)))
    flipped = attention(x.flip(1), (3, 4)).flip(1)
    assert not torch.allclose(attention(x, (3, 4)), flipped)
    with pytest.raises(ConfigError, match=r"head of 2 channels .* 2 axes"):
        Attention(2)(torch.zeros(1, 4, 2), (2, 2))


@pytest.mark.parametrize("name", OPTIONS)
def test_shape_time_and_a_gradient_everywhere(name: str) -> None:
    module, order = block(name), permutations(2, LENGTH)
    x = torch.randn(2, 8, *GRID).contiguous(memory_format=torch.channels_last).requires_grad_()
    time = torch.randn(2, 6)
    y = run(module, x, order, time)
    assert y.shape == x.shape
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(y, run(module, x, order, time))
    assert not torch.allclose(y[:1], run(module, x[:1], order, time[1:]))
    (y * torch.randn_like(y)).sum().backward()
    for key, parameter in [("x", x), *module.named_parameters()]:
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key


@pytest.mark.parametrize("name", OPTIONS)
def test_is_residual(name: str) -> None:
    module, x = block(name), torch.randn(2, 8, *GRID)
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            if key.startswith(("mixer.out_proj", "mlp.contract")):
                parameter.zero_()
    assert torch.equal(run(module, x, permutations(2, LENGTH)), x)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_keeps_the_dtype(name: str, dtype: torch.dtype) -> None:
    module, x, order = block(name), torch.randn(2, 8, *GRID), permutations(2, LENGTH)
    exact = run(module, x, order)
    with torch.autocast("cpu", torch.bfloat16):
        y = run(module, x.to(dtype), order, torch.ones(2, 6))
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), exact, atol=0.1, rtol=0.05)


@pytest.mark.parametrize("name", SCANS)
def test_recurrence_stays_float32(name: str) -> None:
    module, x, order = block(name), torch.randn(2, 8, *GRID), permutations(2, LENGTH)
    exact = run(module, x, order)
    cast = copy.deepcopy(module).to(torch.bfloat16)
    for key, parameter in cast.named_parameters():
        kept = key.rpartition(".")[2] in ("A_log", "D", "dt_bias")
        assert parameter.dtype == (torch.float32 if kept else torch.bfloat16), key
        assert getattr(parameter, "_no_weight_decay", False) == kept, key
    y = run(cast, x.bfloat16(), order)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), exact, atol=0.1, rtol=0.05)


@pytest.mark.parametrize("name", SCANS)
def test_initial_delta_is_mambas(name: str) -> None:
    wired = {"channels": 64, "time_channels": 6, "directions": 4}
    mixer = ssmdiff.create("block", {"name": name, "expand": 8}, **wired).mixer
    delta = F.softplus(mixer.dt_bias.detach())
    assert delta.min() >= 0.99e-3
    assert delta.max() <= 0.101
    assert delta.log().mean() == pytest.approx(math.log(1e-2), abs=0.8)
    A = mixer.A_log.detach().exp()
    assert A.min() >= 0.99
    assert A.max() <= 16.01


@pytest.mark.parametrize("name", SCANS)
def test_the_order_matters(name: str) -> None:
    module, x = block(name), torch.randn(2, 8, *GRID)
    one, two = permutations(2, LENGTH), permutations(2, LENGTH)
    assert not torch.allclose(run(module, x, one), run(module, x, two))
    noted = note_order(one.clone(), restarts=False)
    torch.testing.assert_close(run(module, x, noted), run(module, x, one))
    restart = torch.zeros(2, LENGTH, dtype=torch.bool)
    restart[:, 7] = True
    cut = run(module, x, coded(one, restart))
    assert not torch.allclose(cut, run(module, x, one))


@pytest.mark.parametrize("name", ALONG)
def test_commutes_with_permutations_of_the_tokens(name: str) -> None:
    """Tokens moved, and visited where they went: the outputs move with them."""
    module, order = block(name).double(), permutations(2, LENGTH, restarts=True)
    tokens = torch.randn(2, LENGTH, 8).double()
    place = torch.randperm(LENGTH)  # token p is moved from place[p]
    tokens_of, restart = decode_order(order)
    assert restart is not None
    moved = coded(place.argsort()[tokens_of.long()].int(), restart)
    expected = to_tokens(run(module, to_map(tokens, GRID), order))[:, place]
    got = to_tokens(run(module, to_map(tokens[:, place], GRID), moved))
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("name", ALONG)
@pytest.mark.parametrize("restarts", [False, True])
def test_is_causal_along_the_order(name: str, restarts: bool) -> None:
    """A change reaches its own token and later ones of its sequence, and no other."""
    module = block(name, directions=1).double()
    order = permutations(1, LENGTH, restarts)
    (own,) = [tokens for tokens in pieces(order, 0) if int(decode_order(order)[0][0, 8]) in tokens]
    x = torch.randn(1, 8, LENGTH, 1).double()
    y = run(module, x, order)
    changed = x.clone()
    token = int(decode_order(order)[0][0, 8])
    changed[:, :, token] += torch.randn(8, 1).double()
    moved = (run(module, changed, order) - y).abs().sum(1).flatten() > 0
    assert set(torch.nonzero(moved)[:, 0].tolist()) == set(own[own.index(token) :])


@pytest.mark.parametrize("name", ALONG)
def test_serves_volumes(name: str) -> None:
    module, x = block(name), torch.randn(1, 8, 2, 3, 4)
    assert run(module, x, permutations(2, 24)).shape == x.shape


@pytest.mark.parametrize("name", OPTIONS)
def test_shapes_are_known_without_data(name: str) -> None:
    with torch.device("meta"):
        module = block(name)
        order = torch.empty(2, LENGTH, dtype=torch.int32)
        y = run(module, torch.empty(2, 8, *GRID), order)
    assert y.shape == (2, 8, *GRID)
    assert y.is_meta


def test_directions_have_weights_of_their_own() -> None:
    for name in ALONG:
        one, two = (sum(p.numel() for p in block(name, k).parameters()) for k in (1, 2))
        mixer = block(name, 1).mixer
        shared = sum(
            p.numel()
            for key, p in mixer.named_parameters()
            if key.startswith(("in_proj", "gate_proj", "out_proj", "norm"))
        )
        assert two - one == sum(p.numel() for p in mixer.parameters()) - shared


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("mamba", "conv_width", 5),
        ("mamba", "state", 0),
        ("mamba2", "chunk", 24),
        ("mamba2", "head_channels", 0),
        ("attention", "mlp_ratio", -1),
        ("attention", "directions", 2),
        ("vss", "kernel", 4),
    ],
)
def test_refuses_options_out_of_range(name: str, option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=option):
        ssmdiff.create("block", {"name": name, option: value}, channels=8, time_channels=6)


def test_heads_are_the_largest_that_divide() -> None:
    assert Mamba2(24, 1, head_channels=32).head == 24
    assert Attention(96, head_channels=64).head == 48
