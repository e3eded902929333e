"""Orders, and the scans that make them.

A :class:`ScanOrder` is a frozen table that checks itself: which token of a grid is visited when, in
each direction. A :class:`Scan` makes the order of a grid; a random one draws it from the stream it
is handed, never from a global. An :class:`OrderPlan` draws the orders of a network as a function of
(seed, step, slot). Imports numpy alone.
"""

from __future__ import annotations

import functools
import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssmdiff.errors import ContractError
from ssmdiff.orders.seeds import stream

if TYPE_CHECKING:
    from ssmdiff.orders.group_shuffle import GroupShuffle

Grid = tuple[int, ...]


def size_text(sides: Sequence[int]) -> str:
    """A grid or an image size in words: ``4 x 5``."""
    return " x ".join(map(str, sides))


@dataclass(frozen=True, eq=False)
class ScanOrder:
    """The visiting order of the L tokens of a grid in K directions.

    Args:
        index: (K, L) integers; ``index[k, t]`` is the token visited at time t in direction k.
            A token of an H x W grid is numbered ``h * W + w``. Stored as read-only int32.
        restart: Optional (K, L) bool; True where the state starts anew before time t, so that one
            row holds several sequences (atrous scans).

    Raises:
        ContractError: A row is no permutation of 0 .. L - 1; the first bad index is named.
    """

    index: NDArray[np.integer]
    restart: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        try:
            index = np.asarray(self.index)
        except ValueError as error:
            raise ContractError(f"a scan order has shape (K, L): {error}") from error
        if not np.issubdtype(index.dtype, np.integer):
            raise ContractError(f"a scan order holds integers, got {index.dtype}")
        if index.ndim != 2 or 0 in index.shape:
            raise ContractError(f"a scan order has shape (K, L), got {index.shape}")
        check_permutations(index)
        object.__setattr__(self, "index", read_only(index.astype(np.int32)))
        if self.restart is not None:
            restart = np.asarray(self.restart)
            if restart.dtype != np.bool_ or restart.shape != index.shape:
                raise ContractError(
                    f"restart is {restart.dtype} of shape {restart.shape}; "
                    f"expected bool of shape {index.shape}"
                )
            object.__setattr__(self, "restart", read_only(restart.copy()))

    @property
    def directions(self) -> int:
        """K."""
        return int(self.index.shape[0])

    @property
    def length(self) -> int:
        """L."""
        return int(self.index.shape[1])

    @functools.cached_property
    def coded(self) -> NDArray[np.integer]:
        """(K, L) int32, the form of an order everywhere else: on a device, in the op, in files.

        ``coded[k, t]`` is the token visited at time t, or ``-1 - token`` where the state starts
        anew. Read-only.
        """
        if self.restart is None:
            return self.index
        return read_only(np.where(self.restart, -1 - self.index, self.index))

    @classmethod
    def from_coded(cls, coded: NDArray[np.integer]) -> ScanOrder:
        """The order of a table as :attr:`coded` gives it; what goes in comes out to the bit.

        Raises:
            ContractError: A row is no permutation of 0 .. L - 1.
        """
        coded = np.asarray(coded)
        anew = coded < 0
        if not anew.any():
            return cls(coded)
        return cls(np.where(anew, -1 - coded, coded), anew)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that tell this order from any other."""
        table = np.ascontiguousarray(self.coded, dtype="<i4")
        return hashlib.sha256(table.tobytes()).hexdigest()[:16]

    @functools.cached_property
    def inverse(self) -> NDArray[np.int32]:
        """(K, L) int32: ``inverse[k, p]`` is the time at which token p is visited, the rank map."""
        inverse = np.empty_like(self.index)
        times = np.broadcast_to(np.arange(self.length, dtype=np.int32), self.index.shape)
        np.put_along_axis(inverse, self.index.astype(np.int64), times, axis=1)
        return read_only(inverse)


def check_permutations(index: NDArray[np.integer]) -> None:
    """That each row visits each token once.

    Raises:
        ContractError: One does not; the direction, the first bad time and the token are named.
    """
    directions, length = index.shape
    if index.min() >= 0 and index.max() < length:
        places = index.astype(np.int64) + length * np.arange(directions)[:, None]
        if (np.bincount(places.ravel(), minlength=index.size) == 1).all():
            return
    for k, row in enumerate(index):
        _check_permutation(k, row)


def _check_permutation(k: int, row: NDArray[np.integer]) -> None:
    length = len(row)
    outside = np.flatnonzero((row < 0) | (row >= length))
    if outside.size:
        t = int(outside[0])
        raise ContractError(
            f"direction {k} visits token {int(row[t])} at time {t}; tokens are 0 to {length - 1}"
        )
    visits = np.bincount(row, minlength=length)
    if (visits != 1).any():
        again = np.ones(length, dtype=bool)
        again[np.unique(row, return_index=True)[1]] = False
        t = int(np.argmax(again))
        raise ContractError(
            f"direction {k} is no permutation: token {int(row[t])} is visited "
            f"{int(visits[row[t]])} times (again at time {t}), token {int(np.argmin(visits))} never"
        )


def read_only(array: NDArray) -> NDArray:  # type: ignore[type-arg]
    """The array, contiguous and not to be written to."""
    array = np.ascontiguousarray(array)
    array.setflags(write=False)
    return array


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
