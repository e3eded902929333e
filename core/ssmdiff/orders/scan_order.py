"""Scan orders: which token of a grid is visited when, in each direction. Imports numpy alone.

A :class:`ScanOrder` is a frozen table that checks itself. A :class:`Scan` makes the table of a
grid; a random one draws it from the stream it is handed, never from a global. An
:class:`OrderPlan` draws the orders of a whole network as a function of (seed, step, slot).
"""

from __future__ import annotations

import base64
import binascii
import functools
import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssmdiff.errors import ContractError
from ssmdiff.orders.seeds import permutation, stream

Grid = tuple[int, ...]

MAX_DIRECTIONS, MAX_TOKENS, MAX_ENTRIES = 64, 1 << 22, 1 << 24
"""The largest order that is read from a file: four rows of a 2048 x 2048 grid, say."""


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
        _check_permutations(index)
        object.__setattr__(self, "index", _read_only(index.astype(np.int32)))
        if self.restart is not None:
            restart = np.asarray(self.restart)
            if restart.dtype != np.bool_ or restart.shape != index.shape:
                raise ContractError(
                    f"restart is {restart.dtype} of shape {restart.shape}; "
                    f"expected bool of shape {index.shape}"
                )
            object.__setattr__(self, "restart", _read_only(restart.copy()))

    @property
    def directions(self) -> int:
        """K."""
        return int(self.index.shape[0])

    @property
    def length(self) -> int:
        """L."""
        return int(self.index.shape[1])

    @functools.cached_property
    def inverse(self) -> NDArray[np.int32]:
        """(K, L) int32: ``inverse[k, p]`` is the time at which token p is visited, the rank map."""
        inverse = np.empty_like(self.index)
        times = np.broadcast_to(np.arange(self.length, dtype=np.int32), self.index.shape)
        np.put_along_axis(inverse, self.index.astype(np.int64), times, axis=1)
        return _read_only(inverse)


def _check_permutations(index: NDArray[np.integer]) -> None:
    length = index.shape[1]
    for k, row in enumerate(index):
        outside = np.flatnonzero((row < 0) | (row >= length))
        if outside.size:
            t = int(outside[0])
            raise ContractError(
                f"direction {k} visits token {int(row[t])} at time {t}; "
                f"tokens are 0 to {length - 1}"
            )
        visits = np.bincount(row, minlength=length)
        if (visits != 1).any():
            again = np.ones(length, dtype=bool)
            again[np.unique(row, return_index=True)[1]] = False
            t = int(np.argmax(again))
            raise ContractError(
                f"direction {k} is no permutation: token {int(row[t])} is visited "
                f"{int(visits[row[t]])} times (again at time {t}), token {int(np.argmin(visits))} "
                "never"
            )


def _read_only(array: NDArray) -> NDArray:  # type: ignore[type-arg]
    array = np.ascontiguousarray(array)
    array.setflags(write=False)
    return array


