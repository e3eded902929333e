"""Sequence Regeneration, the contribution of VM-DDPM."""

from __future__ import annotations

import copy
import math
from typing import Annotated, Any

import numpy as np
import ssmdiff
from numpy.typing import NDArray
from pydantic import Field
from ssmdiff import Scan, ScanOrder
from ssmdiff.seeds import permutation

from ssmdiff_scans.paths import needed


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

    def order(
        self, grid: tuple[int, ...], generator: np.random.Generator | None = None
    ) -> ScanOrder:
        generator = needed("regenerate", generator)
        base = self.base.order(grid, generator)
        return ScanOrder(self.shuffle(grid, generator)[base.index], base.restart)

    def shuffle(self, grid: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.int64]:
        """(L,): the token that the shuffled grid shows at each place."""
        tokens = np.arange(math.prod(grid)).reshape(grid)
        blocks = tuple(side // self.block for side in grid)
        count = math.prod(blocks)
        if count > 1:
            inner = tuple(slice(0, n * self.block) for n in blocks)
            # (n_1, block, n_2, block, ...) -> (n_1 n_2 ..., block, block, ...)
            split = [size for n in blocks for size in (n, self.block)]
            axes = [*range(0, len(split), 2), *range(1, len(split), 2)]
            parts = tokens[inner].reshape(split).transpose(axes)
            shuffled = parts.reshape(count, -1)[permutation(generator, count)].reshape(parts.shape)
            tokens[inner] = shuffled.transpose(np.argsort(axes)).reshape(tokens[inner].shape)
        return tokens.ravel()
