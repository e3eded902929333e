"""Another scan for every layer."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import ssmdiff
from pydantic import Field
from ssmdiff import ConfigError, Scan, ScanOrder

from ssmdiff_scans.paths import Grid

Specs = Annotated[tuple[str | dict[str, Any], ...], Field(min_length=1, max_length=64)]


class Layers(Scan):
    """A list of scans in turn: S6 call i of the network takes scan i mod n.

    A scan that varies by layer itself counts its own turns: in ``["zigzag", "raster"]`` the zigzag
    of call 2 is its second path. Equal entries are one scan and count together.

    Args:
        scans: Names, or tables with a name and options. They may differ in K, in networks that ask
            ``scan.at(slot).directions(dims)`` for each of their blocks.
    """

    def __init__(self, scans: Specs = ("raster", "column")) -> None:
        self.specs = [{"name": spec} if isinstance(spec, str) else spec for spec in scans]
        self.scans: list[Scan] = []
        for i, spec in enumerate(self.specs):
            first = self.specs.index(spec)
            self.scans.append(self.scans[first] if first < i else ssmdiff.create("scan", spec))
        self.stochastic = any(scan.stochastic for scan in self.scans)
        self.continuous = all(scan.continuous for scan in self.scans)

    def directions(self, dims: int) -> int:
        counts = [scan.directions(dims) for scan in self.scans]
        if len(set(counts)) > 1:
            each = ", ".join(
                f"{spec['name']} {count}" for spec, count in zip(self.specs, counts, strict=True)
            )
            raise ConfigError(
                f"scan 'layers' has no one number of directions: K is {each}. Give the scans equal "
                "K (paths), or use a backbone that builds every block for its own layer"
            )
        return counts[0]

    def order(self, grid: Grid, generator: np.random.Generator | None = None) -> ScanOrder:
        return self.at(0).order(grid, generator)

    def at(self, slot: int) -> Scan:
        rounds, i = divmod(slot, len(self.specs))
        equal = [j for j, spec in enumerate(self.specs) if spec == self.specs[i]]
        return self.scans[i].at(rounds * len(equal) + equal.index(i))
