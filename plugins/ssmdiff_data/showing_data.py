"""What can be told of the images of a data set: for ``ssmdiff data show`` of a store or a name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssmdiff import (
    Condition,
    ConfigError,
    DataError,
    ImageDataset,
    SsmdiffError,
    conditions_of,
    create,
    printable,
    registry,
    size_text,
    stream,
    summary_of,
)

from ssmdiff_data.describing import condition_in_words, counts_of
from ssmdiff_data.looking import SIDE
from ssmdiff_data.showing import Found
from ssmdiff_data.store import DOCUMENT

_SHOWN = 24
"""Images of a contact sheet, each with what lies beside it."""


def data_at(path: Path, options: Mapping[str, Any]) -> ImageDataset | None:
    """The data set that training would make of it: a store, one by its name, a folder with options.

    None: a folder or file without options, which is looked at file by file.

    Raises:
        ConfigError: An option does not fit.
        DataError: It cannot be used.
    """
    names = [entry.component.name for entry in registry().all("dataset")]
    if (path / DOCUMENT).is_file():
        shape = _stored_shape(path)
        return _made({"name": "store", "path": str(path), **options}, shape)
    if not path.exists() and str(path) in names:
        return _made({"name": str(path), **options}, (SIDE, SIDE))
    if options and path.is_dir():
        return _made({"name": "folder", "path": str(path), **options}, (SIDE, SIDE))
    if options:
        raise ConfigError(
            f"--set gives options of a data set, and {printable(path)} is none: expected a folder, "
            "a store, or the name of a data set"
        )
    return None


def _made(table: Mapping[str, Any], size: tuple[int, ...]) -> ImageDataset:
    dataset: ImageDataset = create("dataset", table, image_size=size)
    return dataset


def _stored_shape(path: Path) -> tuple[int, ...]:
    from ssmdiff_data.store import Store

    arrays = Store(path).arrays
    found = next((spec for spec in arrays.values() if spec.kind == "image"), None)
    if found is None:
        raise DataError(f"the store {printable(path)} holds no images")
    return tuple(found.shape[1:])


def record_of(
    name: str, dataset: ImageDataset, sample: int | None, seed: int = 0
) -> dict[str, Any]:
    """All that is told, as plain values; of the conditions, what a sample of images has."""
    count = len(dataset) if sample is None else min(sample, len(dataset))
    drawn = sorted(stream(seed, "data show").permutation(len(dataset))[:count].tolist())
    items = [dataset[i] for i in drawn]
    own = summary_of(dataset)
    conditions = []
    for one in conditions_of(dataset):
        values = None
        if one.kind in ("label", "labels", "number"):
            of_class = one.name == "label" and one.kind == "label"
            values = [item.label if of_class else item.told.get(one.name) for item in items]
        conditions.append(_condition(one, values))
    return {
        "data": name,
        "images": len(dataset),
        "looked_at": count,
        "channels": dataset.channels,
        "size": list(items[0].image.shape[1:]),
        "conditions": conditions,
        "lines": list(own.lines),
        "warnings": list(own.warnings),
    }


def _condition(one: Condition, values: Sequence[Any] | None) -> dict[str, Any]:
    record: dict[str, Any] = {"name": one.name, "kind": one.kind}
    if one.names:
        record["names"] = list(one.names)
    if one.kind == "number":
        record |= {"low": one.low, "high": one.high, "unit": one.unit}
    if one.kind == "image":
        record["channels"] = one.channels
    if values is not None:
        record["unknown"] = sum(value is None for value in values)
        if one.names:
            record["counts"] = counts_of(one, values)
    record["in_words"] = condition_in_words(one, values)
    return record


def lines_of(record: Mapping[str, Any]) -> list[str]:
    """The record for people."""
    channels = record["channels"]
    said = {line for line in record["lines"] if not line.startswith("told: ")}
    return [
        f"{record['data']}: {record['images']} images of {channels} channel{'s' * (channels > 1)} "
        f"at {size_text(record['size'])}",
        *(f"  {line}" for line in record["lines"] if line in said),
        f"  what can be told of an image (model.conditions), counted over {record['looked_at']}:",
        *(f"    {one['in_words'].removeprefix('told: ')}" for one in record["conditions"]),
        *(f"warning: {line}" for line in record["warnings"]),
    ]


def sheet_of_data(dataset: ImageDataset, count: int = _SHOWN) -> tuple[list[Any], list[str]]:
    """Pictures and their captions: images, masks and further pictures beside each.

    Raises:
        DataError: The images are no pictures.
    """
    import torch

    count = min(count, len(dataset))
    beside = [one for one in conditions_of(dataset) if one.kind in ("mask", "image")]
    pictures, words = [], []
    for i in (len(dataset) * k // count for k in range(count)):
        item = dataset[i]
        if item.image.dim() != 3 or len(item.image) not in (1, 3):
            raise DataError("--sheet shows pictures of 1 or 3 channels")
        shown = [(item.image, dataset.class_names[item.label] if dataset.class_names else str(i))]
        for one in beside:
            value = item.told.get(one.name)
            if value is not None and one.kind == "mask":
                value = value[None].float() / max(1, len(one.names) - 1) * 2 - 1
            if value is None or len(value) not in (1, 3):
                value = -torch.ones_like(item.image)
            shown.append((value, one.name))
        pictures += [picture.expand(3, -1, -1) for picture, _ in shown]
        words += [word for _, word in shown]
    return pictures, words


def suggestions(found: Found) -> list[str]:
    """What could be told of the images of a folder, with the option that tells it."""
    from ssmdiff_data.table import read_table

    names = [item.name for item in found.items]
    told = []
    folders = sorted({name.partition("/")[0] for name in names if "/" in name})
    if len(folders) > 1 and all("/" in name for name in names):
        shown = ", ".join(map(printable, folders[:5])) + (", ..." if len(folders) > 5 else "")
        told.append(f"could be told: label, a class by folder: {shown} (--set labels=folders)")
    for file in sorted(found.root.glob("*.csv"))[:3]:
        try:
            table = read_table(file, names, range(len(names)))
        except SsmdiffError as error:
            told.append(f"no table of these images: {error}")
            continue
        for column in table.columns:
            one = column.condition
            words = condition_in_words(one)
            if one.names:  # which may be those of patients: counted, not shown
                what = "findings" if one.kind == "labels" else "classes"
                words = f"told: {one.name}, {len(one.names)} {what}"
            told.append(f"could be {words} (--set table={printable(file.name)})")
    return [found.masked(line) for line in told]
