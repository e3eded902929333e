"""Sequence Regeneration, the contribution of VM-DDPM."""

from __future__ import annotations

import copy
import functools
import math
from typing import Annotated, Any

import numpy as np
import ssmdiff
from numpy.typing import NDArray
from pydantic import Field
from ssmdiff import GroupShuffle, Scan, ScanOrder, fixed_order

from ssmdiff_scans.paths import Grid, needed


class Regenerate(Scan):
    """A fresh shuffle of the grid's patches before each S6 call, then any base order over it.

    VM-DDPM, section III-D: no parameters, linear cost, and a bijection, so that the merge puts
    every token back: ``index = shuffle[base.index]``. The shuffle moves blocks of tokens; a
    block keeps its inner arrangement and stays upright.

    Args:
        base: The scan that runs over the shuffled grid, by name or as a table with its options.
        block: Tokens along each axis of the blocks that are shuffled; 1 shuffles single tokens.
            A grid whose sides it does not divide keeps its border: the blocks that fit are
            shuffled among each other and the remainder stays in place.
    """

    stochastic = True

    def __init__(
        self,
        base: str | dict[str, Any] = "cross",
        block: Annotated[int, Field(ge=1, le=64)] = 1,
    ) -> None:
        self.base: Scan = ssmdiff.create("scan", base)
        self.block = block

    def directions(self, dims: int) -> int:
        return self.base.directions(dims)

    def at(self, slot: int) -> Scan:
        base = self.base.at(slot)
        if base is self.base:
            return self
        varied = copy.copy(self)
        varied.base = base
        return varied

    def order(self, grid: Grid, generator: np.random.Generator | None = None) -> ScanOrder:
        generator = needed("regenerate", generator)
        recipe = self.recipe(grid)
        if recipe is None:  # a random base draws first, from the same stream
            recipe = GroupShuffle(self.base.order(grid, generator), blocks_of(grid, self.block))
        return recipe.draw(generator)

    def recipe(self, grid: Grid) -> GroupShuffle | None:
        """The shuffle of this grid's blocks; None where the base is itself random."""
        return None if self.base.stochastic else _recipe(self.base, grid, self.block)


@functools.lru_cache(maxsize=256)
def _recipe(base: Scan, grid: Grid, block: int) -> GroupShuffle:
    return GroupShuffle(fixed_order(base, grid), blocks_of(grid, block))


def blocks_of(grid: Grid, block: int) -> NDArray[np.int64]:
    """(count, block ** dims): the tokens of each block that fits, blocks and tokens row by row."""
    tokens = np.arange(math.prod(grid)).reshape(grid)
    counts = tuple(side // block for side in grid)
    inner = tokens[tuple(slice(0, n * block) for n in counts)]
    # (n_1, block, n_2, block, ...) -> (n_1 n_2 ..., block, block, ...)
    split = inner.reshape([size for n in counts for size in (n, block)])
    axes = [*range(0, split.ndim, 2), *range(1, split.ndim, 2)]
    return split.transpose(axes).reshape(math.prod(counts), -1 if inner.size else 0)
