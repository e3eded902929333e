"""Reads what is prepared as a whole and gives the pictures that a store keeps of it."""

from __future__ import annotations

import functools
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from ssmdiff import DataError, ImageData, Reader, Source, create

from ssmdiff_data.recipe import Recipe
from ssmdiff_data.scaling import scale, with_channels
from ssmdiff_data.slicing import (
    as_tensor,
    pictures_of,
    scaled_spacing,
    spacing_of,
    squared,
)
from ssmdiff_data.stored import levels_of
from ssmdiff_data.value_rules import ValueRule, rule_for, to_unit

IMAGE, MASK = "image", "mask"


class Found(NamedTuple):
    """A source, the reader that reads it, and the rule of its values."""

    reader: str
    options: tuple[tuple[str, Any], ...]
    source: Source
    values: ValueRule | None


@dataclass(frozen=True)
class PlannedCase:
    """A :class:`ssmdiff.Case` of which everything is known but its pixels."""

    arrays: Mapping[str, Found]
    name: str
    patient: str
    split: str
    label: int
    numbers: Mapping[str, float] = field(default_factory=dict)


class Rows(NamedTuple):
    """What a store keeps of some cases."""

    arrays: dict[str, NDArray[Any]]
    """(n, C, H, W) levels."""
    numbers: dict[str, NDArray[np.float64]]
    """(n,) each."""
    counts: list[int]
    """Pictures of each case."""
    total: int
    """Slices that were looked at."""
    units: list[str]
    """Of the images, of each case."""
    bad: list[str]
    """Cases that cannot be read: a sentence each."""

    def to_bytes(self) -> bytes:
        """As ``.npz``."""
        facts = {
            "counts": self.counts,
            "total": self.total,
            "units": self.units,
            "bad": self.bad,
            "numbers": list(self.numbers),
        }
        buffer = io.BytesIO()
        np.savez(
            buffer,
            allow_pickle=False,
            facts=np.frombuffer(json.dumps(facts).encode(), np.uint8),
            **{f"array_{name}": values for name, values in self.arrays.items()},
            **{f"number_{name}": values for name, values in self.numbers.items()},
        )
        return buffer.getvalue()

    @classmethod
    def from_file(cls, path: Path) -> Rows:
        with np.load(path, allow_pickle=False) as found:
            facts = json.loads(found["facts"].tobytes())
            arrays = {
                name.removeprefix("array_"): found[name]
                for name in found.files
                if name.startswith("array_")
            }
            numbers = {name: found[f"number_{name}"] for name in facts["numbers"]}
        return cls(arrays, numbers, facts["counts"], facts["total"], facts["units"], facts["bad"])


@functools.lru_cache(maxsize=32)
def _reader(name: str, options: tuple[tuple[str, Any], ...]) -> Reader:
    reader: Reader = create("reader", {"name": name, **dict(options)})
    return reader


def reader_of(found: Found) -> Reader:
    """The reader of a source; one for each process."""
    return _reader(found.reader, found.options)


def rows_of(cases: Sequence[PlannedCase], recipe: Recipe, dtype: str) -> Rows:
    """What a store keeps of these cases.

    Raises:
        DataError: One cannot be read, and ``recipe.on_bad`` does not leave it out.
    """
    parts: list[tuple[dict[str, NDArray[Any]], dict[str, NDArray[np.float64]]]] = []
    counts, units, bad, total = [], [], [], 0
    for case in cases:
        try:
            arrays, numbers, looked_at, unit = _pictures(case, recipe, dtype)
        except DataError as error:
            if recipe.on_bad == "error":
                raise
            bad.append(str(error))
            counts.append(0)
            units.append("")
            continue
        total += looked_at
        counts.append(len(arrays[IMAGE]))
        units.append(unit)
        parts.append((arrays, numbers))
    if not parts:
        return Rows({}, {}, counts, total, units, bad)
    arrays, numbers = (
        {name: np.concatenate([part[i][name] for part in parts]) for name in parts[0][i]}
        for i in (0, 1)
    )
    return Rows(arrays, numbers, counts, total, units, bad)


