"""What a store tells of its images: masks, further arrays, and columns of its table."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from ssmdiff import Condition, Conditions, ConfigError, DataError
from torch import Tensor

from ssmdiff_data.describing import condition_in_words
from ssmdiff_data.scaling import Resize, lowered, scale
from ssmdiff_data.slicing import scaled_spacing
from ssmdiff_data.store import Store
from ssmdiff_data.told import Told

LABEL, LOW, COLUMNS = "label", "low", "columns"
_WINDOW = re.compile(r"(low|high)(_\w+)?")
"""Columns that say which values are black and white, and nothing of what an image shows."""
COLUMNS_OF_ALL = re.compile(rf"{_WINDOW.pattern}|position|(row|column|between)_mm|image|mask")
"""Names that a store has already, whatever it is made of."""
_SIDES = ("row_mm", "column_mm")
_UNITS = ("mm", "years", "days", "kg", "cm")
"""What the last word of a column's name may say."""
_NAME = re.compile(r"[A-Za-z][\w-]*")


class _Column(NamedTuple):
    condition: Condition
    of: Callable[[int], Any]
    """Its value of item i, None where it is not known."""


class StoreTells:
    """What is told of the items of a store.

    Args:
        store: The store.
        own: Items that are trained on: numbers have the range that they have there.
        array: Which array is the image.
        image_size: Of the images that come out.
        resize: How they are scaled.

    Raises:
        DataError: The store says of its columns what cannot be.
    """

    def __init__(
        self,
        store: Store,
        own: Sequence[int],
        array: str,
        image_size: tuple[int, ...],
        resize: Resize,
    ) -> None:
        self.store, self._own = store, own
        self._image_size, self._resize = image_size, resize
        stored = store.arrays[array].shape[1:]
        others = {
            name: spec
            for name, spec in store.arrays.items()
            if name != array and spec.shape[1:] == stored
        }
        self._masks = [
            name for name, spec in others.items() if spec.kind == "labels" and spec.shape[0] == 1
        ]
        self._images = [name for name, spec in others.items() if spec.kind == "image"]
        self._channels = store.arrays[array].shape[0]
        self._sides = {name: self._side_factor(name, stored) for name in _SIDES}

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_columns"}

    @functools.cached_property
    def conditions(self) -> tuple[Condition, ...]:
        """All of them. Where a store does not name the labels of its masks, these are read."""
        found = [column.condition for column in self._columns.values()]
        found += [Condition(name, "mask", self._label_names(name)) for name in self._masks]
        found += [
            Condition(name, "image", channels=self.store.arrays[name].shape[0])
            for name in self._images
        ]
        if self._has_low:
            found.append(Condition(LOW, "image", channels=self._channels))
        return Conditions(found)

    def of(self, i: int, image: Tensor) -> Told:
        """Of item ``i`` of the store, which comes out as ``image``."""
        known: dict[str, Callable[[], Any]] = {}
        for name, column in self._columns.items():
            if (value := column.of(i)) is not None:
                known[name] = functools.partial(_same, value)
        for name in self._masks:
            known[name] = functools.partial(self._mask, name, i)
        for name in self._images:
            known[name] = functools.partial(self._picture, name, i)
        if self._has_low:
            known[LOW] = functools.partial(lowered, image)
        return Told(**known)

    def in_words(self) -> list[str]:
        """Lines for people: what can be told of the images that are trained on."""
        values = {name: [c.of(i) for i in self._own] for name, c in self._columns.items()}
        return [
            condition_in_words(one, values.get(one.name))
            for one in self.conditions
            if one.name != LOW
        ]

    @property
    def _has_low(self) -> bool:
        return len(self._image_size) == 2 and LOW not in (*self._masks, *self._images)

    @functools.cached_property
    def _columns(self) -> dict[str, _Column]:
        """Columns of the table that tell something, by name."""
        numbers = self.store.table.numbers
        found: dict[str, _Column] = {}
        explained: set[str] = set()
        for name, meant in self.store.fact(COLUMNS).items():
            try:
                columns = list(meant["columns"])
                condition = Condition(name, meant["kind"], tuple(meant["names"]))
                rows = [numbers[column] for column in columns]
                if len(rows) != {"label": 1, "labels": len(condition.names)}[condition.kind]:
                    raise ConfigError(f"{len(rows)} columns of kind {condition.kind}")
            except (KeyError, TypeError, ConfigError) as error:
                raise DataError(
                    f"the store says of its columns {name!r:.40} what cannot be ({error}); make it "
                    "anew: ssmdiff data prepare"
                ) from None
            explained |= set(columns)
            is_set = condition.kind == "labels"
            of: Callable[[int], Any] = _members_of(rows) if is_set else _class_of(rows[0])
            gaps = any(of(i) is None for i in self._own)
            meaning = Condition(name, condition.kind, condition.names, optional=gaps)
            found[name] = _Column(meaning, of)
        taken = {LABEL, LOW, *self._masks, *self._images, *found}
        for name, values in numbers.items():
            if name in explained | taken or _WINDOW.fullmatch(name) or not _NAME.fullmatch(name):
                continue
            factor = self._sides.get(name, 1.0)
            number = _number_of(values, factor)
            known = [value for i in self._own if (value := number(i)) is not None]
            if len(set(known)) > 1:
                unit = name.rpartition("_")[2]
                found[name] = _Column(
                    Condition(
                        name,
                        "number",
                        low=min(known),
                        high=max(known),
                        unit=unit if unit in _UNITS else "",
                        optional=len(known) < len(self._own),
                        moved_by=("zoom",) if name in _SIDES else (),
                    ),
                    number,
                )
        return found

    def _side_factor(self, name: str, stored: tuple[int, ...]) -> float:
        """How much longer the side of a pixel is where images are scaled when they are read."""
        if len(stored) != 2 or stored == self._image_size:
            return 1.0
        height, width = self._image_size
        sides = scaled_spacing(stored[0], stored[1], (height, width), self._resize, 1.0, 1.0)
        return sides[_SIDES.index(name)]

    def _label_names(self, name: str) -> tuple[str, ...]:
        known = self.store.arrays[name].names
        return known or tuple(map(str, range(int(self.store.array(name).max()) + 1)))

    def _mask(self, name: str, i: int) -> Tensor:
        values = torch.from_numpy(self.store.array(name)[i].astype(np.float32))
        return self._sized(values, labels=True)[0].to(torch.uint8)

    def _picture(self, name: str, i: int) -> Tensor:
        return self._sized(self.store.image(name, i))

    def _sized(self, values: Tensor, labels: bool = False) -> Tensor:
        if tuple(values.shape[1:]) == self._image_size:
            return values
        height, width = self._image_size
        return scale(values, (height, width), self._resize, labels)


