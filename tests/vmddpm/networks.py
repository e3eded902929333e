"""Small networks for the tests of the plugin."""

from __future__ import annotations

from typing import Any

import ssmdiff
import torch
from ssmdiff import order_tensors
from ssmdiff.orders.scan import OrderPlan
from torch import nn

BLOCKS = {
    "cascade": {"name": "mss", "state": 4},
    "concat": {"name": "mss", "state": 4, "fusion": "concat"},
    "conv": {"name": "conv"},
}
SMALL = {"channels": 8, "widths": [1, 2], "layers": 1}


def network(
    block: str = "cascade", scan: str = "regenerate", context_channels: int = 0, **options: Any
) -> Any:
    """A backbone as the composition builds it."""
    strategy = ssmdiff.create("scan", scan)

    def factory(channels: int, time_channels: int, *, slot: int) -> Any:
        made = ssmdiff.create(
            "block",
            BLOCKS[block],
            channels=channels,
            time_channels=time_channels,
            directions=strategy.directions(2),
        )
        made.slot = slot
        return made

    return ssmdiff.create(
        "backbone",
        "vmddpm",
        in_channels=1,
        out_channels=1,
        scan=strategy,
        block=factory,
        context_channels=context_channels,
        **options,
    )


def orders_for(model: Any, size: tuple[int, int], seed: int = 0) -> tuple[torch.Tensor, ...]:
    """The orders of one forward pass."""
    orders = OrderPlan(model.scan, tuple(model.scan_slots(size)), seed).draw(0)
    return order_tensors(orders, torch.device("cpu"))


def awakened(model: nn.Module) -> Any:
    """The model with every zero tensor random, so that all paths carry signal."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)
    return model


def node_count(graph: torch.fx.Graph) -> int:
    """selective_scan calls in a graph."""
    return sum(n.target == torch.ops.ssmdiff.selective_scan.default for n in graph.nodes)
