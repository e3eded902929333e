"""Orders by axes, on a grid of any length and shape: raster, column, and what is made of them.

Tokens are numbered in raster order, the last axis fastest: ``h * W + w`` on an H x W grid.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from ssmdiff import Scan, ScanOrder

from ssmdiff_scans.paths import Curve, Grid, Index, Paths, refusal, served_by


def axis_orders(grid: Grid) -> NDArray[np.int64]:
    """(n, L): raster order with each of the n axes in turn as the fastest, the last axis first."""
    tokens = np.arange(math.prod(grid)).reshape(grid)
    return np.stack([np.moveaxis(tokens, axis, -1).ravel() for axis in reversed(range(len(grid)))])


def with_reverse(index: NDArray[np.int64]) -> NDArray[np.int64]:
    """(K, L) to (2 K, L): the orders, then each of them backwards."""
    return np.concatenate([index, index[:, ::-1]])


class Raster(Scan):
    """Row by row from the first token to the last, K = 1 (Vim, one way)."""

    def directions(self, dims: int) -> int:
        return 1

    def order(self, grid: Grid, generator: np.random.Generator | None = None) -> ScanOrder:
        return ScanOrder(axis_orders(grid)[:1])


class Column(Scan):
    """Column by column, K = 1; on any grid, the first axis is the fastest."""

    def directions(self, dims: int) -> int:
        return 1

    def order(self, grid: Grid, generator: np.random.Generator | None = None) -> ScanOrder:
        return ScanOrder(axis_orders(grid)[-1:])


class Bidirectional(Scan):
    """Raster and its reverse, K = 2 (Vim, DiS)."""

    def directions(self, dims: int) -> int:
        return 2

    def order(self, grid: Grid, generator: np.random.Generator | None = None) -> ScanOrder:
        return ScanOrder(with_reverse(axis_orders(grid)[:1]))


class Cross(Scan):
    """Every axis as the fastest, and the reverses: K = 2 n, four on an image.

    On an H x W grid: raster, column, and both reversed, the cross-scan of VMamba's SS2D, which
    VM-DDPM's CSM uses.
    """

    def directions(self, dims: int) -> int:
        return 2 * dims

    def order(self, grid: Grid, generator: np.random.Generator | None = None) -> ScanOrder:
        return ScanOrder(with_reverse(axis_orders(grid)))


class AxisCross(Scan):
    """Every axis as the fastest, each followed by its reverse: K = 2 n (Mamba-ND).

    The rows of ``cross`` in the sequence of Mamba-ND, which alternates them: W+ W- H+ H- on an
    image.

    Args:
        by_layer: Layer i takes direction i mod 2 n (K = 1), as Mamba-ND does, instead of all side
            by side.
    """

    def __init__(self, by_layer: bool = False) -> None:
        self.by_layer = by_layer
        self._layers: dict[int, Scan] = {}

    def directions(self, dims: int) -> int:
        return 1 if self.by_layer else 2 * dims

    def order(self, grid: Grid, generator: np.random.Generator | None = None) -> ScanOrder:
        if self.by_layer:
            return self.at(0).order(grid)
        return ScanOrder(alternating(grid))

    def at(self, slot: int) -> Scan:
        if not self.by_layer:
            return self
        return self._layers.setdefault(slot, AxisDirection(slot))


class AxisDirection(Scan):
    """One direction of ``axis-cross``, K = 1: the scan of one layer."""

    def __init__(self, layer: int) -> None:
        self.layer = layer

    def directions(self, dims: int) -> int:
        return 1

    def order(self, grid: Grid, generator: np.random.Generator | None = None) -> ScanOrder:
        return ScanOrder(alternating(grid)[None, self.layer % (2 * len(grid))])


def alternating(grid: Grid) -> NDArray[np.int64]:
    """(2 n, L): each axis as the fastest, the last first, each followed by its reverse."""
    forward = axis_orders(grid)
    return np.stack([forward, forward[:, ::-1]], axis=1).reshape(-1, forward.shape[1])


class Sweep8(Curve):
    """Raster and column from the four corners, layer i taking path i mod 8 (DiMSUM)."""

    name = "sweep8"

    def __init__(self, paths: Paths = 8, by_layer: bool = True) -> None:
        super().__init__(paths, by_layer)

    def curve(self, grid: Grid) -> Index:
        return np.arange(math.prod(grid))


class Tri(Scan):
    """On a volume: depth-height-width, its reverse, and height-width-depth, K = 3 (SegMamba).

    The axes are named from the slowest to the fastest.
    """

    def directions(self, dims: int) -> int:
        if dims != 3:
            raise refusal("tri", dims, served_by((3,)))
        return 3

    def order(self, grid: Grid, generator: np.random.Generator | None = None) -> ScanOrder:
        self.directions(len(grid))
        by_width, _, by_depth = axis_orders(grid)
        return ScanOrder(np.stack([by_width, by_width[::-1], by_depth]))