def _same(value: Any) -> Any:
    return value


def _number_of(values: Sequence[float], factor: float) -> Callable[[int], float | None]:
    return lambda i: None if math.isnan(values[i]) else values[i] * factor


def _class_of(values: Sequence[float]) -> Callable[[int], int | None]:
    return lambda i: None if math.isnan(values[i]) else int(values[i])


def _members_of(rows: Sequence[Sequence[float]]) -> Callable[[int], tuple[int, ...] | None]:
    def of(i: int) -> tuple[int, ...] | None:
        if any(math.isnan(row[i]) for row in rows):
            return None
        return tuple(k for k, row in enumerate(rows) if row[i])

    return of


def columns_fact(columns: Mapping[str, Condition]) -> dict[str, Any]:
    """What a store keeps of columns that are no plain numbers, for the fact ``COLUMNS``.

    A class is one column of its number, findings are a column each, ``NAME.0``, ``NAME.1``, ...
    """
    return {
        name: {"kind": one.kind, "names": list(one.names), "columns": names_of(one)}
        for name, one in columns.items()
        if one.kind in ("label", "labels")
    }


def names_of(condition: Condition) -> list[str]:
    """Names of the columns of a condition in the table of a store."""
    if condition.kind == "labels":
        return [f"{condition.name}.{i}" for i in range(len(condition.names))]
    return [condition.name]
