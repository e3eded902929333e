"""The order of a scan: which token of a grid is visited when, in each direction.

A :class:`ScanOrder` is a frozen table that checks itself. Imports numpy alone.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssmdiff.errors import ContractError

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
