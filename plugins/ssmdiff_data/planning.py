"""What ``ssmdiff data prepare`` is about to do: which files, whose they are, and into which split.

Nothing of a plan is written down: it names files and patients.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssmdiff import (
    ConfigError,
    DataError,
    ImageHeader,
    Reader,
    Source,
    gather,
    make_readers,
    printable,
    size_text,
)

from ssmdiff_data.describing import classes_in_words
from ssmdiff_data.finding import in_words
from ssmdiff_data.patients import groups_of
from ssmdiff_data.recipe import Recipe
from ssmdiff_data.splitting import ENOUGH, SHARES, TRAIN, by_lists, by_shares, refuse_leaks
from ssmdiff_data.table_columns import columns_of
from ssmdiff_data.units import IMAGE, MASK, Found, PlannedCase
from ssmdiff_data.value_rules import rule_for
from ssmdiff_data.walking import files_in

_LISTED = 5
_THREADS = 8
_EIGHT = ("uint8", "bool")


@dataclass(frozen=True)
class Plan:
    """What is read, and what a person is told of it."""

    cases: tuple[PlannedCase, ...]
    classes: tuple[str, ...]
    dtype: str
    """Of the images in the store."""
    mask_names: tuple[str, ...] = ()
    modality: str = ""
    body_part: str = ""
    lines: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    told: Mapping[str, str] = field(default_factory=dict)
    """Lines for the store, which name nobody and no file."""
    columns: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What columns of its table mean that are no plain numbers."""


def plan_folder(root: Path, recipe: Recipe, advance: Callable[[], object] = lambda: None) -> Plan:
    """Everything in a folder that a reader reads; headers are read, pixels are not.

    Raises:
        DataError: Nothing can be read, or files do not fit each other.
    """
    files, hidden = files_in(root)
    readers, _ = make_readers()
    found = gather(root, files, readers, advance)
    if not found.sources:
        others = in_words(hidden | {"of no known kind": [p.name for p in found.unclaimed]})
        reasons = "".join(f"\n  {bad.name}: {bad.reason}" for bad in found.refused[:_LISTED])
        missing = "; ".join(found.unavailable.values())
        raise DataError(
            f"{printable(root)} holds nothing that can be read: {others or 'no files'}"
            + (f". {missing}" if missing else "") + reasons
        )  # fmt: skip
    headed = list(_headers(found.sources, readers))
    bad = [header for header in headed if isinstance(header, str)]
    if bad and recipe.on_bad == "error":
        shown = "\n".join(f"  {reason}" for reason in bad[:_LISTED])
        more = f"\n  and {len(bad) - _LISTED} more" if len(bad) > _LISTED else ""
        raise DataError(
            f"{len(bad)} of {len(headed)} images in {printable(root)} cannot be read. Mend or move "
            f"them, or leave them out with --on-bad leave-out:\n{shown}{more}"
        )
    known = [
        (reader, source, header)
        for (reader, source), header in zip(found.sources, headed, strict=True)
        if isinstance(header, ImageHeader)
    ]
    if not known:
        raise DataError(f"no image in {printable(root)} can be read: {bad[0]}")
    images, masks = _masks_of(known, recipe.mask)
    names = [source.name for _, source, _ in images]
    patients, told_patients, doubts = _patients(names, [h for *_, h in images], recipe)
    classes, labels = _classes(names, recipe)
    splits = split_of(names, patients, recipe)
    columns: Mapping[str, Mapping[str, Any]] = {}
    numbers: list[dict[str, float]] = [{} for _ in names]
    if recipe.table is not None:
        own = [i for i, split in enumerate(splits) if split == TRAIN]
        table = columns_of(recipe, names, own)
        columns, numbers = table.meant, table.numbers
        doubts += table.warnings
        if table.labels is not None:
            if classes:
                raise ConfigError(
                    "--table has a column 'label' and --labels is folders; choose one"
                )
            classes, labels = table.labels
    cases = []
    for i, (reader, source, _) in enumerate(images):
        arrays = {IMAGE: Found(reader, (), source, None)}
        if source.name in masks:
            arrays[MASK] = Found(*masks[source.name], None)
        cases.append(
            PlannedCase(arrays, source.name, patients[i], splits[i], labels[i], numbers[i])
        )
    headers = [header for *_, header in images]
    left_out = {kind: list(names) for kind, names in hidden.items()}
    for path in found.unclaimed:
        left_out.setdefault(path.suffix.lower() or "no suffix", []).append(path.name)
    lines = [f"read: {_kinds(images)} in {printable(root)}"]
    lines.append(f"left out: {in_words(left_out) or 'nothing'}")
    useless = [f"{one.name}: {one.reason}" for one in found.refused] + bad
    if useless:
        shown = "; ".join(useless[:_LISTED])
        more = f"; and {len(useless) - _LISTED} more" if len(useless) > _LISTED else ""
        lines.append(f"cannot be used: {len(useless)}: {shown}{more}")
    told = {
        "made of": f"{len(images)} images of {len(set(patients))} patients",
        "axis": _axis_line(headers, recipe),
        "values": _values_line(headers, recipe),
    }
    modalities = sorted({header.modality for header in headers} - {""})
    doubts += [f"{n} files: {text}" for text, n in _warnings(headers).items()]
    if len(modalities) > 1:
        doubts.append(
            f"the images are of several modalities, {', '.join(modalities)}; prepare each by itself"
        )
    eight = all(header.depth in _EIGHT for header in headers)
    return finished(
        Plan(
            tuple(cases),
            classes,
            stored_type(recipe, eight),
            modality=modalities[0] if len(modalities) == 1 else "",
            lines=(*lines, told_patients),
            warnings=tuple(doubts),
            told=told,
            columns=columns,
        ),
        recipe,
    )


