"""One image looked at: where its values lie, the window that would be used, and a small picture."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from ssmdiff import DataError, ImageData, Reader, Source

from ssmdiff_data.value_rules import rule_for, to_unit

SIDE = 96
"""Of a small picture, in pixels."""
_SMALL = 32
_BINS = 256
_ALIKE = 0.997
"""Correlation of two small pictures above which they are taken for the same."""
MOST_PAIRS = 10_000
_BITS = 4
"""A pair of near duplicates differs in at most so many of the 64 bits of its hash, less one."""


class Look(NamedTuple):
    """What was seen of an image."""

    least: float
    most: float
    window: tuple[float, float]
    why: str
    """How the window was found."""
    counts: NDArray[np.uint32]
    """Of values in ``_BINS`` equal steps from least to most."""
    digest: bytes
    """Of the values and their shape: equal for exact duplicates, however they are packed."""
    picture: NDArray[np.uint8] | None
    """(h, w), at most ``SIDE``: the middle slice under the window."""
    small: NDArray[np.uint8]
    """(32, 32) of the same, for comparisons."""
    hash: int
    """64 bits: where the picture grows brighter from left to right."""

    @property
    def flat(self) -> bool:
        """Whether it holds one value alone."""
        return self.least == self.most


def look(reader: Reader, source: Source) -> Look:
    """Read an image and see.

    Raises:
        DataError: It cannot be read.
    """
    data = reader.read(source)
    values = data.values if data.valid is None else data.values[data.valid]
    if not values.size:
        raise DataError(f"{source.name}: nothing in it was imaged")
    least, most = float(values.min()), float(values.max())
    rule, why = rule_for(None, data.header.value_range, data.header.units)
    window = (least, most) if least == most else rule.limits(values)
    counts, _ = np.histogram(values, _BINS, (least, most) if least < most else (least, least + 1))
    made_from = f"{data.values.shape} {data.values.dtype}".encode()
    digest = hashlib.sha256(made_from + np.ascontiguousarray(data.values).tobytes()).digest()
    picture = _picture(data, window)
    small = np.asarray(Image.fromarray(picture).resize((_SMALL, _SMALL), Image.Resampling.BOX))
    return Look(
        least, most, window, why, counts.astype(np.uint32), digest, picture, small, _hash(picture)
    )


def _picture(data: ImageData, window: tuple[float, float]) -> NDArray[np.uint8]:
    """The middle slice of the first volume, grey, with square pixels."""
    plane, axes = data.values, data.header.axes
    for axis in "tz":
        if axis in axes:
            at = axes.index(axis)
            plane = np.take(plane, 0 if axis == "t" else plane.shape[at] // 2, at)
            axes = axes.replace(axis, "")
    if axes.endswith("c"):
        plane = plane.mean(-1)
    if window[0] == window[1]:
        grey = np.full(plane.shape, 127, np.uint8)
    else:
        grey = np.rint((to_unit(plane, window) + 1) * 127.5).astype(np.uint8)
    high, wide = data.header.spacing[-2:] if data.header.spacing else (1.0, 1.0)
    height, width = plane.shape[0] * high, plane.shape[1] * wide
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BOX))


def _hash(picture: NDArray[np.uint8]) -> int:
    rows = np.asarray(Image.fromarray(picture).resize((9, 8), Image.Resampling.BOX), np.int16)
    bits = np.packbits(rows[:, 1:] > rows[:, :-1])
    return int.from_bytes(bits.tobytes(), "big")


def exact_duplicates(looks: Sequence[Look]) -> list[list[int]]:
    """Groups of images whose values are the same, in their order; flat ones left out."""
    groups: dict[bytes, list[int]] = {}
    for i, seen in enumerate(looks):
        if not seen.flat:
            groups.setdefault(seen.digest, []).append(i)
    return [group for group in groups.values() if len(group) > 1]


def near_duplicates(looks: Sequence[Look]) -> list[tuple[int, int]]:
    """Pairs of images that look the same and are not: saved anew, brighter, scaled; the first
    ``MOST_PAIRS`` that are met.

    Two hashes that differ in fewer bits than they have parts share a part, so that only images
    within one part are compared.
    """
    part = 64 // _BITS
    chosen = [i for i, seen in enumerate(looks) if np.ptp(seen.small)]
    ids: dict[bytes, int] = {}
    same = np.array([ids.setdefault(looks[i].digest, len(ids)) for i in chosen], np.int64)
    hashes = np.array([looks[i].hash for i in chosen], np.uint64)
    pairs: set[tuple[int, int]] = set()
    for k in range(_BITS):
        buckets: dict[int, list[int]] = {}
        for place, value in enumerate(hashes.tolist()):
            buckets.setdefault(value >> k * part & (1 << part) - 1, []).append(place)
        for bucket in buckets.values():
            members = np.array(bucket)
            for n, i in enumerate(bucket[:-1]):
                others = members[n + 1 :]
                few = np.bitwise_count(hashes[others] ^ hashes[i]) < _BITS
                for j in others[few & (same[others] != same[i])].tolist():
                    if _correlation(looks[chosen[i]].small, looks[chosen[j]].small) > _ALIKE:
                        pairs.add((chosen[i], chosen[j]))
                        if len(pairs) >= MOST_PAIRS:
                            return sorted(pairs)
    return sorted(pairs)


def _correlation(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Of two pictures that are not of one grey."""
    x, y = (np.subtract(picture, picture.mean()).ravel() for picture in (a, b))
    return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))


def histogram(looks: Sequence[Look], bins: int) -> tuple[float, float, list[int]]:
    """Least and most value of all, and how many values lie in each of ``bins`` steps between."""
    least, most = min(seen.least for seen in looks), max(seen.most for seen in looks)
    total = np.zeros(bins, np.int64)
    span = most - least or 1.0
    for seen in looks:
        middles = seen.least + (np.arange(_BINS) + 0.5) * ((seen.most - seen.least or 1.0) / _BINS)
        places = np.clip(((middles - least) / span * bins).astype(int), 0, bins - 1)
        np.add.at(total, places, seen.counts)
    return least, most, total.tolist()


def bars(counts: Sequence[int]) -> str:
    """Counts as a line of blocks, by the square root of each, so that rare values are seen."""
    top = math.sqrt(max(counts, default=0) or 1)
    return "".join(" ▁▂▃▄▅▆▇█"[math.ceil(math.sqrt(count) / top * 8)] for count in counts)
