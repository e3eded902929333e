"""A folder of images as a data set."""

from __future__ import annotations

import copy
import hashlib
import logging
import operator
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import torch
from PIL import Image
from pydantic import Field
from ssmdiff import ConfigError, DataError, DatasetSummary, ImageHeader, ImageItem, printable

from ssmdiff_data.beside import without
from ssmdiff_data.describing import classes_in_words, sizes_in_words, spread_over, values_in_words
from ssmdiff_data.finding import find_images, in_words
from ssmdiff_data.folder_told import Asked, FolderTells
from ssmdiff_data.images import ReadRules, read_header, read_image
from ssmdiff_data.patients import groups_of, held_out_of
from ssmdiff_data.pictures import PILLOW_LIMIT
from ssmdiff_data.scaling import Resize, scale, with_channels

log = logging.getLogger(__name__)

_READING = "folder-1"
"""Part of the fingerprint: a change that moves any pixel gets a new name."""

_LISTED = 5
_THREADS = 8
_CHUNK = 64


class BadFile(NamedTuple):
    """An image file that cannot be used."""

    path: str
    """Relative to the folder, as the file system has it."""
    reason: str
    """One sentence, which names the file."""


class FolderDataset:
    """PNG, TIFF, JPEG and ``.npy`` images in a folder and the folders in it.

    **Files.** Found when the data set is built, by suffix in any case, sorted by name; links are
    followed, each folder is read once, and names that start with a dot are skipped. Every header is
    checked at once, so that a file that cannot be used stops the run before it starts.

    **Values** go from black to white as -1 to 1. Unsigned 8 and 16 bit values span the type's whole
    range (a 16-bit file keeps its 16 bits), 1-bit and bool likewise. Data of 12 bits in a 16-bit
    file, signed integers and floats have no such range: ``value_range`` states it.

    **Sizes** may differ from file to file: each is scaled to ``image_size`` (bicubic, antialiased).
    **Channels** may not, unless ``channels`` says what to do. Palettes become RGB. Several pages or
    frames, CMYK, 16 bits in colour and whatever else would be changed silently are refused.

    Args:
        image_size: (H, W) of the images that come out.
        path: The folder.
        channels: 1 (colour becomes grey by ITU-R BT.601 luma), 3 (grey is repeated), or None: what
            the files have, which must be the same in all.
        resize: ``center`` covers the size and cuts what overhangs, centred; ``pad`` fits inside it
            and fills with black; ``stretch`` ignores the aspect ratio.
        value_range: Stored values of black and white, for every file: [0, 4095], [-1024, 3071], ...
        clip: False: a value outside the range is an error. True: ``value_range`` is a window, and
            values outside it become black or white.
        alpha: What lies behind a transparent pixel; ``error`` refuses files with transparency.
        labels: ``folders``: the class is the first folder under ``path``; class names are sorted.
        on_bad: ``error`` checks headers, and a file whose pixels turn out to be damaged raises when
            it is read. ``quarantine`` decodes every file once, when built, and leaves out what
            fails: see ``quarantined``.
        max_bad_fraction: With ``quarantine``, more bad files than this are an error.
        max_pixels: Most pixels (H * W) that a file may claim, against decompression bombs.
        group: A regular expression that finds the patient in a file's name: its first bracket.
        held_out: Images that nothing is trained on, for evaluations: a share of the patients (of
            the files without ``group``), or a text file with a name a line.
        table: A CSV file of what is known of each image, see ``table.py``; this and the following
            paths are relative to ``path``.
        columns: Which columns are told, ``age`` or with its kind ``age:number``; all by default.
        masks: A folder of the labels of their pixels, files of the same names.
        mask_names: What these labels stand for, from the smallest.
        others: Folders of further pictures of the same names, as ``t1=t1_images``.

    Raises:
        ConfigError: ``image_size`` or ``value_range`` cannot be used.
        DataError: No such folder, no images in it, or images that cannot be used: see above.
    """

    channels: int
    class_names: tuple[str, ...]
    quarantined: tuple[BadFile, ...]
    """Image files left out, with reasons; these name files, so they are kept out of run folders."""

    def __init__(
        self,
        image_size: tuple[int, ...],
        *,
        path: str,
        channels: Literal[1, 3] | None = None,
        resize: Resize = "center",
        value_range: tuple[float, float] | None = None,
        clip: bool = False,
        alpha: Literal["error", "black", "white"] = "error",
        labels: Literal["none", "folders"] = "none",
        on_bad: Literal["error", "quarantine"] = "error",
        max_bad_fraction: Annotated[float, Field(ge=0, le=1)] = 0.05,
        max_pixels: Annotated[int, Field(ge=1, le=PILLOW_LIMIT)] = 2**25,
        group: str | None = None,
        held_out: Annotated[float, Field(gt=0, lt=1)] | str | None = None,
        table: str | None = None,
        columns: tuple[str, ...] | None = None,
        masks: str | None = None,
        mask_names: tuple[str, ...] | None = None,
        others: tuple[str, ...] = (),
    ) -> None:
        if len(image_size) != 2 or min(image_size) < 1:
            raise ConfigError(
                f"data set 'folder' was asked for image size {tuple(image_size)}; expected "
                "(height, width), each at least 1"
            )
        if value_range is not None and not value_range[0] < value_range[1]:
            raise ConfigError(
                f"data set 'folder': value_range is {list(value_range)}; expected [black, white] "
                "with black below white"
            )
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.root = Path(path).expanduser()
        self._resize = resize
        self._rules = ReadRules(max_pixels, value_range, clip, alpha)

        asked = Asked(table, columns, masks, mask_names, others)
        found = find_images(self.root)
        images = without(found.images, self.root, asked.folders(self.root))
        if not images:
            raise DataError(
                f"all images in {printable(self.root)} lie in folders of masks or others; expected "
                "the images beside them"
            )
        checked = self._check_all(images, decode=on_bad == "quarantine")
        bad = [item for item in checked if isinstance(item, BadFile)]
        good = [item for item in checked if isinstance(item, _File)]
        self._judge(bad, len(checked), on_bad, max_bad_fraction)
        self.quarantined = tuple(bad)
        self.channels = channels or _common_channels(self.root, good)
        if value_range is not None:
            _refuse_mixed_depths(self.root, good)
        self._names = [item.name for item in good]
        self._sizes = [item.size_bytes for item in good]
        self.class_names, self._labels = (), [0] * len(good)
        if labels == "folders":
            folders = without(found.folders, self.root, asked.folders(self.root))
            self.class_names, self._labels = _classes(self.root, folders, self._names)
        self._groups = groups_of(self._names, group)
        out = held_out_of(self.root, self._names, self._groups, held_out)
        self._sides = [[i for i, flag in enumerate(out) if flag is side] for side in (False, True)]
        self._own = self._sides[0]
        headers = [item.header for item in good]
        self._tells = FolderTells(
            self.root, self._names, headers, self._own, self.channels, asked, self._rules
        )
        if (column := self._tells.label) is not None:
            if self.class_names:
                raise ConfigError(
                    "the table has a column 'label' and labels = 'folders': one class an image; "
                    "give --set data.dataset.labels=none, or rename the column"
                )
            self.class_names, self._labels = column.condition.names, list(column.values)
        self.conditions = self._tells.conditions
        self._looked_at = {good[i].name: good[i].header for i in spread_over(len(good))}
        self._told = (
            sizes_in_words(headers, self.image_size, resize),
            classes_in_words(self.class_names, self._labels),
            *self._tells.in_words(self._own),
        )
        self._places = (*found.places, *self._tells.places)
        self._left_out = in_words(found.left_out)
        self._others = sum(len(names) for names in found.left_out.values())

    def __len__(self) -> int:
        return len(self._own)

    @property
    def groups(self) -> tuple[str, ...] | None:
        """The patient of each image, None without ``group``."""
        return None if self._groups is None else tuple(self._groups[i] for i in self._own)

    @property
    def held_out(self) -> FolderDataset | None:
        """The images that nothing is trained on, None without ``held_out``."""
        if not self._sides[1]:
            return None
        others = copy.copy(self)
        others._own, others._sides = self._sides[1], [self._sides[1], []]
        return others

    def __getitem__(self, index: int) -> ImageItem:
        """Image ``index``: (channels, H, W) float32 in -1 to 1, its class, and what else is told.

        Raises:
            IndexError: ``index`` is not from 0 to len - 1.
            DataError: The file cannot be decoded, or has changed since the data set was built.
        """
        index = operator.index(index)
        if not 0 <= index < len(self._own):
            raise IndexError(f"index {index} of {len(self._own)} images")
        index = self._own[index]
        values = torch.from_numpy(read_image(self.root / self._names[index], self._rules))
        values = scale(with_channels(values, self.channels), self.image_size, self._resize)
        told = self._tells.of(index, values, self._resize)
        return ImageItem(values, self._labels[index], told)

    def fingerprint(self) -> str:
        """sha256, in hex, over the names (hashed), the file sizes and the options.

        Names and sizes survive a copy to another machine; times of change do not, so they are left
        out. A file whose content changed and whose length did not is not noticed.
        """
        digest = hashlib.sha256()
        rules = self._rules
        values = (rules.value_range, rules.clip, rules.alpha)
        options = (self.image_size, self.channels, self._resize, values, len(self.class_names))
        digest.update(f"{_READING} {options}".encode())
        for i in self._own:
            name, size = self._names[i], self._sizes[i]
            digest.update(hashlib.sha256(os.fsencode(name)).digest())
            digest.update(size.to_bytes(8, "little"))
        for part in self._tells.made_from(self._own):
            digest.update(part)
        return digest.hexdigest()

    def summary(self) -> DatasetSummary:
        """What is read and how, and where the values lie, by the files decoded for it."""
        read = len(self._names)
        lines = [f"read: {read} images in {printable(self.root)}"]
        lines.append(f"left out: {self._left_out or 'nothing'}")
        if self._sides[1]:
            lines.append(f"held out: {len(self._sides[1])} images, nothing is trained on them")
        warnings = []
        if self._others > read:
            warnings.append(
                f"{read} files of {printable(self.root)} are read and {self._others} are not: "
                f"{self._left_out}. Convert them to PNG, TIFF or .npy if they belong to the images"
            )
        if self.quarantined:
            shown = [item.reason for item in self.quarantined[:_LISTED]]
            more = len(self.quarantined) - len(shown)
            lines.append(
                f"quarantined: {len(self.quarantined)} damaged images: "
                + "; ".join(shown) + (f"; and {more} more" if more else "")
            )  # fmt: skip
        values, doubts = values_in_words(self.root, self._looked_at, read, self._rules)
        lines += [*values, *self._told]
        warnings += [*doubts, *self._tells.warnings]
        return DatasetSummary(tuple(lines), tuple(warnings), self._places)

    def _check_all(self, names: Sequence[str], *, decode: bool) -> list[_File | BadFile]:
        """Every file in order; threads, since it is mostly the disk that is waited for."""
        chunks = [names[i : i + _CHUNK] for i in range(0, len(names), _CHUNK)]

        def check(chunk: Sequence[str]) -> list[_File | BadFile]:
            return [self._check(name, decode=decode) for name in chunk]

        with warnings.catch_warnings(), ThreadPoolExecutor(_THREADS) as pool:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return [item for chunk in pool.map(check, chunks) for item in chunk]

    def _check(self, name: str, *, decode: bool) -> _File | BadFile:
        path = self.root / name
        try:
            header = read_header(path, self._rules)
            if decode:
                read_image(path, self._rules)
            return _File(name, header, path.stat().st_size)
        except DataError as error:
            return BadFile(name, str(error))

    def _judge(self, bad: list[BadFile], total: int, on_bad: str, max_fraction: float) -> None:
        """Raise unless the bad files may be left out."""
        if not bad:
            return
        if on_bad == "quarantine" and len(bad) < total and len(bad) <= max_fraction * total:
            log.warning("%d of %d image files are quarantined", len(bad), total)
            return
        lines = [f"  {item.reason}" for item in bad[:_LISTED]]
        if len(bad) > _LISTED:
            lines.append(f"  and {len(bad) - _LISTED} more")
        if on_bad == "quarantine":
            limit = f"; max_bad_fraction allows {max_fraction:g} of them"
        else:
            limit = ". Mend or move them"
            if len(bad) < total:
                limit += ", or leave them out with --set data.dataset.on_bad=quarantine"
            if max_fraction * total < len(bad) < total:
                limit += f" --set data.dataset.max_bad_fraction={len(bad) / total!r}"
        what = f"{len(bad)} of {total} image files in {printable(self.root)} cannot be used{limit}:"
        raise DataError("\n".join([what, *lines]))


