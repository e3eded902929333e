"""What a plan takes, before it starts: steps by the speed that training itself tells of a few."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ssmdiff
from ssmdiff import Config, RunInterruptedError, SsmdiffError, load_json, write_atomically

from ssmdiff_reproduce.plan import Cell, Planned, Task
from ssmdiff_reproduce.running import machine

FILE = "cost.json"
STEPS = 4
"""Of a probe; the first is left out, since the scan's kernel may be compiled in it."""
FORWARD = 1 / 3
"""Of what an image costs in training, what a call of the network costs in drawing."""


@dataclass(frozen=True)
class Cost:
    """Seconds of a task.

    Args:
        trained_s: Of its training steps.
        drawn_s: Of drawing the images of its cells; judging them is not in it.
    """

    trained_s: float
    drawn_s: float

    @property
    def total_s(self) -> float:
        return self.trained_s + self.drawn_s


def costs(planned: Planned, say: Callable[[str], None]) -> dict[int, Cost]:
    """Of each task by its number; networks that were not timed on this machine are, now. One that
    cannot be timed has none.

    A probe trains a network for a few steps on synthetic heads of the same size, in a folder of its
    own that is deleted.
    """
    path = planned.out / FILE
    try:
        known: dict[str, float] = dict(load_json(path))
    except (SsmdiffError, OSError, TypeError, ValueError):
        known = {}
    found = {}
    for task in planned.tasks:
        key = _key(task.config)
        if key not in known:
            say(f"timing {STEPS} steps of {task.cells[0].system}")
            try:
                known[key] = seconds_of_an_image(task.config)
            except RunInterruptedError:
                raise
            except SsmdiffError as error:  # the table goes without its time
                say(f"{task.cells[0].system} cannot be timed: {error}")
                continue
            planned.out.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(known, indent=2).encode())
        found[task.number] = _of(task, known[key])
    return found


def seconds_of_an_image(config: Config) -> float:
    """Of one image in training."""
    few = {
        "steps": STEPS,
        "checkpoint_every": STEPS,
        "sample_every": 0,
        "bound_images": 0,
        "held_out_every": 0,
        "evaluate_every": 0,
        "callbacks": [],
    }
    known = config.keys()
    small = {"train": {k: v for k, v in few.items() if f"train.{k}" in known or k == "callbacks"}}
    if "sample.steps" in known:
        small["sample"] = {"steps": 1, "count": 1}
    heads = {"data": {"dataset": {"name": "phantom", "length": 64}}}
    with tempfile.TemporaryDirectory() as folder:
        run = ssmdiff.train(ssmdiff.resolve(config, heads, small), Path(folder) / "probe")
        text = (run.path / "metrics.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    speeds = [line["images_per_s"] for line in lines if "images_per_s" in line]
    return 1 / float(max(speeds[1:] or speeds))


def _of(task: Task, image_s: float) -> Cost:
    train = task.config.train
    drawn = sum(_calls(cell, task.config) * image_s * FORWARD for cell in task.cells)
    return Cost(image_s * train.steps * train.batch_size, drawn)


def _calls(cell: Cell, config: Config) -> int:
    """Calls of the network, image by image: one a step of the noise scheduler."""
    known = config.keys()
    own = config.sample.steps if "sample.steps" in known else 1
    return int(cell.asked["drawn"]) * int(cell.asked["draw"].get("steps", own))


def _key(config: Config) -> str:
    """The network, its batches and what computes it: not the seed, the data or the length."""
    values: dict[str, Any] = config.to_dict()
    train = {k: values["train"].get(k) for k in ("batch_size", "micro_batch_size", "precision")}
    parts = [values.get("model"), values.get("method"), values["data"]["image_size"], train]
    text = json.dumps([*parts, machine()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
