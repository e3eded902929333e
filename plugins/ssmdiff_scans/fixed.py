"""Fixed orders on a grid of any length and shape.

Tokens are numbered in raster order, the last axis fastest: ``h * W + w`` on an H x W grid.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from ssmdiff import Scan, ScanOrder


def axis_orders(grid: tuple[int, ...]) -> NDArray[np.int64]:
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

    def order(
        self, grid: tuple[int, ...], generator: np.random.Generator | None = None
    ) -> ScanOrder:
        return ScanOrder(axis_orders(grid)[:1])


class Bidirectional(Scan):
    """Raster and its reverse, K = 2 (Vim, DiS)."""

    def directions(self, dims: int) -> int:
        return 2

    def order(
        self, grid: tuple[int, ...], generator: np.random.Generator | None = None
    ) -> ScanOrder:
        return ScanOrder(with_reverse(axis_orders(grid)[:1]))


class Cross(Scan):
    """Every axis as the fastest, and the reverses: K = 2 n, four on an image.

    On an H x W grid: raster, column, and both reversed, the cross-scan of VMamba's SS2D, which
    VM-DDPM's CSM uses.
    """

    def directions(self, dims: int) -> int:
        return 2 * dims

    def order(
        self, grid: tuple[int, ...], generator: np.random.Generator | None = None
    ) -> ScanOrder:
        return ScanOrder(with_reverse(axis_orders(grid)))
