"""Every scan with every block: three steps of training, finite, a gradient in every parameter."""

import pytest
import torch
from ssmdiff import order_tensors
from ssmdiff.errors import ConfigError
from ssmdiff.registry.registry import registry
from ssmdiff.runs import compose
from ssmdiff.runs.config import resolve

SCANS = {entry.component.name: {"name": entry.component.name} for entry in registry().all("scan")}
SCANS["layers"] = {"name": "layers", "scans": ["regenerate", "snake", "snake"]}
THREE_D = {"tri"}
BLOCKS = [entry.component.name for entry in registry().all("block")]


def network(scan, block):
    config = resolve(
        {
            "data": {"image_size": 16},
            "model": {
                "backbone": {"name": "vmddpm", "channels": 16, "widths": [1], "layers": 1,
                             "stem_stride": 2},
                "block": block,
                "scan": scan,
            },
        }
    )  # fmt: skip
    torch.manual_seed(0)
    model = compose.build_backbone(config, 1)
    return model, compose.order_plan(model, config)


def pairs():
    """Each scan with one block and each block with one scan in every tier; the other pairs slow."""
    for scan in sorted(SCANS.keys() - THREE_D):
        for block in BLOCKS:
            always = block == "mss" or scan == "regenerate"
            marks = [] if always else [pytest.mark.slow]
            yield pytest.param(scan, block, marks=marks, id=f"{scan}-{block}")


@pytest.mark.parametrize(("scan", "block"), list(pairs()))
def test_three_steps_of_training(scan, block):
    model, plan = network(SCANS[scan], block)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    g = torch.Generator().manual_seed(1)
    x, noise = (torch.randn(2, 1, 16, 16, generator=g) for _ in range(2))
    for step in range(3):
        optimizer.zero_grad()
        orders = order_tensors(plan.draw(step), x.device)
        loss = (model(x=x, timesteps=torch.tensor([3, 700]), orders=orders) - noise).square().mean()
        loss.backward()
        assert torch.isfinite(loss), f"step {step}"
        optimizer.step()
    # The output starts at zero, so what lies before it gets its gradient from the second step on.
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_layers_may_differ_in_their_number_of_directions():
    """Each block is built for the scan of its own slot: K = 4, 1, 4."""
    mixed = {"name": "layers", "scans": ["regenerate", "snake"]}
    model, plan = network(mixed, "mss")
    assert [order.directions for order in plan.draw(0)] == [4, 1, 4]
    blocks = [m for m in model.modules() if type(m).__name__ == "CSM"]
    assert [csm.directions for csm in blocks] == [4, 1, 4]
    orders = order_tensors(plan.draw(0), torch.device("cpu"))
    assert (
        model(x=torch.randn(1, 1, 16, 16), timesteps=torch.tensor(1), orders=orders)
        .isfinite()
        .all()
    )


@pytest.mark.parametrize("scan", sorted(THREE_D))
def test_a_3_d_scan_is_refused_on_images_before_anything_runs(scan):
    with pytest.raises(ConfigError, match=scan):
        network(SCANS[scan], "mss")
