"""Those who listen to a run while it trains, through the hooks of ``hookspecs``."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from ssmdiff import Config, StepRecord, hookimpl

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NETWORK_LOSS = "_loss"
"""What the figures of a step end with that are losses of networks besides the one that draws."""
HELD_OUT = "held_out_loss"
"""The loss that is trained, on images that are not trained on."""


class MetricsFile:
    """``metrics.jsonl``: one JSON object a line."""

    @hookimpl
    def ssmdiff_run_start(self, folder: Path, step: int) -> None:
        self._path = folder / "metrics.jsonl"
        earlier = [line for line in read_metrics(self._path) if line["step"] <= step]
        # What was reported of the step that a run goes on from is measured again, and is the same.
        self._told = {(step, name) for line in earlier if line["step"] == step for name in line}
        self._path.write_text("".join(json.dumps(line) + "\n" for line in earlier))
        self._file = self._path.open("a", buffering=1)

    @hookimpl
    def ssmdiff_step_end(self, record: StepRecord) -> None:
        line = asdict(record)
        self._write(line | line.pop("figures"))

    @hookimpl
    def ssmdiff_reported(self, name: str, value: float, step: int) -> None:
        if (step, name) not in self._told:
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
        for name, value in record.figures.items():
            self._writer.add_scalar(f"train/{name}", value, record.step)

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
        self._folder, self._stale = folder, False

    @hookimpl
    def ssmdiff_checkpoint_saved(self) -> None:
        self._draw()

    @hookimpl
    def ssmdiff_reported(self) -> None:
        self._stale = True

    @hookimpl
    def ssmdiff_run_end(self) -> None:
        if self._stale:
            self._draw()

    def _draw(self) -> None:
        self._stale = False
        draw_loss_curve(self._folder / "metrics.jsonl", self._folder / "loss.png")


def draw_loss_curve(metrics: Path, picture: Path) -> None:
    """The loss of every step and its mean over the steps around, as a PNG.

    The losses of other networks stand beside it. The loss on held-out images is drawn over it,
    other figures that were measured more than once below it.
    """
    import numpy as np
    from matplotlib.figure import Figure

    lines = read_metrics(metrics)
    rows = [line for line in lines if "loss" in line]
    if not rows:
        return
    reported = _reported(lines)
    held_out = reported.pop(HELD_OUT, [])
    below = {name: points for name, points in reported.items() if len(points) > 1}
    steps = [row["step"] for row in rows]
    networks = sorted(name for name in rows[0] if name.endswith(NETWORK_LOSS))
    losses = {name: np.array([row[name] for row in rows]) for name in ("loss", *networks)}
    half = max(10, len(rows) // 100)
    figure = Figure(figsize=(7, 4 + 1.8 * len(below)), layout="constrained")
    ratios = [4.0] + [1.8] * len(below)
    axes, *others = figure.subplots(
        1 + len(below), sharex=True, squeeze=False, height_ratios=ratios
    )[:, 0]
    below_0 = any((values <= 0).any() for values in losses.values())
    axes.set(ylabel="loss", yscale="linear" if below_0 else "log")
    for i, (name, values) in enumerate(losses.items()):
        of = f"{name.removesuffix(NETWORK_LOSS)}, " if name in networks else ""
        axes.plot(steps, values, color="0.8", linewidth=0.8, label=None if i else "each step")
        label = f"{of}mean of {2 * half + 1} steps"
        axes.plot(steps, _smooth(values, half), color=f"C{2 * i}", linewidth=1.8, label=label)
    if held_out:
        axes.plot(*zip(*held_out, strict=True), ".-", color="C1", label="held-out images")
    axes.legend(frameon=False)
    for panel, (name, points) in zip(others, below.items(), strict=True):
        panel.plot(*zip(*points, strict=True), ".-", color="C0")
        panel.set_title(name, fontsize="medium", loc="left")
    for panel in (axes, *others):
        panel.grid(alpha=0.3)
    (others[-1] if others else axes).set_xlabel("step")
    figure.savefig(picture, dpi=120)


def _smooth(values: NDArray[np.float64], half: int) -> NDArray[np.float64]:
    """Means over so many steps on either side."""
    import numpy as np

    sums = np.concatenate([[0.0], np.cumsum(values)])
    first = np.maximum(np.arange(len(values)) - half, 0)
    last = np.minimum(np.arange(len(values)) + half + 1, len(values))
    means: NDArray[np.float64] = (sums[last] - sums[first]) / (last - first)
    return means


def _reported(lines: Iterable[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of what was measured now and then, by its name."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        if "loss" not in line:
            for name in line.keys() - {"step"}:
                found.setdefault(name, []).append((line["step"], line[name]))
    return found


class ConsoleProgress:
    """A progress bar with loss, rate and time left; plain lines where there is no terminal.

    Loss and rate are those of the recent steps. The first step of a process is left out of the
    rate, since kernels are compiled in it, and so is the time of checkpoints and samples.
    """

    LINE_EVERY_S = 20.0
    RECENT = 20  # steps
    PATIENCE_S = 3.0
    compiles = False
    """Whether there is a kernel that may have to be compiled."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(file=sys.stderr)
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._losses: deque[float] = deque(maxlen=self.RECENT)
        self._speeds: deque[tuple[int, float]] = deque(maxlen=self.RECENT)
        self._images_seen: int | None = None
        self._hinted = False
        self._held_out = ""
        self._timer: threading.Timer | None = None

    @hookimpl
    def ssmdiff_run_start(self, config: Config, step: int) -> None:
        self._steps, self._last_line_s = config.train.steps, time.monotonic()
        if self.compiles and step < self._steps:
            self._timer = threading.Timer(self.PATIENCE_S, self.say, [_COMPILING])
            self._timer.daemon = True
            self._timer.start()
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[state]}"),
                TimeElapsedColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("train", total=self._steps, completed=step, state="")
            self._bar.start()

    @hookimpl
    def ssmdiff_step_end(self, record: StepRecord) -> None:
        self._stop_timer()
        first = self._images_seen is None
        if self._images_seen is not None and record.images_per_s:
            images = record.images_seen - self._images_seen
            self._speeds.append((images, images / record.images_per_s))
        self._images_seen = record.images_seen
        self._losses.append(record.loss)
        state = f"loss {sum(self._losses) / len(self._losses):.4f}{self._held_out}"
        if self._speeds:
            seconds = sum(s for _, s in self._speeds)
            left_s = (self._steps - record.step) * seconds / len(self._speeds)
            rate = sum(images for images, _ in self._speeds) / seconds
            state += f"  {rate:.1f} images/s  {in_time(left_s)} left"
        if self._bar:
            self._bar.update(self._task, completed=record.step, state=state)
        elif first or time.monotonic() - self._last_line_s > self.LINE_EVERY_S:
            self._last_line_s = time.monotonic()
            self.say(f"step {record.step}/{self._steps}  {state}")

    @hookimpl
    def ssmdiff_checkpoint_saved(self, path: Path) -> None:
        self.say(f"checkpoint {path}")

    @hookimpl
    def ssmdiff_samples_made(self, path: Path, step: int) -> None:
        self.say(f"samples {path}")
        if step < FEW_STEPS and not self._hinted:
            self._hinted = True
            self.say(_NOISE.format(step=step))

    @hookimpl
    def ssmdiff_reported(self, name: str, value: float) -> None:
        if name.startswith("held_out"):  # often, so beside the loss
            self._held_out = f", held out {value:.4f}" if name == HELD_OUT else self._held_out
        else:
            self.say(f"{name} {value:.4g}")

    @hookimpl
    def ssmdiff_run_end(self) -> None:
        self._stop_timer()
        if self._bar:
            self._bar.stop()

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def say(self, text: str) -> None:
        """A line of its own, above the bar if there is one."""
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)


FEW_STEPS = 600
"""Those of the preset ``tiny``, whose samples a person recognises."""
_COMPILING = (
    "compiling the scan kernel, once: the first run on a machine takes up to a minute for it; "
    "the time left is told from the second step on"
)
_NOISE = (
    "  samples of so few steps ({step}) are noise or near it, and no sign of a fault. Known is "
    "that the built-in heads at 32 x 32 are recognised after 600 steps of 16 images (preset tiny). "
    "Larger images and other data take longer; how much longer is not known beforehand"
)


def in_time(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