class _File(NamedTuple):
    name: str
    header: ImageHeader
    size_bytes: int


def _kinds(files: Sequence[_File]) -> str:
    """The commonest kinds of file, with an example of each."""
    counts: Counter[tuple[int, str]] = Counter()
    examples: dict[tuple[int, str], str] = {}
    for file in files:
        kind = (file.header.size("c"), file.header.depth)
        counts[kind] += 1
        examples.setdefault(kind, file.name)
    return "; ".join(
        f"{count} of {kind[0]} channel{'s' * (kind[0] > 1)} ({kind[1]}), such as "
        f"{printable(examples[kind])}"
        for kind, count in counts.most_common(_LISTED)
    )


def _common_channels(root: Path, files: Sequence[_File]) -> int:
    found = {file.header.size("c") for file in files}
    if len(found) > 1:
        raise DataError(
            f"images in {printable(root)} differ in channels: {_kinds(files)}. Give --set "
            "data.dataset.channels=1 (colour becomes grey) or --set data.dataset.channels=3 (grey "
            "is repeated)"
        )
    return found.pop()


def _refuse_mixed_depths(root: Path, files: Sequence[_File]) -> None:
    """One ``value_range`` cannot be that of 8-bit files and of deeper ones."""
    if len({file.header.depth in ("uint8", "bool") for file in files}) > 1:
        raise DataError(
            f"value_range is one for all files, and images in {printable(root)} differ in depth: "
            f"{_kinds(files)}. Keep the depths in folders of their own, or convert them to one"
        )


def _classes(
    root: Path, folders: Sequence[str], names: Sequence[str]
) -> tuple[tuple[str, ...], list[int]]:
    """Class names, and the class of every file: the first folder of its path."""
    loose = [name for name in names if "/" not in name]
    if loose:
        raise DataError(
            f"labels = 'folders', and {len(loose)} images lie in no class folder of "
            f"{printable(root)}, such as {printable(loose[0])}. Move them into one, or "
            "give --set data.dataset.labels=none"
        )
    number = {folder: i for i, folder in enumerate(folders)}
    labels = [number[name.split("/", 1)[0]] for name in names]
    empty = sorted(set(folders) - {folders[label] for label in set(labels)})
    if empty:
        listed = ", ".join(printable(folder) for folder in empty[:_LISTED])
        raise DataError(
            f"labels = 'folders', and {len(empty)} class folders of {printable(root)} hold no "
            f"image that can be used: {listed}. Remove them, or give --set "
            "data.dataset.labels=none"
        )
    return tuple(printable(folder) for folder in folders), labels
