"""``ssmdiff bench sample``: the same images drawn by several ways of running one network.

The ways come from the caller: the core knows torch alone, and exported files have a package of
their own.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssmdiff_bench.record import Row
from ssmdiff_bench.worker import Case, Job, Way

SERIES = "sample"
SCALE = 2.0  # images reach from -1 to 1; differences are told as parts of that range
SHOWN = ("images_per_s", "process_mib", "load_s")


@dataclass(frozen=True)
class Draw:
    """Which images are drawn in one call.

    Args:
        n: How many.
        steps: Sampling steps; None for the run's.
        seed: Of their noise and orders.
        batch_size: Images at once.
        label: Class, for a conditional model.
    """

    n: int = 4
    steps: int | None = 10
    seed: int = 0
    batch_size: int = 16
    label: int | None = None

    def arguments(self) -> dict[str, Any]:
        """As ``Run.sample`` and the samplers of exported files take them."""
        return {
            "n": self.n,
            "seed": self.seed,
            "steps": self.steps,
            "label": self.label,
            "batch_size": self.batch_size,
        }


def torch_ways(path: Path, checkpoint: str, draw: Draw) -> list[Way]:
    """torch as it stands, torch.compile, and the same on a GPU where there is one."""
    import torch

    gpu = None if torch.cuda.is_available() else "no GPU was found (torch.cuda.is_available())"

    def way(name: str, device: str, compiled: bool, absent: str | None = None) -> Way:
        load = functools.partial(_load_torch, path, checkpoint, draw, device, compiled)
        return Way(name, load, absent)

    return [
        way("torch", "cpu", False),
        way("torch-compile", "cpu", True),
        way("torch-cuda", "cuda", False, gpu),
        way("torch-compile-cuda", "cuda", True, gpu),
    ]


def finish(rows: list[Row], n: int) -> None:
    """Add what the table shows besides: images a second, and the whole process's memory."""
    for row in rows:
        if row.timing:
            row.facts["images_per_s"] = float(f"{n / row.timing.median_s:.4g}")
        if row.memory:
            row.facts["process_mib"] = round(row.memory.peak / 2**20)


def _load_torch(
    path: Path, checkpoint: str, draw: Draw, device: str, compiled: bool, case: Case
) -> Job:
    """In the worker: the run, and a call that draws from it."""
    import torch
    from ssmdiff import load_run

    start_s = time.perf_counter()
    run = load_run(path, checkpoint).to(device)
    if compiled:
        run.compile()
        run.sample(**{**draw.arguments(), "steps": 1})
    return Job(
        lambda: run.sample(**draw.arguments()),
        device=device,
        synchronize=torch.cuda.synchronize if device == "cuda" else None,
        facts={"load_s": round(time.perf_counter() - start_s, 3)},
        output=lambda images: images.numpy(),
    )
