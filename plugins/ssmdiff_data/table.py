"""A table beside images: what it tells of each, as conditions of a data set.

A CSV file with a head line; one column holds the names of the images, each other one is a class, a
list of findings or a number of every image.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ssmdiff import Condition, ConfigError, DataError, did_you_mean, printable

KINDS = ("label", "labels", "number")
LABEL = "label"
SEPARATOR = "|"
NOTHING = ("no finding", "no findings", "none")
"""Cells that say that there are no findings."""
UNKNOWN = ("", "na", "n/a", "nan", "?", "unknown")
_MOST_CLASSES = 64
_MOST_BYTES = 2**28


class Column(NamedTuple):
    """A column, as a condition and its value of each image."""

    condition: Condition
    values: Sequence[Any]
    """Of each image; None where it is not known."""


class TableTells(NamedTuple):
    """What a table tells of images, and what people are told of the table."""

    columns: tuple[Column, ...]
    lines: tuple[str, ...]
    warnings: tuple[str, ...]


class _Rows(NamedTuple):
    file: str
    """For messages."""
    head: list[str]
    cells: list[tuple[int, list[str]]]
    """The number of the line, and its cells, of each image in order."""


def read_table(
    path: Path,
    names: Sequence[str],
    own: Sequence[int],
    chosen: Sequence[str] | None = None,
    where: str = "data.dataset.columns",
) -> TableTells:
    """What the columns of a table tell of these images.

    A column of the name ``label`` is the class, whatever its cells look like.

    Args:
        path: The CSV file. Commas, semicolons or tabs stand between its cells.
        names: Of the images, relative to their folder. A row's name, in the first column, is that
            path, the file's name, or the file's name without its suffix.
        own: Indices of those that are trained on: numbers have the range that they have there.
        chosen: ``age``, or with its kind ``age:number``; None: every column that tells something.
        where: What messages call the list of columns.

    Raises:
        ConfigError: There is no such column or kind, or a column tells nothing.
        DataError: It cannot be read, an image has no row or two, or a cell is of another kind.
    """
    head, lines = _read(path)
    rows, warnings = _rows_of(path, head, lines, names)
    taken: list[Column] = []
    said: list[str] = []
    for column, kind in _wanted(head, chosen, where):
        found = _column(rows, column, kind, own)
        if isinstance(found, str):
            if chosen is not None:
                raise ConfigError(f"{where}: {found}")
            said.append(f"not told: {found}")
        else:
            taken.append(found)
    twice = Counter(column.condition.name for column in taken)
    for name, count in twice.items():
        if count > 1:
            raise ConfigError(
                f"{rows.file}: {count} columns come to the name {name!r}; rename one, or name the "
                f"columns that are told in {where}"
            )
    if not taken:
        raise ConfigError(f"{rows.file} tells nothing of the images: {'; '.join(said)}")
    return TableTells(tuple(taken), tuple(said), tuple(warnings))


def word_of(column: str) -> str:
    """The name of a column's condition: ``Finding Labels`` is ``finding_labels``."""
    word = re.sub(r"[^a-z0-9]+", "_", column.lower()).strip("_")
    return word if word[:1].isalpha() else f"column_{word}".rstrip("_")


