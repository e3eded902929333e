"""The Moore curve: four Hilbert curves in a ring. Points are (2, n) arrays of rows and columns."""

from typing import Annotated

import numpy as np
import ssmdiff
from pydantic import Field
from ssmdiff import ConfigError, size_text


class Moore(ssmdiff.Scan):
    """Along the Moore curve, K = 1: every step goes to a neighbour, the last one's is the first.

    Args:
        start: Where on the loop the scan begins, as a fraction of its length.
    """

    continuous = True

    def __init__(self, start: Annotated[float, Field(ge=0, lt=1)] = 0.0) -> None:
        self.start = start

    def directions(self, dims: int) -> int:
        return 1

    def order(
        self, grid: tuple[int, ...], generator: np.random.Generator | None = None
    ) -> ssmdiff.ScanOrder:
        side = grid[0]
        if len(grid) != 2 or grid[1] != side or side < 2 or side & (side - 1):
            raise ConfigError(
                f"scan 'moore' serves squares whose side is a power of two, 2 x 2 at least; got "
                f"{size_text(grid)}. Try scan 'hilbert', which serves any sides"
            )
        rows, columns = moore(side)
        tokens = np.roll(rows * side + columns, -round(self.start * side * side))
        return ssmdiff.ScanOrder(tokens[None])


def hilbert(side: int) -> np.ndarray:
    """(2, side^2): from the first corner to the end of the first column, side a power of two."""
    points = np.zeros((2, 1), dtype=np.int64)
    for half in 2 ** np.arange(side.bit_length() - 1):
        last = np.array([[2 * half - 1], [half - 1]])
        points = np.concatenate(
            [
                points[::-1],
                points + np.array([[0], [half]]),
                points + half,
                last - points[::-1],
            ],
            axis=1,
        )
    return points


def moore(side: int) -> np.ndarray:
    """(2, side^2): out along one half of the square and back along the other."""
    half = side // 2
    down, right = hilbert(half)
    out = np.stack([half - 1 - right, down])
    back = np.stack([right, half - 1 - down])
    corners = ((out, 0, 0), (out, 0, half), (back, half, half), (back, half, 0))
    return np.concatenate([part + np.array([[r], [c]]) for part, r, c in corners], axis=1)