def finished(plan: Plan, recipe: Recipe) -> Plan:
    """The plan with the lines that every plan has."""
    people: dict[str, set[str]] = {}
    for case in plan.cases:
        people.setdefault(case.split, set()).add(case.patient)
    counts = Counter(case.split for case in plan.cases)
    words = [
        f"{split} {counts[split]} of {len(people[split])} patients" for split in sorted(people)
    ]
    lines = [
        *plan.lines,
        *(f"{key}: {text}" for key, text in plan.told.items() if key != "made of"),
        f"slices: {recipe.slices}",
        f"sizes: each becomes {size_text(recipe.image_size)} (resize = {recipe.resize!r}), "
        f"{plan.dtype}",
        f"splits: {', '.join(words)}",
    ]
    if plan.classes:
        lines.append(classes_in_words(plan.classes, [case.label for case in plan.cases]))
    return Plan(**{**vars(plan), "lines": tuple(lines)})


def split_of(names: Sequence[str], patients: Sequence[str], recipe: Recipe) -> list[str]:
    """The split of each case; no patient is in two."""
    if recipe.lists:
        return by_lists(names, patients, recipe.lists)
    shares = recipe.shares
    if shares is None:
        shares = SHARES if len(set(patients)) >= ENOUGH else {}
    found = by_shares(patients, shares, recipe.seed)
    splits = [found[patient] for patient in patients]
    refuse_leaks(patients, splits)
    return splits


def _headers(
    sources: Sequence[tuple[str, Source]], readers: Mapping[str, Reader]
) -> Iterable[ImageHeader | str]:
    """Of each source in order, or why there is none; threads, since it is the disk that is slow."""

    def head(pair: tuple[str, Source]) -> ImageHeader | str:
        try:
            return readers[pair[0]].header(pair[1])
        except DataError as error:
            return str(error)

    with ThreadPoolExecutor(_THREADS) as pool:
        yield from pool.map(head, sources)


Headed = tuple[str, Source, ImageHeader]