def _read(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The head, and each line that is not empty with its number."""
    file = printable(path)
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{file} is larger than {_MOST_BYTES} bytes; expected a CSV table")
        text = path.read_text(encoding="utf-8-sig")
        first = text.partition("\n")[0]
        between = max(",;\t", key=first.count)
        found = list(csv.reader(io.StringIO(text, newline=""), delimiter=between, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(
            f"{file} cannot be read ({reason}); expected a CSV table, the names of the images in "
            "its first column"
        ) from None
    lines = [
        (i, [cell.strip() for cell in row])
        for i, row in enumerate(found, 1)
        if any(cell.strip() for cell in row)
    ]
    if len(lines) < 2 or len(lines[0][1]) < 2:
        raise DataError(
            f"{file} has {len(lines)} lines of {len(lines[0][1]) if lines else 0} columns; "
            "expected a head line, a line for each image, and a column beside their names"
        )
    (_, head), *rest = lines
    if head[-1] == "" and all(cells[-1] == "" for _, cells in rest):  # a comma ends every line
        head, rest = head[:-1], [(i, cells[:-1]) for i, cells in rest]
    if "" in head or len(set(head)) < len(head):
        raise DataError(f"{file}: its head line is {head}; expected different words")
    for number, cells in rest:
        if len(cells) != len(head):
            raise DataError(
                f"{file}, line {number}: it has {len(cells)} cells; expected {len(head)}, as its "
                "head line has"
            )
    return head, rest


def _rows_of(
    path: Path, head: list[str], lines: Sequence[tuple[int, list[str]]], names: Sequence[str]
) -> tuple[_Rows, list[str]]:
    """The row of each image; and a warning of rows without one."""
    file = printable(path)
    of_row: dict[str, int] = {}
    for i, (number, cells) in enumerate(lines):
        if cells[0] in of_row:
            raise DataError(
                f"{file}, line {number}: {printable(cells[0])} has a row already, in line "
                f"{lines[of_row[cells[0]]][0]}; expected one for each image"
            )
        of_row[cells[0]] = i
    found, without = [], []
    shared = _ambiguous(names)
    for name in names:
        keys = [name, *(key for key in _short(name) if key not in shared)]
        row = next((of_row[key] for key in keys if key in of_row), None)
        if row is None:
            without.append(name)
        else:
            found.append(row)
    if without:
        raise DataError(
            f"{file} has no row for {len(without)} of {len(names)} images, such as "
            f"{printable(without[0])}. Names stand in its first column, {head[0]!r}; a cell of "
            "what is not known of an image stays empty"
        )
    warnings = []
    used = set(found)
    if spare := len(lines) - len(used):
        example = next(cells[0] for i, (_, cells) in enumerate(lines) if i not in used)
        warnings.append(
            f"{spare} of {len(lines)} rows of {file} are of no image that is read, such as "
            f"{printable(example)}"
        )
    return _Rows(file, head, [lines[i] for i in found]), warnings


def _short(name: str) -> tuple[str, str]:
    """The file's name, with and without its suffix."""
    file = PurePosixPath(name).name
    return file, re.sub(r"(\.nii)?\.\w+$", "", file)


def _ambiguous(names: Sequence[str]) -> set[str]:
    """Names of files, with and without suffix, that several images have."""
    return {
        key
        for keys in zip(*map(_short, names), strict=True)
        for key, count in Counter(keys).items()
        if count > 1
    }


def _wanted(
    head: Sequence[str], chosen: Sequence[str] | None, where: str
) -> list[tuple[str, str | None]]:
    """Columns, each with its kind where that is given."""
    if chosen is None:
        return [(column, None) for column in head[1:]]
    found: list[tuple[str, str | None]] = []
    for text in chosen:
        column, colon, kind = text.rpartition(":")
        if text in head:
            column, kind = text, ""
        elif colon and kind not in KINDS:
            raise ConfigError(
                f"{where}: {text!r} asks for kind {kind!r}; {did_you_mean(kind, KINDS)}"
            )
        elif not colon:
            column, kind = text, ""
        if column not in head[1:]:
            raise ConfigError(
                f"{where}: the table has no column {column!r}; {did_you_mean(column, head[1:])}"
            )
        found.append((column, kind or None))
    return found


def _column(rows: _Rows, column: str, kind: str | None, own: Sequence[int]) -> Column | str:
    """A column, or why it tells nothing."""
    name = word_of(column)
    if name == LABEL and kind not in (None, LABEL):
        raise ConfigError(f"column {column!r} is the class and no condition of kind {kind}")
    at = rows.head.index(column)
    cells = [(line, cells[at]) for line, cells in rows.cells]
    known = [text for _, text in cells if text.lower() not in UNKNOWN]
    if not known:
        return f"column {column!r} says nothing of any image"
    if len(set(known)) == 1:
        return f"column {column!r} holds one value alone, {known[0]!r}"
    kind = kind or (LABEL if name == LABEL else _guessed(known))
    if kind is None:
        return (
            f"column {column!r} holds {len(set(known))} different words, more than {_MOST_CLASSES} "
            f"or most of them once; ask for it as {column + ':label'!r} if they are classes"
        )
    if kind == "number":
        numbers = [_number(rows, column, line, text) for line, text in cells]
        trained = {x for i in own if (x := numbers[i]) is not None}
        if len(trained) < 2:
            return f"column {column!r} holds one value alone over the images that are trained on"
        low, high = min(trained), max(trained)
        gaps = None in numbers
        return Column(Condition(name, "number", low=low, high=high, optional=gaps), numbers)
    is_set = kind == "labels"
    parts = [_parts(text, is_set) for _, text in cells]
    words = sorted({word for found in parts for word in found or ()})
    if not words:
        return f"column {column!r} names no finding"
    index = {word: i for i, word in enumerate(words)}
    values: list[Any] = [
        None if found is None else tuple(sorted({index[word] for word in found})) for found in parts
    ]
    if not is_set:
        values = [value and value[0] for value in values]
    gaps = None in values
    meant = Condition(name, "labels" if is_set else "label", tuple(words), optional=gaps)
    return Column(meant, values)


def _guessed(known: Sequence[str]) -> str | None:
    """The kind of a column by its cells; None where they seem to be names."""
    different = set(known)
    if all(_float(text) is not None for text in different):
        return "number" if len(different) > 2 else "label"
    if any(SEPARATOR in text for text in different):
        return "labels"
    few = len(different) <= _MOST_CLASSES and 2 * len(different) <= len(known)
    return "label" if few else None


def _parts(text: str, is_set: bool) -> list[str] | None:
    """The words of a cell; None where it says nothing."""
    if text.lower() in UNKNOWN:
        return None
    if not is_set:
        return [text]
    parts = [part.strip() for part in text.split(SEPARATOR)]
    return [part for part in parts if part and part.lower() not in NOTHING]


def _float(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _number(rows: _Rows, column: str, line: int, text: str) -> float | None:
    if text.lower() in UNKNOWN:
        return None
    value = _float(text)
    if value is None:
        raise DataError(
            f"{rows.file}, line {line}: column {column!r} holds {text!r:.40}; expected a number, "
            f"or an empty cell where it is not known. As classes: {column + ':label'!r}"
        )
    return value
