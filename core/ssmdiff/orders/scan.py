"""Scans: strategies that order the tokens of a grid, and the orders of a whole network.

A :class:`Scan` makes the order of a grid; a random one draws it from the stream it is handed, never
from a global. An :class:`OrderPlan` draws the orders of a network as a function of
(seed, step, slot). Imports numpy alone.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ssmdiff.errors import ContractError
from ssmdiff.orders.group_shuffle import GroupShuffle
from ssmdiff.orders.scan_order import Grid, ScanOrder, size_text
from ssmdiff.orders.seeds import stream


class Scan(ABC):
    """A strategy that orders the tokens of any grid it can serve.

    Subclass it, implement :meth:`directions` and :meth:`order`, and yield a Component from the hook
    ``ssmdiff_scans``. The typed parameters of ``__init__`` are the scan's options.
    """

    stochastic: bool = False
    """Whether :meth:`order` draws from the generator. A fixed scan ignores it."""

    continuous: bool = False
    """Whether each step goes to a neighbour, on the grids where the curve allows it."""

    @abstractmethod
    def directions(self, dims: int) -> int:
        """K on a grid of ``dims`` axes; known before the grid is, as blocks are built first."""

    @abstractmethod
    def order(self, grid: Grid, generator: np.random.Generator | None = None) -> ScanOrder:
        """The order of a grid, (H, W) or of any other length.

        Args:
            grid: Tokens along each axis, all positive.
            generator: Where a stochastic scan draws from; required by it, ignored by a fixed one.

        Raises:
            ConfigError: The scan cannot serve this grid.
        """

    def recipe(self, grid: Grid) -> GroupShuffle | None:
        """How a random order of this grid is drawn where the scan is not installed.

        For a stochastic scan whose ``order(grid, generator)`` equals ``recipe(grid).draw(
        generator)``; an exported model then needs nothing else to draw it. None: it has no such
        form, and whoever samples the exported model needs the scan's package.
        """
        return None

    def at(self, slot: int) -> Scan:
        """The scan of the slot-th S6 call of a network; itself, unless it varies by layer."""
        return self


class ScanSlot(NamedTuple):
    """One S6 call of a backbone: the grid of tokens that it scans."""

    grid: Grid


@dataclass(frozen=True)
class OrderPlan:
    """The orders of every S6 call of a network, at every step.

    The draw is a pure function of (seed, step, slot): equal on all processes, exact after a
    resume, and the same in PyTorch and in an exported graph.

    Args:
        scan: The scan of the network.
        slots: The S6 calls, from ``backbone.scan_slots(image_size)``.
        seed: The run's seed.
    """

    scan: Scan
    slots: tuple[ScanSlot, ...]
    seed: int

    def draw(self, step: int, seed: int | None = None) -> tuple[ScanOrder, ...]:
        """The orders of one step: images seen in training, the index of the step in sampling.

        Sampling brings the seed of its images, which then stands for that of the plan.
        """
        seed = self.seed if seed is None else seed
        return tuple(self._order(i, slot.grid, seed, step) for i, slot in enumerate(self.slots))

    def _order(self, i: int, grid: Grid, seed: int, step: int) -> ScanOrder:
        """Of a fixed scan from a cache, of a random one from the stream of (seed, step, slot)."""
        scan = self.scan.at(i)
        if not scan.stochastic:
            return fixed_order(scan, grid)
        return checked_order(scan, grid, stream(seed, "order", step, i))


@functools.lru_cache(maxsize=256)
def fixed_order(scan: Scan, grid: Grid) -> ScanOrder:
    """The order of a fixed scan, built once per grid."""
    return checked_order(scan, grid, None)


def checked_order(scan: Scan, grid: Grid, generator: np.random.Generator | None) -> ScanOrder:
    """``scan.order`` with its result held against the grid and the promised number of directions.

    Raises:
        ContractError: Not a ScanOrder, or one of another shape; the scan and the grid are named.
    """
    where = f"scan {type(scan).__name__} on a {size_text(grid)} grid"
    try:
        order = scan.order(grid, generator)
    except ContractError as error:
        raise ContractError(f"{where}: {error}") from error
    if not isinstance(order, ScanOrder):
        raise ContractError(f"{where} gave a {type(order).__name__}; expected a ScanOrder")
    expected = (scan.directions(len(grid)), math.prod(grid))
    if order.index.shape != expected:
        raise ContractError(
            f"{where} gave a table of shape {order.index.shape}; expected (K, L) = {expected}"
        )
    return order
