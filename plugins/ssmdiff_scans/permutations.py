"""Random permutations of the tokens: one for the model's life, or a fresh one at every call."""

from __future__ import annotations

import copy
import math
from typing import Annotated

import numpy as np
from pydantic import Field
from ssmdiff import Scan, ScanOrder, Seed, permutation, stream

from ssmdiff_scans.paths import Grid, needed

Count = Annotated[int, Field(ge=1, le=64)]


def permutations(count: int, grid: Grid, rng: np.random.Generator) -> ScanOrder:
    """Independent permutations of the tokens, K = count."""
    return ScanOrder(np.stack([permutation(rng, math.prod(grid)) for _ in range(count)]))


class Random(Scan):
    """A random permutation for each S6 call of the network, the same at every step (ZigMa).

    A function of (seed, slot, grid) alone, where the seed is this scan's own option: the
    configuration brings the permutations back, and nothing has to be saved with the model. The
    seed of the run has no part in it.

    Args:
        paths: Permutations side by side, each drawn by itself; K.
        seed: Of the permutations.
    """

    def __init__(self, paths: Count = 1, seed: Seed = 0) -> None:
        self.paths, self.seed = paths, seed
        self.slot = 0
        self._slots: dict[int, Scan] = {0: self}

    def directions(self, dims: int) -> int:
        return self.paths

    def order(self, grid: Grid, generator: np.random.Generator | None = None) -> ScanOrder:
        return permutations(self.paths, grid, stream(self.seed, "random scan", self.slot, *grid))

    def at(self, slot: int) -> Scan:
        if slot not in self._slots:
            of_slot = copy.copy(self)
            of_slot.slot, of_slot._slots = slot, {}
            self._slots[slot] = of_slot
        return self._slots[slot]


class Shuffle(Scan):
    """A fresh random permutation at every call, with no order beneath (RSMamba, fla-zoo).

    All images of a batch share it: an order is a property of the S6 call and not of the sample,
    which is what lets a kernel walk it in place.

    Args:
        paths: Permutations side by side, each drawn by itself; K.
    """

    stochastic = True

    def __init__(self, paths: Count = 1) -> None:
        self.paths = paths

    def directions(self, dims: int) -> int:
        return self.paths

    def order(self, grid: Grid, generator: np.random.Generator | None = None) -> ScanOrder:
        return permutations(self.paths, grid, needed("shuffle", generator))
