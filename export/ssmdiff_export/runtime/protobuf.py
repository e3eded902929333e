"""Reads protobuf's wire format, as far as ONNX needs it: numbers, bytes, messages within.

A message is a row of fields; each begins with a varint ``number << 3 | kind``:

    kind 0   a varint: 7 bits a byte, the lowest first, the top bit says that more follow
    kind 1   8 bytes      kind 5   4 bytes
    kind 2   a varint length and that many bytes: text, a packed array, a message

The reader hands out views of the bytes, never copies, and nothing here calls itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ssmdiff import ExportError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_SIZES = {FIXED64: 8, FIXED32: 4}


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
