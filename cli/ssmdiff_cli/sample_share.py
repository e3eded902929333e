"""Which images of a set one process draws, and in which batches."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from dataclasses import dataclass

ROWS = 4
"""The rows that matrix products of the CPU compute at once. A row that is left over is computed
otherwise, and rounded otherwise, so the last batch of a set is a multiple of it."""


@dataclass(frozen=True)
class Share:
    """The images of a set that one process draws, and in which batches.

    A batch is made of the images from k ``batch_size`` on, wherever the share begins and ends: an
    image has the same neighbours in every process, so the same bits. What others asked for is
    drawn along and thrown away.

    Args:
        indices: What was asked for.
        size: Of the whole set, 0 to size - 1; None if it is not known.
        batch_size: Images drawn at once.
        rank: Which of ``processes`` this is; they take the batches in turn.
    """

    indices: range
    size: int | None = None
    batch_size: int = 16
    rank: int = 0
    processes: int = 1

    def batches(self) -> Iterator[tuple[range, range]]:
        """Each batch, and those of its images that are wanted."""
        first, last = self.indices[0] // self._at_once, self.indices[-1] // self._at_once
        for k in range(first + self.rank, last + 1, self.processes):
            start, stop = k * self._at_once, (k + 1) * self._at_once
            wanted = range(max(start, self.indices.start), min(stop, self.indices.stop))
            yield range(start, min(stop, self._end)), wanted

    @functools.cached_property
    def _at_once(self) -> int:
        """The batch size; less, where a process would go without."""
        if self.processes == 1:
            return self.batch_size
        return min(self.batch_size, _rounded_up(-(-len(self.indices) // self.processes)))

    @property
    def _end(self) -> int:
        """Where the last batch may end."""
        if self.size is None:
            return sys.maxsize
        return self.size if self.size <= ROWS else _rounded_up(self.size)


def _rounded_up(count: int) -> int:
    return -(-count // ROWS) * ROWS
