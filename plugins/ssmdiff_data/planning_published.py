"""What is about to be done with the official folder of a published data set."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, ValidationError, validate_call
from ssmdiff import (
    Case,
    ConfigError,
    DataError,
    Source,
    did_you_mean,
    make_readers,
    printable,
    reader_of,
)

from ssmdiff_data.planning import Plan, finished, split_of, stored_type
from ssmdiff_data.recipe import Recipe
from ssmdiff_data.splitting import refuse_leaks
from ssmdiff_data.units import Found, PlannedCase


def plan_published(root: Path, published: Any, options: Mapping[str, Any], recipe: Recipe) -> Plan:
    """The cases of a published data set; its class says what they are.

    Raises:
        DataError: The folder has another layout.
        ConfigError: It has no such option.
    """
    if not root.is_dir():
        raise DataError(f"there is no folder {printable(root)}; expected that of the data set")
    cases = _cases_of(root, published, options)
    names, patients = [case.name for case in cases], [case.patient for case in cases]
    official = recipe.shares is None and not recipe.lists and all(case.split for case in cases)
    if official:
        splits = [case.split for case in cases]
        refuse_leaks(patients, splits)
    else:
        splits = split_of(names, patients, recipe)
    used = {case.label for case in cases}
    classes = tuple(name for name in published.CLASSES if name in used)
    number = {name: i for i, name in enumerate(classes)}
    owners: dict[str, str] = {}
    chosen: Mapping[str, Mapping[str, Any]] = getattr(published, "READER", {})

    def found(paths: tuple[Path, ...]) -> Found:
        ending = paths[0].suffix.lower()
        of = owners.get(ending) or owners.setdefault(ending, _owner(paths[0]))
        name = os.path.relpath(paths[0], root)
        return Found(of, tuple(sorted(chosen.get(of, {}).items())), Source(paths, name), None)

    planned = tuple(
        PlannedCase(
            {array: found(paths) for array, paths in case.files.items()},
            case.name,
            case.patient,
            splits[i],
            number.get(case.label, 0),
            case.numbers,
        )
        for i, case in enumerate(cases)
    )
    terms = published.TERMS
    made_of = f"{len(cases)} images of {len(set(patients))} patients of {terms.name}"
    lines = [
        f"read: {made_of} in {printable(root)}",
        f"licence: {terms.licence}",
        f"cite: {terms.cite}",
        *published.notes(),
    ]
    if official:
        lines.append("splits: those of the data set itself")
    values = str(recipe.values) if recipe.values else "by the files"
    return finished(
        Plan(
            planned,
            classes,
            stored_type(recipe, eight=False),
            tuple(published.MASK),
            published.MODALITY,
            published.BODY_PART,
            tuple(lines),
            told={"made of": made_of, "axis": recipe.axis, "values": values},
        ),
        recipe,
    )


def _cases_of(root: Path, published: Any, options: Mapping[str, Any]) -> Sequence[Case]:
    """The cases, options checked against the types of their parameters."""
    known = [name for name in inspect.signature(published.cases).parameters if name != "root"]
    for key in options:
        if key not in known:
            raise ConfigError(
                f"--set {key}: {published.TERMS.name} has no such option; "
                f"{did_you_mean(key, known)}"
            )
    try:
        read = validate_call(config=ConfigDict(strict=True))(published.cases)
        return tuple(read(root, **options))
    except ValidationError as error:
        (problem, *_) = error.errors()
        raise ConfigError(
            f"--set {problem['loc'][-1]}: got {problem['input']!r}; {problem['msg'].lower()}"
        ) from None


def _owner(path: Path) -> str:
    """The reader of a file, and so of others of its suffix."""
    readers, unavailable = make_readers()
    owner = reader_of(path, readers)
    if owner is None:
        raise DataError(
            f"{printable(path)} cannot be read: no reader that is installed knows it"
            + "".join(f"; {why}" for why in unavailable.values())
        )
    return owner
