"""VM-UNet's form: the UNet of VM-DDPM with blocks alone."""

from __future__ import annotations

from typing import Any

import ssmdiff
import torch
from networks import awakened
from ssmdiff import order_tensors
from ssmdiff.orders.scan import OrderPlan
from ssmdiff_vmddpm.blocks import VSSBlock
from ssmdiff_vmddpm.unet import ResNetBlock, SSLayer


def network(backbone: str) -> Any:
    scan = ssmdiff.create("scan", "cross")

    def block(channels: int, time_channels: int, *, slot: int) -> Any:
        wired = {"channels": channels, "time_channels": time_channels, "directions": 4}
        made = ssmdiff.create("block", {"name": "vss", "state": 4}, **wired)
        made.slot = slot
        return made

    table = {"name": backbone, "channels": 8, "widths": [1, 2], "layers": 1, "stem_stride": 1}
    return ssmdiff.create(
        "backbone", table, in_channels=1, out_channels=1, scan=scan, block=block, context_channels=0
    )


def test_its_layers_are_blocks_alone_and_its_slots_those_of_the_whole_unet() -> None:
    ours, whole = network("vmunet"), network("vmddpm")
    assert not any(isinstance(m, SSLayer | ResNetBlock) for m in ours.modules())
    blocks = [m for m in ours.modules() if isinstance(m, VSSBlock)]
    assert len(blocks) == 5
    assert ours.scan_slots((8, 12)) == whole.scan_slots((8, 12))
    assert {n for n, _ in ours.named_parameters()} < {n for n, _ in whole.named_parameters()}
    awakened(ours)
    orders = OrderPlan(ours.scan, tuple(ours.scan_slots((8, 8))), 0).draw(0)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([0, 999])
    with torch.no_grad():
        y = ours(x, t, orders=order_tensors(orders, x.device))
        h = ours.stem(x)
        first = ours.encoder[0][0]
        time, used = ours.start(x, t, None, order_tensors(orders, x.device))
        assert torch.equal(first(h, time, used), blocks[0](h, time, used[:1]))
    assert y.shape == x.shape
    assert not torch.equal(y[0], ours(x, torch.tensor([500, 999]))[0]), "the time matters"
