"""The learning rate of a run that goes on with another batch size goes on where it was."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from ssmdiff import Config, hookimpl, merge, resolve
from ssmdiff_train.callbacks import read_metrics
from ssmdiff_train.job import train
from tiny_config import TINY

RATE, STEPS, CUT = 1e-3, 5, 2


def rate_after(step: int, schedule: str, warmup: int) -> float:
    """Of the step that follows ``step`` steps: up linearly, then constant or half a cosine."""
    if step < warmup:
        return RATE * (step + 1) / (warmup + 1)
    if schedule == "constant":
        return RATE
    return RATE * (1 + math.cos(math.pi * (step - warmup) / (STEPS - warmup))) / 2


class StopAfter:
    """Ends the run as a fault would, after a checkpoint."""

    @hookimpl
    def ssmdiff_checkpoint_saved(self, step: int) -> None:
        if step == CUT:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("batches", "schedule", "warmup"),
    [
        ((16, 4), "cosine", 0),
        ((4, 16), "cosine", 3),
        pytest.param((16, 4), "constant", 3, marks=pytest.mark.slow),
        pytest.param((4, 16), "cosine", 1, marks=pytest.mark.slow),
    ],
)
def test_the_rate_is_a_function_of_the_steps_done(
    tmp_path: Path, batches: tuple[int, int], schedule: str, warmup: int
) -> None:
    def config(batch: int) -> Config:
        options = {"steps": STEPS, "batch_size": batch, "schedule": schedule, "callbacks": [],
                   "learning_rate": RATE, "warmup_steps": warmup,
                   "checkpoint_every": CUT}  # fmt: skip
        return resolve(merge(TINY, {"train": options, "data": {"image_size": 8}}))

    first, then = batches
    with pytest.raises(KeyboardInterrupt):
        train(config(first), tmp_path / "run", callbacks=[StopAfter()])
    with pytest.warns(UserWarning, match=rf"train\.batch_size: {first} -> {then}"):
        folder = train(config(then), tmp_path / "run", resume=True)
    rows = [row for row in read_metrics(folder.path / "metrics.jsonl") if "loss" in row]
    seen = [first * min(i, CUT) + then * max(i - CUT, 0) for i in range(1, STEPS + 1)]
    assert [row["images_seen"] for row in rows] == seen
    wanted = [rate_after(i, schedule, warmup) for i in range(STEPS)]
    assert [row["learning_rate"] for row in rows] == pytest.approx(wanted, rel=1e-12)
