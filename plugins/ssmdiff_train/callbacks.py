"""Those who listen to a run while it trains, through the hooks of ``hookspecs``."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from ssmdiff import Config, StepRecord, hookimpl


class MetricsFile:
    """``metrics.jsonl``: one JSON object a line."""

    @hookimpl
    def ssmdiff_run_start(self, folder: Path, step: int) -> None:
        self._path = folder / "metrics.jsonl"
        earlier = [line for line in read_metrics(self._path) if line["step"] <= step]
        self._path.write_text("".join(json.dumps(line) + "\n" for line in earlier))
        self._file = self._path.open("a", buffering=1)

    @hookimpl
    def ssmdiff_step_end(self, record: StepRecord) -> None:
        self._write(asdict(record))

    @hookimpl
    def ssmdiff_reported(self, name: str, value: float, step: int) -> None:
        self._write({"step": step, name: value})

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")

    @hookimpl
    def ssmdiff_run_end(self) -> None:
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a ``metrics.jsonl``; a last line cut short by a crash is left out."""
    lines = []
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


class TensorBoard:
    """Event files under ``tensorboard/``."""

    def __init__(self) -> None:
        # Now, so that a package that is missing is missed before anything is written.
        from torch.utils.tensorboard import SummaryWriter

        self._new_writer = SummaryWriter

    @hookimpl
    def ssmdiff_run_start(self, folder: Path, step: int) -> None:
        self._writer = self._new_writer(folder / "tensorboard", purge_step=step + 1)

    @hookimpl
    def ssmdiff_step_end(self, record: StepRecord) -> None:
        for name in ("loss", "learning_rate", "gradient_norm", "images_per_s"):
            self._writer.add_scalar(f"train/{name}", getattr(record, name), record.step)

    @hookimpl
    def ssmdiff_samples_made(self, path: Path, step: int) -> None:
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            pixels = np.asarray(image)
        layout = "HW" if pixels.ndim == 2 else "HWC"
        self._writer.add_image("samples", pixels, step, dataformats=layout)

    @hookimpl
    def ssmdiff_reported(self, name: str, value: float, step: int) -> None:
        self._writer.add_scalar(f"report/{name}", value, step)

    @hookimpl
    def ssmdiff_run_end(self) -> None:
        self._writer.close()


class LossCurve:
    """``loss.png``, drawn anew with each checkpoint."""

    def __init__(self) -> None:
        import matplotlib.figure  # noqa: F401  # missed now where it is missing, not after hours

    @hookimpl
    def ssmdiff_run_start(self, folder: Path) -> None:
        self._folder = folder

    @hookimpl
    def ssmdiff_checkpoint_saved(self) -> None:
        draw_loss_curve(self._folder / "metrics.jsonl", self._folder / "loss.png")


def draw_loss_curve(metrics: Path, picture: Path) -> None:
    """The loss of every step and its running mean, as a PNG."""
    from matplotlib.figure import Figure

    rows = [line for line in read_metrics(metrics) if "loss" in line]
    if not rows:
        return
    steps, losses = [row["step"] for row in rows], [row["loss"] for row in rows]
    mean, smooth = losses[0], []
    for loss in losses:
        mean += 0.05 * (loss - mean)
        smooth.append(mean)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss", yscale="log")
    axes.plot(steps, losses, color="0.8", linewidth=0.8, label="each step")
    axes.plot(steps, smooth, color="C0", linewidth=1.8, label="running mean")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(picture, dpi=120)


class ConsoleProgress:
    """A progress bar with loss, rate and time left; plain lines where there is no terminal."""

    LINE_EVERY_S = 20.0

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(file=sys.stderr)
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._mean = math.nan

    @hookimpl
    def ssmdiff_run_start(self, config: Config, step: int) -> None:
        self._steps, self._last_line_s = config.train.steps, time.monotonic()
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[state]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("train", total=self._steps, completed=step, state="")
            self._bar.start()

    @hookimpl
    def ssmdiff_step_end(self, record: StepRecord) -> None:
        first = math.isnan(self._mean)
        self._mean = record.loss if first else self._mean + 0.05 * (record.loss - self._mean)
        state = f"loss {self._mean:.4f}  {record.images_per_s:.1f} images/s"
        if self._bar:
            self._bar.update(self._task, completed=record.step, state=state)
        elif first or time.monotonic() - self._last_line_s > self.LINE_EVERY_S:
            self._last_line_s = time.monotonic()
            left_s = (self._steps - record.step) * self._step_s(record)
            self._say(f"step {record.step}/{self._steps}  {state}  {left_s:.0f} s left")

    @staticmethod
    def _step_s(record: StepRecord) -> float:
        batch = record.images_seen / record.step
        return batch / record.images_per_s if record.images_per_s else 0.0

    @hookimpl
    def ssmdiff_checkpoint_saved(self, path: Path) -> None:
        self._say(f"checkpoint {path}")

    @hookimpl
    def ssmdiff_samples_made(self, path: Path) -> None:
        self._say(f"samples {path}")

    @hookimpl
    def ssmdiff_reported(self, name: str, value: float) -> None:
        self._say(f"{name} {value:.3f}")

    @hookimpl
    def ssmdiff_run_end(self) -> None:
        if self._bar:
            self._bar.stop()

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)