def _masks_of(
    found: Sequence[Headed], suffix: str | None
) -> tuple[list[Headed], dict[str, tuple[str, tuple[tuple[str, Any], ...], Source]]]:
    """Images, and the mask of each by the image's name: ``a_seg.nii`` is that of ``a.nii``."""
    if not suffix:
        return list(found), {}

    def stem(name: str) -> str:
        return re.sub(r"(\.nii)?\.\w+$", "", name)

    masks = {
        stem(source.name).removesuffix(suffix): (reader, (), source)
        for reader, source, _ in found
        if stem(source.name).endswith(suffix)
    }
    images = [one for one in found if not stem(one[1].name).endswith(suffix)]
    without = [source.name for _, source, _ in images if stem(source.name) not in masks]
    if not images or without:
        raise DataError(
            f"--mask {suffix}: expected a file of that ending beside each image; "
            + (f"{printable(without[0])} has none" if without else "there are no images")
        )
    return images, {source.name: masks[stem(source.name)] for _, source, _ in images}


def _patients(
    names: Sequence[str], headers: Sequence[ImageHeader], recipe: Recipe
) -> tuple[list[str], str, list[str]]:
    """The patient of each image, a line that says how it is known, and doubts."""
    if recipe.group is not None:
        found = groups_of(names, recipe.group, "--group") or []
        return found, f"patients: {len(set(found))}, by --group", []
    found = [header.patient or f"file {name}" for name, header in zip(names, headers, strict=True)]
    unknown = sum(not header.patient for header in headers)
    line = f"patients: {len(set(found))}"
    if not unknown:
        return found, f"{line}, as the files say", []
    if len(found) == 1:
        return found, f"{line}, since there is one image", []
    return (
        found,
        f"{line}, of whom {unknown} are images by themselves",
        [
            f"{unknown} of {len(found)} images do not say whose they are, and each is taken for "
            "that of a patient of its own; if that is wrong, images of one patient come into two "
            "splits. Say how to tell them: --group 'sub-(\\d+)'"
        ],
    )


def _classes(names: Sequence[str], recipe: Recipe) -> tuple[tuple[str, ...], list[int]]:
    if recipe.labels == "none":
        return (), [0] * len(names)
    loose = next((name for name in names if "/" not in name), None)
    if loose is not None:
        raise DataError(
            f"--labels folders: {printable(loose)} lies in no folder; expected one for each class"
        )
    first = [name.split("/", 1)[0] for name in names]
    classes = sorted(set(first))
    number = {name: i for i, name in enumerate(classes)}
    return tuple(map(printable, classes)), [number[name] for name in first]


def _kinds(found: Sequence[Headed]) -> str:
    """``12 nifti (zyx), 3 dicom (yx)``."""
    counts = Counter((reader, header.axes) for reader, _, header in found)
    return ", ".join(
        f"{count} {reader} of axes {axes}" for (reader, axes), count in counts.most_common(_LISTED)
    )


def _axis_line(headers: Sequence[ImageHeader], recipe: Recipe) -> str:
    volumes = sum("z" in header.axes for header in headers)
    if not volumes:
        return "pictures as they are"
    line: str = recipe.axis
    if volumes < len(headers):
        line += f" of {volumes} volumes; {len(headers) - volumes} pictures as they are"
    return line


def _values_line(headers: Sequence[ImageHeader], recipe: Recipe) -> str:
    """Which rules are used, and why."""
    used = Counter(rule_for(recipe.values, header.value_range, header.units) for header in headers)
    words = [f"{rule} {why}" for (rule, why), _ in used.most_common(_LISTED)]
    return "; ".join(words) + ("; ..." if len(used) > _LISTED else "")


def _warnings(headers: Iterable[ImageHeader]) -> Counter[str]:
    return Counter(text for header in headers for text in header.warnings)


def stored_type(recipe: Recipe, eight: bool) -> str:
    return f"uint{recipe.bits or (8 if eight else 16)}"


def chunks(cases: Sequence[PlannedCase], most: int = 32) -> Iterator[tuple[PlannedCase, ...]]:
    """Cases that are prepared together: pictures some at once, volumes likewise few."""
    for start in range(0, len(cases), most):
        yield tuple(cases[start : start + most])
