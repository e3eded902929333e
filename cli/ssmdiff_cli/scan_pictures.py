"""Pictures of orders: the path over the grid, coloured along time, and the same in characters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from ssmdiff.errors import ConfigError
from ssmdiff.orders.scan import Grid, ScanOrder, size_text

from ssmdiff_cli.scan_figures import step_lengths

LARGEST = 1 << 16
"""Tokens of the largest grid that is drawn."""

_INK, _GRID = "#22252b", "#e2e4e9"
_COLOURS = "viridis"
_SHORT = 2  # sides of a token: a step up to this length is drawn in full, a longer one faintly


class Panel(NamedTuple):
    """One direction of an order of a grid, and what stands above it."""

    title: str
    order: ScanOrder
    grid: Grid
    direction: int = 0


def draw(panels: Sequence[Panel], path: Path, title: str = "") -> None:
    """Write the panels as one PNG, in up to four columns; fewer for wide grids.

    Each path runs from a circle to a square, from dark to light; steps longer than two tokens
    are faint, and sequences of their own are drawn beside each other. A path of mostly long steps,
    a random one, is drawn as tokens in the colour of their time.

    Raises:
        ConfigError: A grid has over 65,536 tokens or more than three axes, or matplotlib is not
            installed.
    """
    for panel in panels:
        check_size(panel.grid)
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ConfigError(
            "pictures need the Python package 'matplotlib', which is not installed. "
            "Try: pip install 'ssmdiff[train]', or --ascii"
        ) from error
    tall = max(_height(panel.grid) for panel in panels)
    columns = min(int(np.clip(5 * tall, 1, 4)), len(panels))
    rows = -(-len(panels) // columns)
    panel_in = {1: 4.4, 2: 3.4}.get(columns, 2.6)
    size = columns * panel_in + 0.1, rows * (panel_in * tall + 0.3) + (0.3 if title else 0)
    figure: Any = Figure(figsize=size, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.04, h_pad=0.03, wspace=0.02, hspace=0.02)
    if title:
        figure.suptitle(title, fontsize=11, color=_INK, fontweight="bold")
    for i, panel in enumerate(panels):
        projection = "3d" if len(panel.grid) == 3 else None
        axes: Any = figure.add_subplot(rows, columns, i + 1, projection=projection)
        axes.set_title(panel.title, fontsize=9, color=_INK, pad=3)
        draw_panel(axes, panel, panel_in * 72)
    figure.savefig(path, dpi=110)


def draw_blocks(
    blocks: Sequence[tuple[str, Sequence[Panel]]], path: Path, columns: int, block_in: float
) -> None:
    """Write several scans as one PNG: a title each, and under it its panels in a square."""
    from matplotlib.figure import Figure

    rows = -(-len(blocks) // columns)
    figure: Any = Figure(figsize=(columns * block_in, rows * (block_in + 0.25)), facecolor="white")
    top = 0.25 / (rows * (block_in + 0.25))
    outer = figure.add_gridspec(
        rows, columns, left=0.01, right=0.99, bottom=0.005, top=1 - top, wspace=0.1, hspace=0.17
    )
    for i, (title, panels) in enumerate(blocks):
        side = int(np.ceil(np.sqrt(len(panels))))
        inner = outer[i].subgridspec(side, side, wspace=0.08, hspace=0.08)
        heading = figure.add_subplot(outer[i])
        heading.set_axis_off()
        heading.set_title(title, fontsize=9, color=_INK, pad=3)
        for place, panel in enumerate(panels):
            projection = "3d" if len(panel.grid) == 3 else None
            axes: Any = figure.add_subplot(inner[divmod(place, side)], projection=projection)
            draw_panel(axes, panel, block_in / side * 72)
    figure.savefig(path, dpi=100)


def _height(grid: Grid) -> float:
    """Of a panel, in widths of it."""
    shape = shown(grid)
    return float(np.clip(shape[0] / shape[1], 0.15, 2.5)) if len(shape) == 2 else 1.0


def check_size(grid: Grid) -> None:
    """Refuse a grid that no picture can show."""
    if len(grid) > 3 or np.prod(grid) > LARGEST:
        raise ConfigError(
            f"a grid of {size_text(grid)} cannot be drawn; expected up to three axes "
            f"and {LARGEST} tokens"
        )


def shown(grid: Grid) -> Grid:
    """The grid as it is drawn: a sequence is one row."""
    return grid if len(grid) > 1 else (1, *grid)


def draw_panel(axes: Any, panel: Panel, width_pt: float) -> None:
    """Draw one direction into matplotlib axes that show nothing else."""
    axes.set_axis_off()
    shape = shown(panel.grid)
    places = np.stack(np.unravel_index(panel.order.index[panel.direction], shape), axis=1)
    cell_pt = width_pt / max(shape)
    if len(shape) == 3:
        _draw_volume(axes, panel, places, cell_pt)
        return
    H, W = shape
    axes.set(xlim=(-0.6, W - 0.4), ylim=(H - 0.4, -0.6), aspect="equal")
    if scattered(panel):
        _draw_tokens(axes, panel, places[:, ::-1], cell_pt)
        _mark_ends(axes, places[:, ::-1], cell_pt)
    else:
        _draw_cells(axes, shape)
        points = places[:, ::-1] + _beside_each_other(panel)
        _draw_path(axes, panel, points, cell_pt)
        _mark_ends(axes, points, cell_pt)


def scattered(panel: Panel) -> bool:
    """Whether many steps are long, so that a line would only be a tangle."""
    lengths = step_lengths(panel.order, panel.grid)[panel.direction]
    return bool((lengths > 2 * _SHORT).mean() > 0.4) if lengths.size else False


def _beside_each_other(panel: Panel) -> NDArray[np.float64]:
    """(L, 2): how far each token is moved, so that sequences do not cover each other."""
    if panel.order.restart is None:
        return np.zeros((panel.order.length, 2))
    sequence = panel.order.restart[panel.direction].cumsum()
    offset = np.interp(sequence, [sequence.min(), max(sequence.max(), 2)], [-0.27, 0.27])
    return np.stack([offset, offset], axis=1)


def _draw_tokens(axes: Any, panel: Panel, points: NDArray[np.intp], cell_pt: float) -> None:
    """Every token in the colour of the time of its visit, with the time where there is room."""
    time = panel.order.inverse[panel.direction].reshape(shown(panel.grid))
    axes.imshow(time, cmap=_COLOURS, interpolation="nearest")
    if max(time.shape) <= 10 and cell_pt > 12:
        for (h, w), t in np.ndenumerate(time):
            colour = "white" if t < 0.6 * time.size else _INK
            axes.text(w, h, t, ha="center", va="center", fontsize=7, color=colour)
    elif time.size <= 1024:
        axes.plot(*points.T, color="white", linewidth=0.35, alpha=0.45)


def _draw_cells(axes: Any, shape: Grid) -> None:
    """The sides of the tokens, or of the grid where those would be too many."""
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Rectangle

    H, W = shape
    if max(shape) > 32:
        axes.add_patch(Rectangle((-0.5, -0.5), W, H, fill=False, color=_GRID, linewidth=0.8))
        return
    lines = [[(w - 0.5, -0.5), (w - 0.5, H - 0.5)] for w in range(W + 1)]
    lines += [[(-0.5, h - 0.5), (W - 0.5, h - 0.5)] for h in range(H + 1)]
    axes.add_collection(LineCollection(lines, colors=_GRID, linewidths=0.5, zorder=0))


def _draw_path(axes: Any, panel: Panel, points: NDArray[np.float64], cell_pt: float) -> None:
    from matplotlib.collections import LineCollection

    segments, times, faint = _segments(panel, points)
    width = float(np.clip(cell_pt * 0.15, 0.6, 2.4))
    for chosen, share, alpha, layer in ((faint, 0.5, 0.35, 1), (~faint, 1.0, 1.0, 2)):
        collection = LineCollection(
            segments[chosen],
            cmap=_COLOURS,
            linewidths=width * share,
            alpha=alpha,
            capstyle="round",
            zorder=layer,
        )
        collection.set_array(times[chosen])
        collection.set_clim(0, len(points) - 1)
        axes.add_collection(collection)
    _draw_arrows(axes, segments[~faint], times[~faint], len(points), cell_pt)


def _segments(
    panel: Panel, points: NDArray[np.float64]
) -> tuple[Any, NDArray[np.intp], NDArray[np.bool_]]:
    """The steps as (S, 2, n) points, the time of each, and which are long; none at a restart."""
    segments: Any = np.stack([points[:-1], points[1:]], axis=1)
    times = np.arange(len(segments))
    if panel.order.restart is not None:
        goes_on = ~panel.order.restart[panel.direction, 1:]
        segments, times = segments[goes_on], times[goes_on]
    reach = np.abs(segments[:, 1] - segments[:, 0]).max(axis=1, initial=0)
    return segments, times, reach > _SHORT + 0.5


def _draw_arrows(
    axes: Any,
    segments: NDArray[np.float64],
    times: NDArray[np.intp],
    length: int,
    cell_pt: float,
) -> None:
    """Arrow heads in the middle of some steps, evenly along the path."""
    from matplotlib import colormaps

    if not len(segments):
        return
    size = float(np.clip(cell_pt * 0.55, 4.5, 8))
    for i in np.unique(np.linspace(0, len(segments) - 1, 16).astype(int)[1:-1]):
        start, end = segments[i]
        dx, dy = end - start
        axes.plot(
            *([c] for c in (start + end) / 2),
            marker=(3, 0, np.degrees(np.arctan2(-dy, dx)) - 90),
            markersize=size,
            color=colormaps[_COLOURS](times[i] / max(length - 1, 1)),
            markeredgecolor="none",
            zorder=3,
        )


def _mark_ends(axes: Any, points: NDArray[Any], cell_pt: float) -> None:
    """A circle where the path begins, a square where it ends."""
    size = float(np.clip(cell_pt * 0.55, 4, 8))
    for point, marker in ((points[-1], "s"), (points[0], "o")):
        axes.plot(
            *([c] for c in point),
            marker=marker,
            markersize=size,
            color="white",
            markeredgecolor=_INK,
            markeredgewidth=1.3,
            zorder=1000,
        )


def _draw_volume(axes: Any, panel: Panel, places: NDArray[np.intp], cell_pt: float) -> None:
    """A box seen from the front and above: w to the right, h downwards, d into the page."""
    from mpl_toolkits.mplot3d.art3d import Line3DCollection  # type: ignore[import-untyped]

    axes.computed_zorder = False
    points = places[:, [2, 0, 1]].astype(float)
    high = np.maximum(points.max(axis=0), 0.5)
    corners = np.array(list(np.ndindex(2, 2, 2)))
    edges = [(a, b) for a in corners for b in corners if (b - a).sum() == abs(b - a).sum() == 1]
    box = np.array(edges) * high
    axes.add_collection3d(Line3DCollection(box, colors=_GRID, linewidths=0.7, zorder=0))
    segments, times, faint = _segments(panel, points)
    width = float(np.clip(cell_pt * 0.12, 0.6, 2.4))
    for chosen, alpha, share in ((faint, 0.3, 0.4), (~faint, 1.0, 1.0)):
        if chosen.any():
            path = Line3DCollection(
                segments[chosen], cmap=_COLOURS, alpha=alpha, linewidths=share * width, zorder=1
            )
            path.set_array(times[chosen])
            path.set_clim(0, len(places) - 1)
            axes.add_collection3d(path)
    axes.set(xlim=(0, high[0]), ylim=(0, high[1]), zlim=(high[2], 0))
    axes.set_box_aspect(high, zoom=1.1)
    axes.view_init(elev=24, azim=-64)
    _mark_ends(axes, points, cell_pt)


def ascii_path(order: ScanOrder, grid: Grid, direction: int = 0) -> str:
    """The path in plain characters: ``S`` start, ``E`` end, an arrow on every step to a neighbour.

    Steps to a diagonal neighbour are ``/`` and ``\\``. A token that is left by a longer step, or
    after which the state starts anew, is ``*``, and so is not followed by an arrow.

    Raises:
        ConfigError: The grid has more than two axes.
    """
    if len(grid) > 2:
        raise ConfigError(
            f"a grid of {size_text(grid)} has no picture in characters; expected (H, W)"
        )
    H, W = shown(grid)
    canvas = np.full((2 * H - 1, 2 * W - 1), " ")
    canvas[::2, ::2] = "o"
    places = np.stack(np.divmod(order.index[direction], W), axis=1)
    signs = {(0, 1): ">", (0, -1): "<", (1, 0): "v", (-1, 0): "^"}
    signs |= {(1, 1): "\\", (-1, -1): "\\", (1, -1): "/", (-1, 1): "/"}
    for t in range(len(places) - 1):
        step = tuple((places[t + 1] - places[t]).tolist())
        restart = order.restart is not None and bool(order.restart[direction, t + 1])
        if step in signs and not restart:
            h, w = places[t] + places[t + 1]
            canvas[h, w] = signs[step] if canvas[h, w] in (" ", signs[step]) else "X"
        else:
            canvas[tuple(2 * places[t])] = "*"
    canvas[tuple(2 * places[-1])], canvas[tuple(2 * places[0])] = "E", "S"
    return "\n".join("".join(line).rstrip() for line in canvas)


def ascii_times(order: ScanOrder, grid: Grid, direction: int = 0) -> str:
    """The time of each token's visit, laid out as the grid."""
    times = order.inverse[direction].reshape(shown(grid))
    width = len(str(times.max()))
    return "\n".join(" ".join(f"{t:>{width}}" for t in row) for row in times)