def _pictures(
    case: PlannedCase, recipe: Recipe, dtype: str
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[np.float64]], int, str]:
    """Arrays, numbers, how many slices were looked at, and the units of the image."""
    data = {name: reader_of(found).read(found.source) for name, found in case.arrays.items()}
    image = data[IMAGE]
    limits: dict[str, tuple[float, float]] = {}
    for name, one in data.items():
        if name != MASK:
            header = one.header
            rule = case.arrays[name].values or recipe.values
            chosen, _ = rule_for(rule, header.value_range, header.units)
            values = one.values if one.valid is None else one.values[one.valid]
            limits[name] = _named(case, functools.partial(chosen.limits, values))
    frames = {name: _frames(one) for name, one in data.items()}
    shapes = {name: [frame.shape[1:] for frame in found] for name, found in frames.items()}
    if any(shape != shapes[IMAGE] for shape in shapes.values()):
        raise DataError(f"{case.name}: its arrays differ in shape: {shapes}")
    row, column, between = _spacing(image, recipe)
    kept: dict[str, list[NDArray[Any]]] = {name: [] for name in data}
    places: list[NDArray[np.float64]] = []
    sides, total = (row, column), 0
    for number in range(len(frames[IMAGE])):
        pictures = {
            name: _along(found[number], recipe, is_volume="z" in image.header.axes)
            for name, found in frames.items()
        }
        count = len(pictures[IMAGE])
        total += count
        place = (np.arange(count) + 0.5) / count
        unit = to_unit(pictures[IMAGE], limits[IMAGE])
        mask = pictures[MASK][:, 0] if MASK in pictures else None
        keep = _named(case, functools.partial(recipe.slices.keeps, unit, mask, place))
        places.append(place[keep])
        for name, found in pictures.items():
            if name == MASK:
                kept[name].append(_scaled_labels(found[keep], recipe, row, column))
                continue
            values = unit[keep] if name == IMAGE else to_unit(found[keep], limits[name])
            levels, sides = _scaled(values, recipe, row, column)
            kept[name].append(levels_of(levels, dtype))
    arrays = {name: np.concatenate(found) for name, found in kept.items()}
    place = np.concatenate(places)
    numbers = {"position": place, **_constant(len(place), case, limits, sides, between)}
    return arrays, numbers, total, image.header.units


def _constant(
    count: int,
    case: PlannedCase,
    limits: Mapping[str, tuple[float, float]],
    sides: tuple[float, float],
    between: float,
) -> dict[str, NDArray[np.float64]]:
    """What is the same for all pictures of a case."""
    numbers = {"row_mm": sides[0], "column_mm": sides[1], "between_mm": between}
    for name, (low, high) in limits.items():
        suffix = "" if name == IMAGE else f"_{name}"
        numbers |= {f"low{suffix}": low, f"high{suffix}": high}
    numbers |= dict(case.numbers)
    return {name: np.full(count, value, np.float64) for name, value in numbers.items()}


def _named(case: PlannedCase, work: Any) -> Any:
    try:
        return work()
    except DataError as error:
        raise DataError(f"{case.name}: {error}") from None


def _frames(data: ImageData) -> list[NDArray[Any]]:
    """Each point of time as (C, z, y, x), z = 1 for a picture; NaN where nothing was imaged."""
    axes, values = data.header.axes, data.values
    if data.valid is not None:
        values = np.where(data.valid, values, np.nan)
    for missing in (letter for letter in "tzc" if letter not in axes):
        axes, values = missing + axes, values[None]
    ordered = np.transpose(values, [axes.index(letter) for letter in "tczyx"])
    return list(ordered)


def _along(frame: NDArray[Any], recipe: Recipe, is_volume: bool) -> NDArray[Any]:
    """(C, z, y, x) as (n, C, rows, columns)."""
    axis = recipe.axis if is_volume else "axial"
    return np.stack([pictures_of(channel, axis) for channel in frame], axis=1)


def _spacing(data: ImageData, recipe: Recipe) -> tuple[float, float, float]:
    """mm of a row, a column, and between slices; NaN where it is not known."""
    known = data.header.spacing
    if known is None:
        return math.nan, math.nan, math.nan
    if "z" not in data.header.axes:
        return known[-2], known[-1], math.nan
    between, row, column = spacing_of((known[-3], known[-2], known[-1]), recipe.axis)
    return row, column, between


def _scaled(
    pictures: NDArray[np.float32], recipe: Recipe, row: float, column: float
) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """(n, C, h, w) at the store's size, and mm of a pixel's sides there."""
    size = recipe.image_size
    tensor, row, column = squared(as_tensor(pictures), row, column)
    height, width = tensor.shape[-2:]
    images = [
        scale(with_channels(one, _channels(one, recipe)), size, recipe.resize) for one in tensor
    ]
    sides = scaled_spacing(height, width, size, recipe.resize, row, column)
    channels = _channels(tensor[0], recipe) if len(tensor) else recipe.channels or tensor.shape[1]
    shape = (len(images), channels, *size)
    found = np.stack([one.numpy() for one in images]) if images else np.empty(shape, np.float32)
    return found, sides


def _channels(picture: Any, recipe: Recipe) -> int:
    return recipe.channels or int(picture.shape[0])


def _scaled_labels(
    labels: NDArray[Any], recipe: Recipe, row: float, column: float
) -> NDArray[np.uint8]:
    """(n, 1, h, w), labels as whole numbers, at the store's size."""
    rounded = np.rint(labels)
    if rounded.size and (rounded.min() < 0 or rounded.max() > 255):
        raise DataError(f"labels from {rounded.min():g} to {rounded.max():g}; expected 0 to 255")
    tensor, _, _ = squared(as_tensor(rounded.astype(np.float32)), row, column, labels=True)
    found = [scale(one, recipe.image_size, recipe.resize, labels=True) for one in tensor]
    if not found:
        return np.empty((0, 1, *recipe.image_size), np.uint8)
    return np.stack([one.numpy() for one in found]).astype(np.uint8)
