"""Curves by index arithmetic: snakes, diagonals, Morton order, the spiral, rings."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from ssmdiff_scans.paths import Curve, Grid, Index, Paths, coordinates, sorted_by


def snake(grid: Grid) -> Index:
    """(L,): raster order with every other row walked backwards; on any grid, one axis a time.

    The reflected code of mixed radix: a digit counts downwards where the number that the digits
    before it form is odd. So every step goes to a neighbour.
    """
    time = np.arange(math.prod(grid))
    place, tokens = math.prod(grid), np.zeros_like(time)
    for side in grid:
        before = time // place
        place //= side
        digit = time // place % side
        tokens = tokens * side + np.where(before % 2, side - 1 - digit, digit)
    return tokens


class Snake(Curve):
    """Raster with every other line walked backwards, K = 1 (PlainMamba, ZigMa).

    Args:
        along: Whether the lines are rows or columns; on a volume, lines of the last or of the
            first axis.
        paths: 1, 2, 4 or 8 of its symmetric paths; see :class:`ssmdiff_scans.paths.Curve`.
        by_layer: One path a layer.
    """

    name = "snake"
    continuous = True

    def __init__(
        self, along: Literal["row", "column"] = "row", paths: Paths = 1, by_layer: bool = False
    ) -> None:
        super().__init__(paths, by_layer)
        self.along = along

    def curve(self, grid: Grid) -> Index:
        if self.along == "row":
            return snake(grid)
        tokens = np.moveaxis(np.arange(math.prod(grid)).reshape(grid), 0, -1)
        return tokens.ravel()[snake(tokens.shape)]


class Zigzag(Curve):
    """The row snake and the column snake from the four corners, layer i taking path i mod 8.

    ZigMa, section 4.2; its sequence of paths. ``by_layer=False`` runs all eight side by side.
    """

    name = "zigzag"
    axes = (2,)
    continuous = True

    def __init__(self, paths: Paths = 8, by_layer: bool = True) -> None:
        super().__init__(paths, by_layer)

    def curve(self, grid: Grid) -> Index:
        return snake(grid)


class Diagonal(Curve):
    """By s = h + w, then h: one diagonal after the other, all the same way (RS-Mamba).

    On a volume, by the sum of the coordinates, then in raster order.
    """

    name = "diagonal"

    def curve(self, grid: Grid) -> Index:
        return np.argsort(sum(coordinates(grid)), kind="stable")


class Antidiagonal(Diagonal):
    """The diagonals of the grid mirrored along w, its last axis (RS-Mamba)."""

    name = "antidiagonal"

    def curve(self, grid: Grid) -> Index:
        mirrored = np.flip(np.arange(math.prod(grid)).reshape(grid), -1)
        return mirrored.ravel()[super().curve(grid)]


class Jpeg(Curve):
    """By s = h + w, the way along the diagonal alternating with s (DiMSUM, MambaAD).

    The zigzag of JPEG: right first, then down to the left, then up to the right.
    """

    name = "jpeg"
    axes = (2,)

    def curve(self, grid: Grid) -> Index:
        h, w = coordinates(grid)
        s = h + w
        return sorted_by(s, np.where(s % 2, h, -h))


class Morton(Curve):
    """By the interleaved bits of the coordinates, those of the first axis more significant.

    Any grid: what lies outside of it is skipped.
    """

    name = "morton"

    def curve(self, grid: Grid) -> Index:
        code = np.zeros(math.prod(grid), dtype=np.int64)
        for bit in reversed(range((max(grid) - 1).bit_length())):
            for axis in coordinates(grid):
                code = code << 1 | axis >> bit & 1
        return np.argsort(code)


def ring_of(grid: Grid) -> Index:
    """(L,): how far each token of an image is from the border, 0 on it."""
    H, W = grid
    h, w = coordinates(grid)
    ring: Index = np.minimum.reduce([h, w, H - 1 - h, W - 1 - w])
    return ring


class Spiral(Curve):
    """Concentric loops from a corner inwards, clockwise; or from the centre outwards.

    Args:
        start: At the first ``corner`` (DiffMa), or at the ``centre`` (the same loops backwards).
        paths: 1, 2 (inwards and outwards), 4, or 8 (from every corner, both ways round).
        by_layer: One path a layer.
    """

    name = "spiral"
    axes = (2,)
    continuous = True

    def __init__(
        self,
        start: Literal["corner", "centre"] = "corner",
        paths: Paths = 1,
        by_layer: bool = False,
    ) -> None:
        super().__init__(paths, by_layer)
        self.start = start

    def curve(self, grid: Grid) -> Index:
        H, W = grid
        h, w = coordinates(grid)
        r = ring_of(grid)
        right, down = W - 1 - 2 * r, H - 1 - 2 * r  # steps along the sides of the ring
        along = np.select(
            [h == r, w == W - 1 - r, h == H - 1 - r],
            [w - r, right + h - r, right + down + (W - 1 - r - w)],
            default=right + down + right + (H - 1 - r - h),
        )
        inwards = sorted_by(r, along)
        return inwards if self.start == "corner" else inwards[::-1]


class Rings(Curve):
    """By distance to the border, and by angle inside a ring (PRISMamba).

    The angle is taken about the centre of the grid, clockwise from three o'clock; tokens on one ray
    of a ring, which only a ring one token wide has, in raster order.

    NOTE(paper): PRISMamba aggregates a ring and scans across the rings; here every token of a ring
    is visited, so that it is an order of tokens like any other.
    """

    name = "rings"
    axes = (2,)

    def curve(self, grid: Grid) -> Index:
        H, W = grid
        h, w = coordinates(grid)
        # Twice the offset from the centre, in whole numbers: rays through it meet exactly.
        angle = np.arctan2(2 * h - (H - 1), 2 * w - (W - 1)) % (2 * np.pi)
        return sorted_by(ring_of(grid), angle)
