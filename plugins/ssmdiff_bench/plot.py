"""Time and memory against tokens or pixels, as a picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from ssmdiff import ConfigError, write_atomically

from ssmdiff_bench.record import Record, Row

LINES = {0: "-", 1: "--", 2: ":"}


def require_matplotlib() -> None:
    """Refuse a plot now, not after the measurement.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "--plot needs matplotlib, which is not installed; try: pip install 'ssmdiff[train]'"
        ) from error


def write_plot(record: Record, path: Path) -> None:
    """A PNG with two panels, time and memory: lines over the sizes, or bars where there is one.

    Raises:
        ConfigError: Nothing was measured, or matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    rows = record.measured()
    if not rows:
        raise ConfigError("nothing was measured, so there is nothing to plot")
    figure = Figure(figsize=(13, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw = _lines if len({row.size for row in rows}) > 1 else _bars
    draw(left, record, "ms", _time_ms)
    draw(right, record, "MiB", _memory_mib)
    handles, labels = left.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right center", fontsize=8)
    left.set_title(f"time ({record.bench})")
    right.set_title("memory of a call, beyond what is there before it")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())


def _time_ms(row: Row) -> tuple[float, float, float] | None:
    if row.timing is None:
        return None
    low, high = row.timing.quartiles_s
    return row.timing.median_s * 1e3, low * 1e3, high * 1e3


def _memory_mib(row: Row) -> tuple[float, float, float] | None:
    if row.memory is None or row.memory.extra <= 0:
        return None
    extra = row.memory.extra / 2**20
    return extra, extra, extra


def _lines(axes: Any, record: Record, unit: str, value: Any) -> None:
    colours = {way: f"C{i % 10}" for i, way in enumerate(dict.fromkeys(r.way for r in record.rows))}
    for i, series in enumerate(record.series()):
        for way, colour in colours.items():
            points = [
                (row.size, *found)
                for row in record.measured(series)
                if row.way == way and (found := value(row))
            ]
            if not points:
                continue
            sizes, middle, low, high = zip(*sorted(points), strict=True)
            label = way if len(record.series()) == 1 else f"{way}, {series}"
            axes.plot(sizes, middle, LINES[i % 3], marker="o", ms=4, color=colour, label=label)
            axes.fill_between(sizes, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = sorted({row.size for row in record.measured()})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.set_xlabel(record.size)
    axes.set_ylabel(unit)


def _bars(axes: Any, record: Record, unit: str, value: Any) -> None:
    rows = [(row, found) for row in record.measured() if (found := value(row))]
    one = len(record.series()) == 1
    names = [row.way if one else f"{row.way}, {row.series}" for row, _ in rows]
    axes.barh(names, [middle for _, (middle, _, _) in rows])
    axes.invert_yaxis()
    axes.set_xlabel(unit)
