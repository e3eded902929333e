"""A table beside files that are prepared, as columns of numbers in a store."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ssmdiff import ConfigError, DataError, printable

from ssmdiff_data.recipe import Recipe
from ssmdiff_data.stored_told import COLUMNS_OF_ALL, columns_fact, names_of
from ssmdiff_data.table import LABEL, Column, read_table


class TableColumns(NamedTuple):
    """What a table says of cases, in the form of a store."""

    numbers: list[dict[str, float]]
    """Of each case; NaN where one is not known."""
    meant: Mapping[str, Mapping[str, Any]]
    """What columns stand for that are no plain numbers."""
    labels: tuple[tuple[str, ...], list[int]] | None
    """Classes, and that of each case, by the column ``label``."""
    warnings: list[str]


def columns_of(recipe: Recipe, names: Sequence[str], own: Sequence[int]) -> TableColumns:
    """The columns of ``recipe.table`` for these files.

    Args:
        recipe: With a table.
        names: Of the files.
        own: Indices of those that are trained on.

    Raises:
        ConfigError: A column is not there, tells nothing, or has the name of one of every store.
        DataError: The table cannot be read, or does not fit the files.
    """
    path = Path(recipe.table or "").expanduser()
    found = read_table(path, names, own, recipe.columns, "--columns")
    columns = {column.condition.name: column for column in found.columns}
    label = columns.pop(LABEL, None)
    for name in columns:
        if COLUMNS_OF_ALL.fullmatch(name):
            raise ConfigError(
                f"--columns: {name!r} is a column of every store; rename it in {printable(path)}"
            )
    numbers = [
        {key: value for column in columns.values() for key, value in _numbers(column, i)}
        for i in range(len(names))
    ]
    labels = None
    if label is not None:
        if None in label.values:
            raise DataError(
                f"{printable(path)}: the column 'label' says nothing of "
                f"{printable(names[list(label.values).index(None)])}; expected the class of every "
                "image"
            )
        labels = label.condition.names, list(label.values)
    meant = columns_fact({name: column.condition for name, column in columns.items()})
    return TableColumns(numbers, meant, labels, list(found.warnings))


def _numbers(column: Column, i: int) -> list[tuple[str, float]]:
    value, names = column.values[i], names_of(column.condition)
    if value is None:
        return [(name, math.nan) for name in names]
    if column.condition.kind == "labels":
        return [(name, float(k in value)) for k, name in enumerate(names)]
    return [(names[0], float(value))]
