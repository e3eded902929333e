"""What a folder of images holds, before anything is trained on it: ``ssmdiff data show``."""

from __future__ import annotations

import functools
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from PIL import Image
from ssmdiff import (
    DataError,
    ImageHeader,
    Reader,
    SsmdiffError,
    create,
    gather,
    make_readers,
    printable,
    stream,
)

from ssmdiff_data.finding import in_words, kind_by_name
from ssmdiff_data.looking import Look, look
from ssmdiff_data.patients import groups_of
from ssmdiff_data.walking import files_in

SAMPLE = 200
SHEET = 64
"""Pictures of a contact sheet."""
_THREADS, _AT_ONCE = 8, 2
"""For headers, which the disk is waited for; for values, of which each may be large."""
_SPLITS = {
    "train": "train", "training": "train", "trn": "train", "val": "val", "valid": "val",
    "validation": "val", "dev": "val", "test": "test", "testing": "test", "tst": "test",
}  # fmt: skip
"""Folders that say which split their images are of."""

Bars = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
T = TypeVar("T")
R = TypeVar("R")


class Item(NamedTuple):
    """An image whose header could be read."""

    name: str
    reader: str
    header: ImageHeader
    patient: str
    """As the files say: never shown."""
    split: str
    """By its folders, empty where they do not say."""


class LeftOut(NamedTuple):
    """A file that a reader knows and that cannot be used."""

    name: str
    reason: str
    """Without the file's name."""


@dataclass(frozen=True)
class Found:
    """All that was found, with the names that must not be shown."""

    root: Path
    files: int
    items: tuple[Item, ...]
    looks: Mapping[int, Look]
    """By index of the item."""
    left_out: tuple[LeftOut, ...]
    passed_over: Mapping[str, list[str]]
    """Files that no reader knows, by kind."""
    unavailable: Mapping[str, str] = field(default_factory=dict)

    @functools.cached_property
    def patients(self) -> Counter[str]:
        return Counter(item.patient for item in self.items if item.patient)

    def masked(self, text: str) -> str:
        """The text without any word of a patient's name or number that the files' headers tell."""
        return self._names.sub("***", text) if self._names else text

    @functools.cached_property
    def _names(self) -> re.Pattern[str] | None:
        said = {item.header.patient for item in self.items if item.header.patient}
        words = said | {word for name in said for word in re.split(r"[\^\s,;=]+", name)}
        words = {word for word in words if len(word) > 2}
        if not words:
            return None
        ordered = sorted(words, key=lambda word: (-len(word), word))
        # A short one as a word of its own alone: a patient called Doe is not what a file does.
        forms = [
            re.escape(word) if len(word) > 4 else rf"(?<![^\W_]){re.escape(word)}(?![^\W_])"
            for word in ordered
        ]
        return re.compile("|".join(forms), re.IGNORECASE)


