"""Orders that divide the grid first: windows, stripes, interleaved sub-grids."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ssmdiff_scans.paths import Curve, Grid, Index, Paths, coordinates, sorted_by

Size = Annotated[int, Field(ge=1, le=64)]


class Local(Curve):
    """Window after window in raster order, raster order inside each (LocalMamba).

    By (h // k, w // k, h % k, w % k); on a volume likewise with all its axes.

    Args:
        window: k, tokens along each side of a window; LocalMamba uses 2 and 7. Windows at the
            border of a grid that k does not divide are smaller.
        paths: 4, the default, is LocalMamba's row and column, forward and reverse.
        by_layer: One path a layer.
    """

    name = "local"

    def __init__(self, window: Size = 4, paths: Paths = 4, by_layer: bool = False) -> None:
        super().__init__(paths, by_layer)
        self.window = window

    def curve(self, grid: Grid) -> Index:
        axes = coordinates(grid)
        return sorted_by(*(c // self.window for c in axes), *(c % self.window for c in axes))


class Stripes(Curve):
    """A snake inside stripes of columns, neighbouring stripes in opposite directions (MaIR).

    MaIR's nested S: the first stripe is walked downwards, row by row and every other row backwards,
    the next one upwards, and so on; each begins on its left. From an odd number of rows the path
    leaves a stripe beside the next one; from an even number it jumps the width of the stripe.

    Args:
        width: k, tokens across a stripe; the last one is narrower where k does not divide W.
        shift: Tokens across the first stripe, 0 for k; MaIR shifts every other layer by k // 2.
        paths: 4, the default, is the curve, its transpose, and both reversed.
        by_layer: One path a layer.
    """

    name = "stripes"
    axes = (2,)

    def __init__(
        self,
        width: Size = 4,
        shift: Annotated[int, Field(ge=0, le=63)] = 0,
        paths: Paths = 4,
        by_layer: bool = False,
    ) -> None:
        super().__init__(paths, by_layer)
        self.width, self.shift = width, shift % width

    def curve(self, grid: Grid) -> Index:
        h, w = coordinates(grid)
        stripe = (w + (self.width - self.shift) % self.width) // self.width
        row = np.where(stripe % 2, grid[0] - 1 - h, h)
        return sorted_by(stripe, row, np.where(row % 2, -w, w))


class Atrous(Curve):
    """d x d interleaved sub-grids, each a sequence of its own (EfficientVMamba).

    By (h % d, w % d, h // d, w // d); on a volume likewise, d^3 of them. The state starts anew at
    the first token of each sub-grid.

    NOTE(paper): EfficientVMamba gives each of the four sub-grids one direction; here every
    direction serves all of them, so that each token is visited K times, as by any other scan.

    Args:
        step: d, the distance between neighbours of a sub-grid.
        paths: 4, the default, is row and column, forward and reverse.
        by_layer: One path a layer.
    """

    name = "atrous"

    def __init__(
        self,
        step: Annotated[int, Field(ge=2, le=64)] = 2,
        paths: Paths = 4,
        by_layer: bool = False,
    ) -> None:
        super().__init__(paths, by_layer)
        self.step = step

    def curve(self, grid: Grid) -> Index:
        axes = coordinates(grid)
        return sorted_by(*(c % self.step for c in axes), *(c // self.step for c in axes))

    def starts(self, grid: Grid) -> NDArray[np.bool_]:
        # The first token of a sub-grid is the one that lies in the first d x d tokens.
        first = np.logical_and.reduce([c < self.step for c in coordinates(grid)])
        starts: NDArray[np.bool_] = first[self.curve(grid)]
        return starts
