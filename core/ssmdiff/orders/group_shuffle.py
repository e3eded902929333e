"""Random orders by recipe: groups of tokens change places, and a file can say which.

A model exported to a file draws its orders so where the scan is not installed. Imports numpy alone.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssmdiff.errors import ContractError
from ssmdiff.orders.scan import ScanOrder, read_only
from ssmdiff.orders.seeds import permutation

MAX_DIRECTIONS, MAX_TOKENS, MAX_ENTRIES = 64, 1 << 22, 1 << 24
"""The largest order that is read from a file: four rows of a 2048 x 2048 grid, say."""


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
        object.__setattr__(self, "groups", read_only(groups.astype(np.int32)))

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
