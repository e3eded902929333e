"""Pictures of an evaluation, as PNG bytes: sheets of images, histograms, distances, curves."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Plot
from numpy.typing import NDArray
from PIL import Image
from ssmdiff import ImageSet

from ssmdiff_evaluate.evaluation import Judged

Levels = NDArray[np.uint8]

_GAP = 2
_BLUE, _ORANGE, _GREY = "#2a5d9f", "#c8682b", "#8a8a8a"
_COLOURS = (_BLUE, _ORANGE, "#3c8d5a", "#8c4a9c", "#b5a42e", "#333333")


def sheet(images: Levels, columns: int = 8, side_px: int = 64) -> bytes:
    """(N, C, H, W) levels as one PNG, small images enlarged by whole numbers."""
    n, channels, height, width = images.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    canvas = np.full(
        (rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3), 255, np.uint8
    )
    for i, image in enumerate(images):
        top, left = (
            place * (side + _GAP)
            for place, side in zip(divmod(i, columns), (height, width), strict=True)
        )
        rgb = image[:3] if channels >= 3 else np.repeat(image[:1], 3, axis=0)
        canvas[top : top + height, left : left + width] = np.moveaxis(rgb, 0, -1)
    scale = max(1, side_px // max(height, width))
    return _png(canvas.repeat(scale, 0).repeat(scale, 1))


def pairs_sheet(samples: Levels, originals: Levels) -> bytes:
    """Samples above, the training image that each is nearest to below it."""
    both = np.stack([samples, originals], axis=1).reshape(-1, *samples.shape[1:])
    return sheet(_interleaved(both, 8), columns=8)


def _interleaved(pairs: Levels, columns: int) -> Levels:
    """Pairs (a0, b0, a1, b1, ...) as rows of a's over rows of b's."""
    a, b = pairs[0::2], pairs[1::2]
    rows = []
    for start in range(0, len(a), columns):
        for side in (a, b):
            row = side[start : start + columns]
            blank = np.full((columns - len(row), *row.shape[1:]), 255, np.uint8)
            rows.append(np.concatenate([row, blank]))
    return np.concatenate(rows)


def histogram(reference: ImageSet, samples: ImageSet, count: int = 512) -> bytes:
    """How often each grey level is, over evenly spread images of both sets."""
    plot = Plot(figsize=(6.4, 2.6), layout="constrained")
    axes = plot.add_subplot()
    edges = np.linspace(-1, 1, 65)
    for images, name, colour in (
        (reference, "reference", _GREY),
        (samples, "samples", _BLUE),
    ):
        chosen = np.linspace(0, len(images) - 1, min(count, len(images))).astype(int).tolist()
        values = images.levels(chosen).ravel() / 127.5 - 1
        share, _ = np.histogram(values, edges)
        axes.stairs(share / values.size + 1e-7, edges, label=name, color=colour, linewidth=1.6)
    axes.set_yscale("log")
    axes.set_xlabel("value, -1 to 1")
    axes.set_ylabel("share of pixels")
    axes.legend(frameon=False)
    return _plot(plot)


def distances(judged: Sequence[Judged]) -> bytes | None:
    """Frechet distances with intervals and floors, each over its own floor; None without any."""
    chosen = [j.figure for j in judged if j.metric == "frechet" and j.figure.floor]
    if not chosen:
        return None
    plot = Plot(figsize=(6.4, 0.9 + 0.45 * len(chosen)), layout="constrained")
    axes = plot.add_subplot()
    for row, figure in enumerate(chosen):
        floor = figure.floor or 1.0
        low, high = figure.interval or (figure.value, figure.value)
        axes.plot([max(low, 1e-9) / floor, high / floor], [row, row], color=_BLUE, linewidth=2)
        axes.plot(figure.value / floor, row, "o", color=_BLUE)
    axes.axvline(1.0, color=_ORANGE, linewidth=1.2)
    axes.set_yticks(range(len(chosen)), [figure.name for figure in chosen])
    axes.set_xscale("log")
    axes.set_ylim(len(chosen) - 0.5, -0.5)
    axes.set_xlabel("distance over its floor (1: what real images have at these counts)")
    return _plot(plot)


SEEN, SECONDS = "images seen", "seconds of training"
"""What a loss is drawn over."""


class Loss(NamedTuple):
    """The loss of each step, with what had been seen and spent by then."""

    loss: NDArray[np.float64]
    seen: NDArray[np.float64]
    seconds: NDArray[np.float64]


def read_loss(metrics: Path, batch_size: int) -> Loss | None:
    """Of a run's ``metrics.jsonl``; None where there is none.

    Seconds are those of the steps, by their own speed: what lies between them, checkpoints and a
    pause before the run was resumed, does not count.
    """
    rows = []
    for text in metrics.read_text(encoding="utf-8").splitlines() if metrics.is_file() else ():
        try:
            row = json.loads(text)
        except ValueError:  # cut short by a crash
            break
        if "loss" in row:
            seen = row.get("images_seen", row["step"] * batch_size)
            rows.append((seen, row["loss"], row.get("images_per_s") or np.nan))
    if len(rows) < 2:
        return None
    seen, loss, speed = np.array(rows, np.float64).T
    spent = np.diff(seen, prepend=0) / speed
    return Loss(loss, seen, np.cumsum(np.nan_to_num(spent)))


def losses(runs: Mapping[str, Loss], over: str) -> bytes:
    """Losses over images seen or over seconds; of one run each step's as well."""
    plot = Plot(figsize=(6.4, 3.0), layout="constrained")
    below_0 = any((run.loss <= 0).any() for run in runs.values())  # a generator's may be
    axes = plot.add_subplot(xlabel=over, ylabel="loss", yscale="linear" if below_0 else "log")
    for (name, run), colour in zip(runs.items(), itertools.cycle(_COLOURS), strict=False):
        place = run.seconds if over == SECONDS else run.seen
        width = max(1, len(run.loss) // 50)
        smooth = np.convolve(run.loss, np.ones(width) / width, "valid")
        if len(runs) == 1:
            axes.plot(place, run.loss, color=_GREY, linewidth=0.5, alpha=0.6)
        axes.plot(place[width - 1 :], smooth, color=colour, linewidth=1.6, label=name)
    if len(runs) > 1:
        axes.legend(frameon=False, fontsize=8)
    return _plot(plot)


def bars(names: Sequence[str], rows: Mapping[str, Sequence[Any]]) -> bytes | None:
    """For each figure the value of every model with its interval; None without figures."""
    if not rows:
        return None
    plot = Plot(figsize=(6.4, 0.7 + 0.28 * len(rows) * (len(names) + 1)), layout="constrained")
    axes = plot.add_subplot()
    place, ticks, labels = 0, [], []
    for figure, values in rows.items():
        largest = max(abs(value) for value, _ in values) or 1.0
        for name, (value, interval) in zip(names, values, strict=True):
            low, high = interval or (value, value)
            axes.plot([low / largest, high / largest], [place, place], color=_BLUE, linewidth=2)
            axes.plot(value / largest, place, "o", color=_BLUE)
            ticks.append(place)
            labels.append(f"{figure}: {name}")
            place += 1
        place += 1
    axes.set_yticks(ticks, labels, fontsize=7)
    axes.set_ylim(place - 1, -1)
    axes.set_xlabel("over the largest of each figure")
    return _plot(plot)


def _plot(plot: Plot) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(plot).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _png(pixels: Levels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