def _nothing(what: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    return nullcontext(lambda count: None)


def find(
    path: str | Path,
    *,
    sample: int | None = SAMPLE,
    seed: int = 0,
    group: str | None = None,
    readers: Sequence[str] = (),
    bars: Bars = _nothing,
) -> Found:
    """Look at a file, or at all files in a folder and below it.

    Args:
        path: The file or the folder.
        sample: So many images are decoded, drawn by the seed; None for all.
        seed: Of the sample.
        group: A regular expression that finds the patient in a file's name, where no header does.
        readers: By name; every reader by default.
        bars: Makes a progress bar of a title and a total.

    Raises:
        DataError: There is no such folder, or nothing in it that a reader knows.
        ConfigError: There is no such reader, or ``group`` is no regular expression.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise DataError(f"there is no {printable(place)}; expected a folder of images, or a file")
    files, hidden = files_in(place)
    root = place if place.is_dir() else place.parent
    known, unavailable = _readers(readers)
    with bars("files", len(files)) as advance:
        gathered = gather(root, files, known, lambda: advance(1))
    passed_over: dict[str, list[str]] = dict(hidden)
    for file in gathered.unclaimed:
        name = file.relative_to(root).as_posix()
        passed_over.setdefault(kind_by_name(file), []).append(name)
    left_out = [LeftOut(one.name, _reason(one.reason, root, one.name)) for one in gathered.refused]
    if not gathered.sources and not left_out:
        raise DataError(_nothing_in(place, passed_over, known, unavailable))
    names = [source.name for _, source in gathered.sources]
    groups = groups_of(names, group)

    def read_header(number: int) -> Item | LeftOut:
        of, source = gathered.sources[number]
        whole = f"{source.name} ({source.part})" if source.part else source.name
        try:
            header = known[of].header(source)
        except SsmdiffError as error:
            return LeftOut(whole, _reason(str(error), root, source.name))
        patient = header.patient or (groups[number] if groups else "")
        return Item(whole, of, header, patient, _split_of(source.name))

    with bars("headers", len(names)) as advance:
        found = _each(read_header, range(len(names)), _THREADS, advance)
    good = [number for number, item in enumerate(found) if isinstance(item, Item)]
    left_out += [item for item in found if isinstance(item, LeftOut)]
    if not good:
        raise DataError(
            f"none of the {len(left_out)} images in {printable(place)} can be read: "
            f"{printable(left_out[0].name)}: {left_out[0].reason}"
        )
    drawn: Sequence[int] = range(len(good))
    if sample is not None and sample < len(good):
        order = stream(seed, "data show").permutation(len(good))
        drawn = sorted(order[:sample].tolist())

    shown = {drawn[i] for i in _spread(len(drawn), SHEET)}

    def see(number: int) -> Look | LeftOut:
        of, source = gathered.sources[good[number]]
        try:
            seen = look(known[of], source)
            return seen if number in shown else seen._replace(picture=None)
        except SsmdiffError as error:
            return LeftOut(source.name, _reason(str(error), root, source.name))

    with bars("values", len(drawn)) as advance:
        seen = _each(see, drawn, _AT_ONCE, advance)
    looks = {i: one for i, one in zip(drawn, seen, strict=True) if isinstance(one, Look)}
    left_out += [one for one in seen if isinstance(one, LeftOut)]
    items = tuple(item for item in found if isinstance(item, Item))
    total = len(files) + sum(map(len, hidden.values()))
    return Found(root, total, items, looks, tuple(left_out), passed_over, unavailable)


def _readers(names: Sequence[str]) -> tuple[dict[str, Reader], dict[str, str]]:
    if names:
        return {name: create("reader", name) for name in names}, {}
    return make_readers()


def _each(
    function: Callable[[T], R], items: Iterable[T], threads: int, advance: Callable[[int], None]
) -> list[R]:
    """In order, by threads; a picture that claims too many pixels is an error, not a warning."""
    results = []
    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for result in pool.map(function, items):
            results.append(result)
            advance(1)
    return results


def _reason(text: str, root: Path, name: str) -> str:
    """A sentence without the name of its file, so that files of one reason are one line."""
    for known in (printable(root / name), printable(name)):
        text = text.removeprefix(f"{known}: ").removeprefix(f"{known} ")
    return text.replace(f"{printable(root)}/", "")


def _split_of(name: str) -> str:
    folders = [part.lower() for part in Path(name).parts[:-1]]
    return next((_SPLITS[part] for part in folders if part in _SPLITS), "")


def _nothing_in(
    place: Path,
    passed_over: Mapping[str, list[str]],
    known: Mapping[str, Reader],
    unavailable: Mapping[str, str],
) -> str:
    if not passed_over:
        return f"{printable(place)} holds no files; expected images"
    formats = ", ".join(sorted(known))
    missing = "".join(f". {name} cannot be used here: {why}" for name, why in unavailable.items())
    return (
        f"no image in {printable(place)}: no reader knows its files, {in_words(passed_over)}. "
        f"Readers: {formats}{missing}"
    )


def _spread(count: int, most: int) -> list[int]:
    return sorted({k * count // most for k in range(most)}) if count else []


def sheet_of(found: Found) -> tuple[list[Any], list[str]]:
    """Pictures (1, SIDE, SIDE) in -1 to 1 and their windows in words, at most ``SHEET``, spread."""
    import numpy as np
    import torch

    from ssmdiff_data.looking import SIDE

    pictures, words = [], []
    for _, one in sorted(found.looks.items()):
        if one.picture is None:
            continue
        canvas = np.zeros((SIDE, SIDE), np.uint8)
        height, width = one.picture.shape
        top, left = (SIDE - height) // 2, (SIDE - width) // 2
        canvas[top : top + height, left : left + width] = one.picture
        pictures.append(torch.from_numpy(canvas.astype(np.float32) / 127.5 - 1)[None])
        words.append(f"{one.window[0]:.4g} to {one.window[1]:.4g}")
    return pictures, words
