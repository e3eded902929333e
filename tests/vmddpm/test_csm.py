from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import ssmdiff
import torch
import torch.nn.functional as F
from ssmdiff_vmddpm import blocks
from ssmdiff_vmddpm.blocks import CSM
from torch import Tensor

GRID = (3, 5)


def order(scan: str, grid: tuple[int, ...] = GRID) -> Tensor:
    strategy = ssmdiff.create("scan", scan)
    table = strategy.order(grid, np.random.default_rng(0))
    return torch.tensor(table.index)


def expanded(csm: CSM, x: Tensor, orders: Tensor) -> Tensor:
    """Another road to the same numbers: gathered copies per direction, one token at a time."""
    (batch, length, _), inner = x.shape, csm.D.shape[1]
    image = (x @ csm.in_proj.weight.T).reshape(batch, *GRID, inner).permute(0, 3, 1, 2)
    u = F.silu(F.conv2d(image, csm.conv.weight, csm.conv.bias, padding=1, groups=inner))
    u = u.flatten(2).transpose(1, 2)
    per_direction = csm.x_proj.weight.chunk(csm.directions)
    merged = torch.zeros_like(u)
    for k in range(csm.directions):
        sequence = u[:, orders[k].long()]
        parts = sequence @ per_direction[k].T
        dt, B, C = parts.split([csm.rank, csm.state, csm.state], -1)
        delta = F.softplus(dt @ csm.dt_weight[k] + csm.dt_bias[k])
        h = x.new_zeros(batch, inner, csm.state)
        for t in range(length):
            d, v = delta[:, t, :, None], sequence[:, t, :, None]
            h = torch.exp(-d * csm.A_log[k].exp()) * h + d * B[:, t, None] * v
            y = (h * C[:, t, None]).sum(-1) + csm.D[k] * sequence[:, t]
            merged[:, int(orders[k, t])] += y
    gate = F.silu(x @ csm.gate_proj.weight.T)
    normed = F.layer_norm(merged, (inner,), csm.norm.weight, csm.norm.bias)
    return (normed * gate) @ csm.out_proj.weight.T


@pytest.mark.parametrize("scan", ["raster", "cross", "regenerate"])
def test_equals_gather_scan_merge(scan: str) -> None:
    orders = order(scan)
    csm = CSM(6, orders.shape[0], state=3, dt_rank=2).double()
    x = torch.randn(2, math.prod(GRID), 6, dtype=torch.float64)
    torch.testing.assert_close(csm(x, GRID, orders), expanded(csm, x, orders))


def test_initial_delta_is_in_its_range() -> None:
    csm = CSM(32, 4)
    delta = F.softplus(csm.dt_bias.detach())
    assert 0.99e-3 <= float(delta.min()) < 2e-3
    assert 0.05 < float(delta.max()) <= 0.101
    torch.testing.assert_close(csm.A_log.detach().exp()[2, 7], torch.arange(1.0, 17))
    assert csm.dt_weight.abs().max() <= csm.rank**-0.5
    assert csm.rank == 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_recurrence_stays_float32(dtype: torch.dtype) -> None:
    csm = CSM(8, 2)
    before = csm.A_log.detach().clone()
    csm(torch.randn(1, 15, 8), GRID, order("bidirectional")).sum().backward()
    csm.to(dtype)
    for name in ("A_log", "D", "dt_bias"):
        parameter = getattr(csm, name)
        assert parameter.dtype == torch.float32
        assert parameter.grad.dtype == torch.float32
        assert parameter._no_weight_decay
    assert torch.equal(csm.A_log, before)
    assert csm.in_proj.weight.dtype == csm.dt_weight.dtype == dtype
    assert csm.double().A_log.dtype == torch.float64


def test_flag_survives_copies_and_materialising() -> None:
    with torch.device("meta"):
        csm = CSM(8, 2)
    for made in (csm.to_empty(device="cpu"), copy.deepcopy(csm)):
        assert made.A_log._no_weight_decay
    assert not hasattr(csm.x_proj.weight, "_no_weight_decay")


@pytest.mark.parametrize("how", ["autocast", "cast"])
def test_bfloat16_feeds_the_op_consistently(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    csm, x, orders = CSM(8, 4), torch.randn(2, 15, 8), order("cross")
    exact = csm(x, GRID, orders)
    seen: list[torch.dtype] = []
    real = blocks.selective_scan

    def spy(u, delta, A, B, C, index, **rest):  # type: ignore[no-untyped-def]
        seen.extend(v.dtype for v in (u, delta, B, C, A, rest["D"], rest["delta_bias"]))
        return real(u, delta, A, B, C, index, **rest)

    monkeypatch.setattr(blocks, "selective_scan", spy)
    if how == "cast":
        y = csm.to(torch.bfloat16)(x.bfloat16(), GRID, orders)
    else:
        with torch.autocast("cpu", torch.bfloat16):
            y = csm(x, GRID, orders)
    assert seen == [torch.bfloat16] * 4 + [torch.float32] * 3
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), exact, atol=0.03, rtol=0.1)


def test_no_copy_on_the_way_to_the_op(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def spy(u, delta, *rest, **named):  # type: ignore[no-untyped-def]
        seen.update(u=u, delta=delta)
        return u

    monkeypatch.setattr(blocks, "selective_scan", spy)
    CSM(8, 4)(torch.randn(2, 15, 8), GRID, order("cross"))
    assert seen["u"].is_contiguous()
    assert seen["delta"].is_contiguous()
    assert seen["delta"].shape == (2, 4, 15, 16)


def test_zoh_is_another_model() -> None:
    x, orders = torch.randn(1, 15, 8), order("raster")
    torch.manual_seed(3)
    euler = CSM(8, 1)
    zoh = CSM(8, 1, discretization="zoh")
    zoh.load_state_dict(euler.state_dict())
    assert not torch.allclose(euler(x, GRID, orders), zoh(x, GRID, orders))