@dataclass(frozen=True, eq=False)
class GroupShuffle:
    """How a random order is drawn where its scan is not installed: groups of tokens change places.

    A draw permutes the groups, each with its inner arrangement, and runs the base order over the
    shuffled tokens: ``index = shuffle[base.index]``. An exported model carries it.

    Args:
        base: The order that runs over the shuffled tokens.
        groups: (count, m) integers; row g holds the places of group g's tokens. No token is in two
            groups; tokens in none keep their place. Stored as read-only int32.

    Raises:
        ContractError: The groups are no such table.
    """

    base: ScanOrder
    groups: NDArray[np.integer]

    def __post_init__(self) -> None:
        groups = np.asarray(self.groups)
        if groups.ndim != 2 or not np.issubdtype(groups.dtype, np.integer):
            raise ContractError(
                f"groups hold integers of shape (count, m), got {groups.dtype} of {groups.shape}"
            )
        tokens = groups.ravel()
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.base.length:
            raise ContractError(
                f"groups hold tokens from {tokens.min()} to {tokens.max()}; expected 0 to "
                f"{self.base.length - 1}"
            )
        if (np.bincount(tokens, minlength=1) > 1).any():
            raise ContractError("a token is in two groups; expected one place for each")
        object.__setattr__(self, "groups", _read_only(groups.astype(np.int32)))

    def draw(self, generator: np.random.Generator) -> ScanOrder:
        """One order of the stream."""
        shuffle = np.arange(self.base.length, dtype=np.int32)
        moved = self.groups[permutation(generator, len(self.groups))]
        shuffle[self.groups.ravel()] = moved.ravel()
        return ScanOrder(shuffle[self.base.index], self.base.restart)

    def to_json(self) -> dict[str, Any]:
        """Plain values; tables are base64 of zlib of little-endian int32 (bool: of bytes)."""
        restart = self.base.restart
        return {
            "base": _packed(self.base.index.astype("<i4")),
            "directions": self.base.directions,
            "length": self.base.length,
            "restart": None if restart is None else _packed(restart.astype("u1")),
            "groups": _packed(self.groups.astype("<i4")),
            "count": len(self.groups),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> GroupShuffle:
        """What :meth:`to_json` gave; the tables are checked, and never unpacked beyond their size.

        Raises:
            ContractError: A value is missing or of another form, or a table is damaged.
        """
        K = _whole(values, "directions", 1, MAX_DIRECTIONS)
        L = _whole(values, "length", 1, MAX_TOKENS)
        if K * L > MAX_ENTRIES:
            raise ContractError(f"{K} rows of {L} tokens are more than {MAX_ENTRIES} in all")
        count = _whole(values, "count", 0, L)
        index = _unpacked(values, "base", "<i4", 4 * K * L).reshape(K, L)
        restart = None
        if values.get("restart") is not None:
            restart = _unpacked(values, "restart", "u1", K * L).reshape(K, L).astype(bool)
        groups = _unpacked(values, "groups", "<i4", 4 * L, exact=False)
        m = groups.size // max(count, 1)
        if groups.size != count * m:
            raise ContractError(
                f"'groups' holds {groups.size} tokens, which are not {count} groups of one size"
            )
        return cls(ScanOrder(index, restart), groups.reshape(count, m))


def _packed(table: NDArray[Any]) -> str:
    return base64.b64encode(zlib.compress(table.tobytes(), 9)).decode()


def _unpacked(
    values: Mapping[str, Any], key: str, dtype: str, size: int, exact: bool = True
) -> NDArray[Any]:
    """A packed table of ``size`` bytes, or of at most that many; no more is ever unpacked."""
    text = values.get(key)
    if not isinstance(text, str):
        raise ContractError(f"{key!r} is a {type(text).__name__}; expected base64 text")
    reader = zlib.decompressobj()
    try:
        data = reader.decompress(base64.b64decode(text, validate=True), size + 1)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise ContractError(f"{key!r} cannot be unpacked: {error}") from error
    whole = reader.eof and not reader.unused_data and len(data) % np.dtype(dtype).itemsize == 0
    if not whole or len(data) > size or (exact and len(data) < size):
        most = "" if exact else "at most "
        raise ContractError(f"{key!r} does not unpack to {most}{size} bytes")
    return np.frombuffer(data, dtype)


def _whole(values: Mapping[str, Any], key: str, low: int, high: int) -> int:
    number = values.get(key)
    if type(number) is not int or not low <= number <= high:
        raise ContractError(f"{key!r} is {number!r}; expected a whole number, {low} to {high}")
    return number


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

    def draw(self, step: int) -> tuple[ScanOrder, ...]:
        """The orders of one step: images seen in training, the index of the step in sampling."""
        return draw_orders(self.scan, self.slots, self.seed, step)


def draw_orders(
    scan: Scan, slots: Sequence[ScanSlot], seed: int, step: int
) -> tuple[ScanOrder, ...]:
    """One order per slot; fixed scans come from a cache, random ones from (seed, step, slot)."""
    orders = []
    for i, slot in enumerate(slots):
        of_slot = scan.at(i)
        if of_slot.stochastic:
            orders.append(checked_order(of_slot, slot.grid, stream(seed, "order", step, i)))
        else:
            orders.append(fixed_order(of_slot, slot.grid))
    return tuple(orders)


@functools.lru_cache(maxsize=256)
def fixed_order(scan: Scan, grid: Grid) -> ScanOrder:
    """The order of a fixed scan, built once per grid."""
    return checked_order(scan, grid, None)


def checked_order(scan: Scan, grid: Grid, generator: np.random.Generator | None) -> ScanOrder:
    """``scan.order`` with its result held against the grid and the promised number of directions.

    Raises:
        ContractError: Not a ScanOrder, or one of another shape; the scan and the grid are named.
    """
    where = f"scan {type(scan).__name__} on a {' x '.join(map(str, grid))} grid"
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
