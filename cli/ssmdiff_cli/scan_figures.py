"""What an order does to neighbours, in numbers: jumps, and how far apart in time they are visited.

Plain numpy and no torch: ``ssmdiff scans list`` and the table of docs/scans.md come from here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ssmdiff.errors import ConfigError, SsmdiffError
from ssmdiff.orders.scan import Grid, Scan, ScanOrder, checked_order, size_text
from ssmdiff.orders.seeds import stream
from ssmdiff.registry.plugin import name_of
from ssmdiff.registry.registry import Registry

GRIDS: tuple[Grid, ...] = ((16, 16), (8, 8, 8), (256,))
"""Where a scan is measured: the first of these that it serves."""
_SMALL: dict[int, Grid] = {1: (4,), 2: (4, 4), 3: (4, 4, 4)}


@dataclass(frozen=True)
class OrderFigures:
    """Figures of one order on one grid. Neighbours are tokens that share a side of the grid.

    Two neighbours in different sequences of an order with restarts never meet: they have no |dt|
    and count as ``apart``.
    """

    directions: int
    """K."""
    jumps: int
    """Steps between tokens that are no neighbours, in the direction that has most of them."""
    mean_dt: float | None
    """Mean |dt| of two neighbours in direction 0, dt being the time between their visits."""
    max_dt: int | None
    """The largest |dt| of two neighbours in direction 0."""
    best_mean_dt: float | None
    """Mean over the neighbours of the smallest |dt| that any of the K directions gives them."""
    best_max_dt: int | None
    """The largest of those smallest |dt|."""
    apart: float
    """Share of the neighbours that meet in no direction."""


def measure(order: ScanOrder, grid: Grid) -> OrderFigures:
    """The figures of an order of this grid."""
    dt = _time_between_neighbours(order, grid)
    best = dt.min(axis=0)
    first = _mean_and_max(dt[0])
    smallest = _mean_and_max(best)
    return OrderFigures(
        order.directions,
        max((int((row != 1).sum()) for row in step_lengths(order, grid)), default=0),
        *first,
        *smallest,
        float(np.isinf(best).mean()) if best.size else 0.0,
    )


def step_lengths(order: ScanOrder, grid: Grid) -> list[NDArray[np.int64]]:
    """For each direction, the lengths of its steps in sides of a token, restarts left out."""
    lengths = []
    for k, row in enumerate(order.index):
        places = np.stack(np.unravel_index(row, grid))
        steps = np.abs(np.diff(places, axis=1)).sum(axis=0)
        lengths.append(steps if order.restart is None else steps[~order.restart[k, 1:]])
    return lengths


def _time_between_neighbours(order: ScanOrder, grid: Grid) -> NDArray[np.float64]:
    """(K, pairs): |dt| of all pairs of neighbours, infinite where a restart lies between."""
    tokens = np.arange(order.length).reshape(grid)
    pairs = []
    for axis in range(len(grid)):
        line = np.moveaxis(tokens, axis, 0)
        pairs.append(np.stack([line[:-1].ravel(), line[1:].ravel()]))
    one, other = np.concatenate(pairs, axis=1)
    time = order.inverse.astype(np.float64)
    dt = np.abs(time[:, one] - time[:, other])
    if order.restart is not None:
        sequence = np.take_along_axis(order.restart.cumsum(axis=1), order.inverse, axis=1)
        dt[sequence[:, one] != sequence[:, other]] = np.inf
    return dt


def _mean_and_max(dt: NDArray[np.float64]) -> tuple[float | None, int | None]:
    met = dt[np.isfinite(dt)]
    return (float(met.mean()), int(met.max())) if met.size else (None, None)


def served_axes(scan: Scan) -> tuple[int, ...]:
    """How many axes the grids may have that the scan serves, of 1, 2 and 3."""
    served = []
    for dims, grid in _SMALL.items():
        try:
            order_of_slot(scan, grid)
        except ConfigError:
            continue
        served.append(dims)
    return tuple(served)


def order_of_slot(scan: Scan, grid: Grid, seed: int = 0, slot: int = 0) -> ScanOrder:
    """The order of one S6 call at step 0, as a network under this seed draws it.

    Raises:
        ConfigError: The scan cannot serve the grid.
    """
    return checked_order(scan.at(slot), grid, stream(seed, "order", 0, slot))


def figures_of(scan: Scan) -> tuple[Grid, OrderFigures]:
    """The first grid of :data:`GRIDS` that the scan serves, and the figures of slot 0, seed 0.

    Raises:
        ConfigError: It serves none of them.
    """
    axes = served_axes(scan)
    for grid in GRIDS:
        if len(grid) in axes:
            return grid, measure(order_of_slot(scan, grid), grid)
    sizes = ", ".join(map(size_text, GRIDS))
    raise ConfigError(f"scan {type(scan).__name__} serves none of the grids {sizes}")


def table(registry: Registry) -> list[dict[str, Any]]:
    """Every registered scan with its default options: what it is, and its figures.

    A scan that cannot be built or measured has an ``error`` in their place.
    """
    rows = []
    for entry in registry.all("scan"):
        name = entry.component.name
        row: dict[str, Any] = {
            "name": name,
            "summary": entry.component.summary,
            "cite": entry.component.cite,
            "from": entry.plugin.source,
        }
        try:
            scan: Scan = registry.create("scan", name)
            grid, figures = figures_of(scan)
        except Exception as error:  # whatever a stranger's scan raises
            row["error"] = str(error) if isinstance(error, SsmdiffError) else name_of(error)
        else:
            row |= {
                "axes": list(served_axes(scan)),
                "stochastic": scan.stochastic,
                "continuous": scan.continuous,
                "grid": list(grid),
                **asdict(figures),
            }
        rows.append(row)
    return rows
