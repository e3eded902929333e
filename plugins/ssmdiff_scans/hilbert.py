"""The Hilbert curve, generalised to any rectangle and to any box (Červený's gilbert)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ssmdiff_scans.paths import Curve, Grid, Index

Boxes = NDArray[np.int64]
"""(M, 1 + n, n): the corner where the curve enters each box, then its n edges as vectors."""


class Hilbert(Curve):
    """The Hilbert curve on any image or volume, from the first corner along the longest side.

    On a square whose side is a power of two, Hilbert's own. Every step goes to a neighbour, except
    one to a diagonal neighbour on an image whose longer side is odd and whose shorter side is even:
    no path from corner to corner along the longer side does without. On volumes with odd sides a
    few steps may be longer; even sides have none.
    """

    name = "hilbert"
    axes = (2, 3)
    continuous = True

    def curve(self, grid: Grid) -> Index:
        places = gilbert(grid)
        index: Index = np.ravel_multi_index(tuple(places.T), grid)
        return index


def gilbert(grid: Grid) -> NDArray[np.int64]:
    """(L, n): the coordinates that the curve visits, n = 2 or 3.

    All boxes of one depth of the recursion are divided at once, in the order of their visits, until
    each is a line of tokens.
    """
    n = len(grid)
    # The longest side leads. Axes count as x, y, z of the original: the last axis is x.
    edges = np.diag(grid)[::-1]
    longest = int(np.argmax(edges.sum(axis=1)))
    order = [longest, *(i for i in range(n) if i != longest)]
    boxes = np.concatenate([np.zeros((1, n), dtype=np.int64), edges[order]])[None]
    divide = _divide_rectangles if n == 2 else _divide_cuboids
    while (open_ := (lengths(boxes) > 1).sum(axis=1) > 1).any():
        counts = np.ones(len(boxes), dtype=np.int64)
        children, counts[open_] = divide(boxes[open_])
        parts = np.repeat(boxes, counts, axis=0)
        parts[np.repeat(open_, counts)] = children
        boxes = parts[(lengths(parts) > 0).all(axis=1)]
    return _lines(boxes)


def lengths(boxes: Boxes) -> NDArray[np.int64]:
    """(M, n): tokens along each edge."""
    along: NDArray[np.int64] = np.abs(boxes[:, 1:].sum(axis=2))
    return along


def _lines(boxes: Boxes) -> NDArray[np.int64]:
    """The tokens of boxes that are one token wide in all directions but one."""
    counts = lengths(boxes).max(axis=1)
    rows = np.arange(len(boxes))
    step = np.sign(boxes[rows, 1 + lengths(boxes).argmax(axis=1)])
    first = np.cumsum(counts) - counts
    along = np.arange(counts.sum()) - np.repeat(first, counts)
    tokens: NDArray[np.int64] = np.repeat(boxes[:, 0], counts, axis=0)
    tokens += along[:, None] * np.repeat(step, counts, axis=0)
    return tokens


def _half(edge: NDArray[np.int64]) -> NDArray[np.int64]:
    """(M, n): half of each edge, of an even number of tokens where the edge is longer than two."""
    half = edge // 2
    odd = (np.abs(half.sum(axis=1)) % 2 == 1) & (np.abs(edge.sum(axis=1)) > 2)
    half[odd] += np.sign(edge[odd])
    return half


Division = list[tuple[NDArray[np.int64], ...]]
"""The parts of each box in the order of their visits: (corner, edges)."""


def _divide_rectangles(boxes: Boxes) -> tuple[Boxes, NDArray[np.int64]]:
    p, a, b = boxes.swapaxes(0, 1)
    w, h = lengths(boxes).T
    da, db, a2, b2 = np.sign(a), np.sign(b), a // 2, _half(b)
    long: Division = [(p, _half(a), b), (p + _half(a), a - _half(a), b)]
    up_along_down: Division = [
        (p, b2, a2),
        (p + b2, a, b - b2),
        (p + (a - da) + (b2 - db), -b2, a2 - a),
    ]
    return _parts([(2 * w > 3 * h, long), (np.ones_like(w, dtype=bool), up_along_down)])


def _divide_cuboids(boxes: Boxes) -> tuple[Boxes, NDArray[np.int64]]:
    p, a, b, c = boxes.swapaxes(0, 1)
    w, h, d = lengths(boxes).T
    da, db, dc = np.sign(a), np.sign(b), np.sign(c)
    a2, b2, c2 = _half(a), _half(b), _half(c)
    wide: Division = [(p, a2, b, c), (p + a2, a - a2, b, c)]
    flat: Division = [
        (p, b2, c, a2),
        (p + b2, a, b - b2, c),
        (p + (a - da) + (b2 - db), -b2, c, a2 - a),
    ]
    tall: Division = [
        (p, c2, a2, b),
        (p + c2, a, b, c - c2),
        (p + (a - da) + (c2 - dc), -c2, a2 - a, b),
    ]
    regular: Division = [
        (p, b2, c2, a2),
        (p + b2, c, a2, b - b2),
        (p + (b2 - db) + (c - dc), a, -b2, c2 - c),
        (p + (a - da) + b2 + (c - dc), -c, a2 - a, b - b2),
        (p + (a - da) + (b2 - db), -b2, c2, a2 - a),
    ]
    return _parts(
        [
            ((2 * w > 3 * h) & (2 * w > 3 * d), wide),
            (3 * h > 4 * d, flat),
            (3 * d > 4 * h, tall),
            (np.ones_like(w, dtype=bool), regular),
        ]
    )


def _parts(cases: list[tuple[NDArray[np.bool_], Division]]) -> tuple[Boxes, NDArray[np.int64]]:
    """The parts of every box by the first case that holds for it, and how many each has."""
    case = np.argmax([holds for holds, _ in cases], axis=0)
    counts = np.array([len(parts) for _, parts in cases])[case]
    first = np.cumsum(counts) - counts
    n = cases[0][1][0][0].shape[1]
    boxes = np.empty((counts.sum(), 1 + n, n), dtype=np.int64)
    for i, (_, parts) in enumerate(cases):
        chosen = case == i
        for j, part in enumerate(parts):
            boxes[first[chosen] + j] = np.stack(part, axis=1)[chosen]
    return boxes, counts
