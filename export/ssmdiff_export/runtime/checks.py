"""Reads what is not trusted: the values of a JSON document, and protobuf's wire format.

A check of a value says what it expected. Of protobuf as much is read as ONNX needs: numbers, bytes,
messages within. A message is a row of fields; each begins with a varint ``number << 3 | kind``:

    kind 0   a varint: 7 bits a byte, the lowest first, the top bit says that more follow
    kind 1   8 bytes      kind 5   4 bytes
    kind 2   a varint length and that many bytes: text, a packed array, a message

The reader hands out views of the bytes, never copies, and calls itself nowhere.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ssmdiff import MAX_ENTRIES, ExportError, did_you_mean

MAX_ROWS = 4096
_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Kinds of a protobuf field."""
_SIZES = {FIXED64: 8, FIXED32: 4}


def strict_json(text: str | bytes) -> dict[str, Any]:
    """A JSON object; keys that stand twice, NaN and infinity are refused."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            raise ValueError("a key stands twice")
        return table

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON number")

    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ExportError(f"the model card is no valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ExportError(f"the model card is a JSON {type(value).__name__}; expected an object")
    return value


Check = Callable[[Any], Any]
"""Gives the value to keep, or raises ValueError with what was expected."""


class Table:
    """A JSON object whose keys are taken one by one; what is left over is an error."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values, self.where = values, where
        self.known: set[str] = set()

    def has(self, key: str) -> bool:
        self.known.add(key)
        return self.values.get(key) is not None

    def take(self, key: str, check: Check) -> Any:
        self.known.add(key)
        if key not in self.values:
            raise ExportError(f"{self.where}: {key!r} is missing")
        value = self.values[key]
        try:
            return check(value)
        except (ValueError, OverflowError) as error:
            raise ExportError(
                f"{self.where}: {key!r} is {shown(value)}; expected {error}"
            ) from None

    def table(self, key: str) -> Table:
        return self.inner(self.take(key, json_object), key)

    def rows(self, key: str) -> list[Any]:
        rows: list[Any] = self.take(key, json_list)
        return rows

    def inner(self, value: Any, name: str) -> Table:
        if not isinstance(value, dict):
            raise ExportError(f"{self.where}: {name!r} is no object")
        return Table(value, f"{self.where}, {name}")

    def finish(self) -> None:
        for key in self.values:
            if key not in self.known:
                hint = did_you_mean(key[:60], self.known)
                raise ExportError(f"{self.where}: unknown key {shown(key)}; {hint}")


def shown(value: Any) -> str:
    """A value as a message names it: of any size and depth, in one line."""
    return type(value).__name__ if isinstance(value, dict | list) else f"{value!r:.60}"


def text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 1000 or not value.isprintable():
        raise ValueError("printable text of at most 1,000 characters")
    return value


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def json_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("an object")
    return value


def json_list(value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) > MAX_ROWS:
        raise ValueError(f"a list of at most {MAX_ROWS}")
    return value


def whole(low: int, high: int = 2**63 - 1) -> Check:
    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return value

    return check


def number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError("a finite number")
    return float(value)


def between(low: float, high: float) -> Check:
    def check(value: Any) -> float:
        if not low < number(value) < high:
            raise ValueError(f"a number between {low} and {high}")
        return float(value)

    return check


def at_least_0(value: Any) -> float:
    if number(value) < 0:
        raise ValueError("a number from 0")
    return float(value)


def one_of(words: tuple[str, ...]) -> Check:
    def check(value: Any) -> str:
        if value not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return str(value)

    return check


def sha256(value: Any) -> str:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise ValueError("64 hexadecimal digits")
    return value


def names(value: Any) -> tuple[str, ...]:
    return tuple(text(item) for item in json_list(value))


def texts(value: Any) -> dict[str, str]:
    return {text(key): text(item) for key, item in json_object(value).items()}


def grid(value: Any) -> tuple[int, ...]:
    sides = tuple(whole(1, 1 << 16)(side) for side in json_list(value))
    if not 1 <= len(sides) <= 3 or math.prod(sides) > MAX_ENTRIES:
        raise ValueError(f"1 to 3 sides and at most {MAX_ENTRIES} tokens")
    return sides


def image_size(value: Any) -> tuple[int, ...]:
    sides = grid(value)
    if len(sides) != 2:
        raise ValueError("[H, W]")
    return sides


def normalisation(value: Any) -> tuple[float, float]:
    if [number(item) for item in json_list(value)] != [-1, 1]:
        raise ValueError("[-1, 1]")
    return (-1.0, 1.0)


def component(value: Any) -> dict[str, Any]:
    """A table by which a registered component is found: by its plain name, never by a path."""
    name = json_object(value).get("name")
    if not isinstance(name, str) or len(name) > 100 or not _NAME.fullmatch(name):
        raise ValueError("an object with the 'name' of a registered component")
    return dict(value)


class Field(NamedTuple):
    """One field of a message: a number for a varint, else a view of its bytes."""

    number: int
    kind: int
    value: int | memoryview


def fields(data: memoryview) -> Iterator[Field]:
    """The fields of a message, in the order of the file.

    Raises:
        ExportError: The bytes end within a field, or are no fields at all.
    """
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise ExportError("it is no protobuf message: a field has the number 0")
        if kind == VARINT:
            value, place = _varint(data, place)
            yield Field(number, kind, value)
            continue
        if kind == BYTES:
            size, place = _varint(data, place)
        elif kind in _SIZES:
            size = _SIZES[kind]
        else:
            raise ExportError(f"it is no ONNX message: field {number} is of kind {kind}")
        if size > len(data) - place:
            left = len(data) - place
            raise ExportError(
                f"it is truncated: field {number} needs {size} bytes, {left} are left"
            )
        yield Field(number, kind, data[place : place + size])
        place += size


def varints(data: memoryview) -> list[int]:
    """A packed array of varints."""
    numbers, place = [], 0
    while place < len(data):
        number, place = _varint(data, place)
        numbers.append(number)
    return numbers


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """A number of at most 64 bits, and where the next begins."""
    number = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise ExportError("it is truncated: the bytes end within a number")
        byte = data[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & 0xFFFFFFFFFFFFFFFF, place
    raise ExportError("it is no protobuf message: a number has more than ten bytes")
