"""Parameters and multiply-adds of the VM-DDPM network, as a markdown table.

    python benchmarks/model_size.py

Counted on meta tensors, so nothing is computed: convolutions, matrix products and the scan; norms
and activations are left out. Multiply-adds per pixel that do not grow with the image show that the
network is linear in the number of pixels.
"""

from __future__ import annotations

import math
from typing import Any

import ssmdiff
import torch
from ssmdiff.ops import selective_scan  # noqa: F401  registers the op
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula

SIZES = (64, 128, 256)
BLOCKS: dict[str, dict[str, Any]] = {
    "mss": {"name": "mss"},
    "mss, fusion = concat": {"name": "mss", "fusion": "concat"},
    "conv": {"name": "conv"},
}
STATE_FLOPS = 7
"""For each of the N states of a token: d A, exp, a h, (d u) B, their sum, C h, its sum."""
TOKEN_FLOPS = 5
"""For each token, channel and direction: delta + bias, softplus, d u, D u, its sum."""


@register_flop_formula(torch.ops.ssmdiff.selective_scan)
def scan_flops(u: Any, delta: tuple[int, ...], A: tuple[int, ...], *rest: Any, **named: Any) -> int:
    """Floating-point operations of one call, from the shapes of delta (B, K, L, D), A (K, D, N)."""
    return math.prod(delta) * (STATE_FLOPS * A[-1] + TOKEN_FLOPS)


def network(block: dict[str, Any]) -> torch.nn.Module:
    """The paper's setting: C = 64, four stages, four directions, on the meta device."""
    scan = ssmdiff.create("scan", "cross")

    def factory(channels: int, time_channels: int, *, slot: int) -> Any:
        return ssmdiff.create(
            "block",
            block,
            channels=channels,
            time_channels=time_channels,
            directions=scan.directions(2),
        )

    with torch.device("meta"):
        model: torch.nn.Module = ssmdiff.create(
            "backbone", "vmddpm", in_channels=1, out_channels=1, scan=scan, block=factory
        )
    return model


def count(model: torch.nn.Module, side: int) -> tuple[float, float]:
    """Multiply-adds of one image, and those of them in the scans."""
    x = torch.empty(1, 1, side, side, device="meta")
    with FlopCounterMode(display=False) as counter:
        model(x, torch.zeros((), device="meta"))
    scans = counter.get_flop_counts()["Global"].get(torch.ops.ssmdiff.selective_scan, 0)
    return counter.get_total_flops() / 2, scans / 2


def main() -> None:
    """Print the table."""
    print("| block | parameters (M) | image | multiply-adds (G) | in scans (G) | per pixel (M) |")
    print("|---|---|---|---|---|---|")
    for name, block in BLOCKS.items():
        model = network(block)
        millions = sum(p.numel() for p in model.parameters()) / 1e6
        for side in SIZES:
            total, scans = count(model, side)
            print(
                f"| {name} | {millions:.1f} | {side} x {side} | {total / 1e9:.2f} | "
                f"{scans / 1e9:.2f} | {total / side**2 / 1e6:.3f} |"
            )


if __name__ == "__main__":
    main()
