"""Cells as evaluations would have left them, with distances of our own choice."""

from __future__ import annotations

import json
from typing import Any

from ssmdiff_reproduce.plan import Planned

MACHINE = {"processor": "one", "cores": 2, "threads": 1, "versions": {"torch": "2"}}

MODEL = {
    "parameters": 3_000_000,
    "multiply-adds of a call": 226_300_000,
    "multiply-adds of an image": 5_657_500_000,
}


def leave(
    planned: Planned,
    distances: dict[tuple[str, int], float],
    interval: tuple[float, float] | None = None,
    name: str = "FD texture (n = 256)",
) -> None:
    """``cell.json`` and ``record.json`` of those cells that have a distance, by system and seed."""
    for task in planned.tasks:
        for cell in task.cells:
            value = distances.get((cell.system, cell.seed))
            if value is None:
                continue
            cell.folder.mkdir(parents=True, exist_ok=True)
            kept: dict[str, Any] = {
                "asked": json.loads(json.dumps(cell.asked)),
                "images_seen": 24_000, "trained_s": 60.0 + cell.seed, "judged_s": 10.0,
                "machine": MACHINE, "reference": "phantom of seed 1", "model": MODEL,
            }  # fmt: skip
            (cell.folder / "cell.json").write_text(json.dumps(kept))
            figure = {"name": name, "value": value, "interval": interval, "floor": 0.8}
            protocol = {
                "features": {"texture": {"digest": "f" * 64, "size": 41}},
                "reference": {"count": 4096, "digest": "e" * 64},
                "samples": {"count": 256, "shape": [1, 32, 32]},
                "levels": "8 bits",
            }
            samples = {"scheduler": {"name": "ddim"}, "steps": 25}
            record = {
                "figures": [figure],
                "refusals": [],
                "stamp": {"protocol": protocol, "samples": samples},
            }
            (cell.folder / "record.json").write_text(json.dumps(record))
