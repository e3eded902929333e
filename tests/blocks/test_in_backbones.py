"""Every block of these plugins by name in every backbone, composed from a configuration."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ssmdiff import Condition, Conditions, order_tensors
from ssmdiff.runs.compose import build_backbone, order_plan
from ssmdiff.runs.config import resolve

LABEL = Conditions([Condition("label", "label", ("a", "b"))])
BLOCKS: dict[str, dict[str, Any]] = {
    "mss": {"state": 2},
    "conv": {},
    "vss": {"state": 2},
    "mamba": {"state": 2},
    "mamba2": {"state": 4, "head_channels": 8, "chunk": 16},
    "attention": {"head_channels": 8},
}
BACKBONES: dict[str, dict[str, Any]] = {
    "vmddpm": {"channels": 8, "widths": [1, 2], "layers": 1, "stem_stride": 1},
    "isotropic": {"channels": 8, "depth": 3, "patch": 2},
}


def config(backbone: str, block: str, scan: str = "regenerate") -> Any:
    return resolve(
        {
            "seed": 5,
            "data": {"image_size": 8, "dataset": {"name": "phantom"}},
            "model": {
                "backbone": {"name": backbone, **BACKBONES[backbone]},
                "block": {"name": block, **BLOCKS[block]},
                "scan": {"name": scan},
            },
        }
    )


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("block", BLOCKS)
def test_runs_by_name_and_learns(backbone: str, block: str) -> None:
    settings = config(backbone, block)
    model = build_backbone(settings, 1, LABEL)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)  # what starts at zero would hide the rest
    orders = order_tensors(order_plan(model, settings).draw(0), torch.device("cpu"))
    scans = block in ("mss", "vss", "mamba", "mamba2")
    assert bool(orders) == scans
    x, t, label = torch.randn(2, 1, 8, 8), torch.tensor([3, 700]), torch.tensor([0, 1])
    y = model(x=x, timesteps=t, context=label, orders=orders)
    assert y.shape == x.shape
    (y * torch.randn_like(y)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("block", ["vss", "mamba", "mamba2"])
def test_restarts_reach_the_blocks(block: str) -> None:
    """An atrous scan is a scan of each sub-grid by itself: a change stays in its own."""
    settings = config("isotropic", block, scan="atrous")
    model = build_backbone(settings, 1).double()
    layer: Any = model.layers[0].block  # type: ignore[index,union-attr]
    order = order_tensors(order_plan(model, settings).draw(0), torch.device("cpu"))[0]
    assert (order < 0).any()
    x, time = torch.randn(1, 8, 4, 4).double(), torch.randn(1, 8).double()
    changed = x.clone()
    changed[:, :, 2, 3] += torch.randn(1, 8)
    moved = (layer(changed, time, [order]) - layer(x, time, [order])).abs().sum((0, 1)) > 0
    if block == "vss":  # its 3 x 3 convolution sees the neighbours
        assert moved.any()
    else:
        cells = torch.nonzero(moved).tolist()
        assert [2, 3] in cells
        assert all(h % 2 == 0 and w % 2 == 1 for h, w in cells)
