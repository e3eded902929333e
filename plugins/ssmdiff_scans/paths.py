"""What most of the catalogue is made of: one curve, its mirror images, and one of them a layer.

The *paths* of a curve are the curve itself and what the symmetries of the grid make of it. A scan
runs them side by side (K = paths), or gives layer i path i mod n (``by_layer``).
"""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from ssmdiff import ConfigError, Scan, ScanOrder

Grid = tuple[int, ...]
Index = NDArray[np.integer]
Paths = Literal[1, 2, 4, 8]


class Path(NamedTuple):
    """One row of an order."""

    tokens: Index
    """(L,): the token visited at time t."""
    restart: NDArray[np.bool_] | None = None
    """(L,) or None: a sequence of its own begins at time t."""


class Variant(NamedTuple):
    """How a path comes from its curve: mirror the grid, transpose it, walk backwards in time."""

    flip: tuple[int, ...] = ()
    transposed: bool = False
    backwards: bool = False


VARIANTS: dict[int, tuple[Variant, ...]] = {
    1: (Variant(),),
    2: (Variant(), Variant(backwards=True)),
    4: (
        Variant(),
        Variant(transposed=True),
        Variant(backwards=True),
        Variant(transposed=True, backwards=True),
    ),
    # The symmetries of the square: by row and by column from each corner, in ZigMa's sequence.
    8: tuple(
        Variant(flip, transposed)
        for flip in ((), (1,), (0,), (0, 1))
        for transposed in (False, True)
    ),
}


class Curve(Scan):
    """A scan made of one curve over the grid.

    Subclasses give :meth:`curve`. A path follows the curve over the flipped or transposed grid
    itself, W x H where the grid is H x W, and is never a table of another grid put to use.

    Args:
        paths: 1, the curve. 2, the curve and its reverse. 4, the curve, the curve with rows and
            columns exchanged, and the reverse of both. 8, the symmetries of the square: rows first
            and columns first from the four corners. 4 and 8 need an image.
        by_layer: Layer i takes path i mod ``paths`` (K = 1), instead of all side by side.
    """

    name: str
    """As registered, for messages."""
    axes: tuple[int, ...] | None = None
    """How many axes a grid may have; None for any number."""
    continuous: bool = False
    """Takes no step between tokens that share no side, on grids where the curve allows it."""

    def __init__(self, paths: Paths = 1, by_layer: bool = False) -> None:
        self.paths: int = paths
        self.by_layer = by_layer

    @abstractmethod
    def curve(self, grid: Grid) -> Index:
        """(L,): the token visited at time t on this grid."""

    def starts(self, grid: Grid) -> NDArray[np.bool_] | None:
        """(L,): where a sequence of its own begins on the curve; None if it is all one."""
        return None

    def directions(self, dims: int) -> int:
        self._check(dims)
        return 1 if self.by_layer else self.paths

    def order(self, grid: Grid, generator: np.random.Generator | None = None) -> ScanOrder:
        self._check(len(grid))
        curves: dict[Grid, Path] = {}
        count = 1 if self.by_layer else self.paths
        return stacked([self.path(grid, i, curves) for i in range(count)])

    def at(self, slot: int) -> Scan:
        return self._layers[slot % self.paths] if self.by_layer else self

    @functools.cached_property
    def _layers(self) -> list[PathOf]:
        return [PathOf(self, i) for i in range(self.paths)]

    def path(self, grid: Grid, i: int, curves: dict[Grid, Path] | None = None) -> Path:
        """The i-th path, 0 <= i < paths; ``curves`` keeps the curves of the grids it met."""
        curves = {} if curves is None else curves
        variant = VARIANTS[self.paths][i]
        tokens = np.flip(np.arange(math.prod(grid)).reshape(grid), variant.flip)
        tokens = tokens.T if variant.transposed else tokens
        if tokens.shape not in curves:
            curves[tokens.shape] = Path(self.curve(tokens.shape), self.starts(tokens.shape))
        curve, starts = curves[tokens.shape]
        path = Path(tokens.ravel()[curve], starts)
        return backwards(path) if variant.backwards else path

    def _check(self, dims: int) -> None:
        if self.axes is not None and dims not in self.axes:
            raise refusal(self.name, dims, served_by(self.axes))
        if self.paths > 2 and dims != 2:
            serves = f"images with paths = {self.paths}, and others with --set model.scan.paths=1"
            raise refusal(self.name, dims, serves)


class PathOf(Scan):
    """One path of a curve, K = 1: the scan of one layer."""

    def __init__(self, curve: Curve, i: int) -> None:
        self.of, self.i = curve, i
        self.continuous = curve.continuous

    def directions(self, dims: int) -> int:
        return self.of.directions(dims)

    def order(self, grid: Grid, generator: np.random.Generator | None = None) -> ScanOrder:
        self.directions(len(grid))
        return stacked([self.of.path(grid, self.i)])


def backwards(path: Path) -> Path:
    """The path walked from its end; the first token of a sequence becomes its last."""
    if path.restart is None:
        return Path(path.tokens[::-1])
    return Path(path.tokens[::-1], np.roll(path.restart[::-1], 1))


def stacked(paths: list[Path]) -> ScanOrder:
    """Paths side by side, as an order of K = len(paths)."""
    restarts = [path.restart for path in paths if path.restart is not None]
    return ScanOrder(
        np.stack([path.tokens for path in paths]), np.stack(restarts) if restarts else None
    )


def coordinates(grid: Grid) -> list[Index]:
    """(L,) for each axis: the coordinates of every token."""
    return [axis.ravel() for axis in np.indices(grid)]


def sorted_by(*keys: NDArray[Any]) -> Index:
    """(L,): the tokens in ascending order of the first key, ties by the second, and so on."""
    return np.lexsort(keys[::-1])


def served_by(axes: tuple[int, ...]) -> str:
    """The grids of so many axes, in words."""
    words = {1: "sequences (L,)", 2: "images (H, W)", 3: "volumes (D, H, W)"}
    return " and ".join(words[n] for n in axes)


def refusal(name: str, dims: int, serves: str) -> ConfigError:
    """What a scan says to a grid that it cannot serve."""
    return ConfigError(
        f"scan {name!r} cannot serve a grid of {dims} axes: it serves {serves}. Scans for a grid "
        "of any number of axes: raster, bidirectional, cross, snake, morton, regenerate"
    )


def needed(name: str, generator: np.random.Generator | None) -> np.random.Generator:
    """The generator that a random scan draws from.

    Raises:
        ConfigError: There is none.
    """
    if generator is None:
        raise ConfigError(
            f"scan {name!r} is random and was given no generator; draw its orders with an "
            "OrderPlan, or pass numpy.random.default_rng(seed)"
        )
    return generator
