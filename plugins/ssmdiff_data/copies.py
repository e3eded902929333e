"""Pictures of a store that stand in two splits: the same pixels under two patients' names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ssmdiff import printable

from ssmdiff_data.units import PlannedCase

_LISTED = 3


class Copies:
    """Compares what a store holds by a hash of the pixels of each picture; flat ones are left out.

    A patient is in one split alone, so a picture that is there again in another split came under
    another patient's name, or under a file's, where nobody said whose it is.
    """

    def __init__(self) -> None:
        self._first: dict[bytes, PlannedCase] = {}
        self._pairs: dict[tuple[str, str], tuple[PlannedCase, PlannedCase]] = {}
        self.count = 0
        """Pictures whose pixels are in another split too."""

    def look(
        self, levels: NDArray[Any], cases: Sequence[PlannedCase], counts: Sequence[int]
    ) -> None:
        """The next pictures (n, C, H, W), ``counts`` of each case."""
        owners = [case for case, n in zip(cases, counts, strict=True) for _ in range(n)]
        for picture, case in zip(levels, owners, strict=True):
            if picture.min() == picture.max():
                continue
            content = np.ascontiguousarray(picture).tobytes()
            digest = hashlib.blake2b(content, digest_size=16).digest()
            first = self._first.setdefault(digest, case)
            if first.split != case.split:
                self.count += 1
                self._pairs.setdefault((first.name, case.name), (first, case))

    def sentence(self) -> str:
        """What a person is told, with names; empty where there are none."""
        if not self._pairs:
            return ""
        shown = "; ".join(
            f"{printable(a.name)} in {a.split or 'none'} and {printable(b.name)} in "
            f"{b.split or 'none'}"
            for a, b in list(self._pairs.values())[:_LISTED]
        )
        more = len(self._pairs) - _LISTED
        return (
            f"{self.told()}: {shown}"
            + (f", and {more} more pairs" if more > 0 else "")
            + ". What is trained on is then held against itself. Say whose they are by --group, "
            "put them into one --split-list, or take one away"
        )

    def told(self) -> str:
        """The same for the store, which names nobody and no file."""
        what = "picture is" if self.count == 1 else "pictures are"
        return f"{self.count} {what} in two splits, pixel for pixel"
