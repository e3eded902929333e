"""The images that ``translate`` and ``inpaint`` are given, read as the model's own data is read."""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from ssmdiff.diffusion.image_model import ImageModel
from ssmdiff.errors import ConfigError, DataError, SsmdiffError, did_you_mean, printable
from ssmdiff.orders.scan import size_text
from ssmdiff.registry.registry import create
from ssmdiff.runs.reading import Refused, make_readers, reader_of
from ssmdiff.runs.run import Run

from ssmdiff_cli.sample_folder import GRID, RECORD, MadeOf

FOLDER = "folder"
STORE = "store.json"
READING = ("resize", "value_range", "clip", "alpha", "max_pixels")
"""Options of the data set ``folder`` that say how a picture is read."""
LEFT_OUT = ("on_bad", "max_bad_fraction")
"""Those that say which are left out."""
DRAWN: dict[str, Any] = {"value_range": [0, 1], "clip": True}
"""How a mask is read: 1 and more is white, in any depth."""
UNTOUCHED = -1 + 1e-3
"""A mask's pixel that no part of a white one is scaled into, -1 to 1."""


class PerImage(Sequence[Any]):
    """What is known of each image, made when it is asked for."""

    fingerprint: str | None = None

    def __init__(self, size: int, make: Callable[[int], Any]) -> None:
        self.size, self.make = size, make

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, i: int) -> Any: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[Any]: ...
    def __getitem__(self, i: int | slice) -> Any:
        if isinstance(i, slice):
            return [self.make(k) for k in range(*i.indices(self.size))]
        return self.make(range(self.size)[i])


@dataclass(frozen=True)
class Given:
    """Images by their names.

    Args:
        names: What the files that are made of them are called, without a suffix.
        images: (C, H, W) float32 each, -1 to 1.
        made_from: The data set's word of what they are made from.
        reading: Options that they were read by.
        files: Their own names, relative to ``root``; empty where they are of a store.
        root: The folder.
    """

    names: tuple[str, ...]
    images: Sequence[NDArray[np.float32]]
    made_from: str
    reading: dict[str, Any]
    files: tuple[str, ...]
    root: Path

    def __len__(self) -> int:
        return len(self.names)

    @functools.cached_property
    def digest(self) -> str:
        """Of what they are; all pictures are read for it, a damaged one is told now.

        Raises:
            DataError: One cannot be read.
        """
        if not self.files:
            return self.made_from
        known = hashlib.sha256(self.made_from.encode())
        for image in self.images:
            known.update(image.tobytes())
        return known.hexdigest()

    def as_told(self) -> PerImage:
        """Them as values of a condition, whose record is their digest."""
        told = PerImage(len(self), self.images.__getitem__)
        told.fingerprint = self.digest
        return told

    def made_of(self, how: Mapping[str, Any]) -> MadeOf:
        """For the folder of what is made of them."""
        return MadeOf({"images": self.digest, **how}, self.names, self.reading, self.images)


def reading_of(model: ImageModel[Any], asked: Mapping[str, Any], images: Path) -> dict[str, Any]:
    """How a run reads pictures, where its data is a folder of them; else as a folder is by default.
    An exported file does not say how its data was read.

    Args:
        model: A run, or a file.
        asked: Options that are given instead.
        images: What is read.

    Raises:
        ConfigError: One says nothing of how pictures are read, or none are.
    """
    for key in asked:
        if (images / STORE).is_file():
            raise ConfigError(
                f"--set data.dataset.{key}: {printable(images)} is a store, whose images are read "
                "already; leave it out"
            )
        if key not in (*READING, *LEFT_OUT):
            near = did_you_mean(key, (*READING, *LEFT_OUT))
            raise ConfigError(
                f"--set data.dataset.{key}: it says nothing of how pictures are read; {near}"
            )
    table = model.config.data.dataset if isinstance(model, Run) else {}
    known = table if table.get("name") == FOLDER else {}
    return {key: known[key] for key in READING if known.get(key) is not None} | dict(asked)


def refuse_within(out: Path, *given: Path) -> None:
    """Refuse to write among the pictures that are read.

    Raises:
        ConfigError: ``out`` is a folder that is given or lies in it, or holds a picture that is.
    """
    place = out.resolve()
    for path in given:
        whole = path.resolve()
        if place == whole.parent if path.is_file() else place.is_relative_to(whole):
            raise ConfigError(
                f"--out {printable(out)} is where {printable(path)} is read from, so what is made "
                "would be among what is read; choose another folder"
            )


def given_images(
    path: Path,
    image_size: Sequence[int],
    channels: int,
    reading: dict[str, Any],
    split: str | None = None,
    told_as: str | None = None,
) -> Given:
    """A folder of pictures, one picture, or a store.

    Args:
        path: Of them.
        image_size: That they are read at.
        channels: That they are to have.
        reading: How; see :func:`reading_of`.
        split: Of a store; by default the one that is trained on.
        told_as: The condition that they are told as: of a store the array of this name, if it has
            one.

    Raises:
        ConfigError: Two would be written under one name, they are of other channels, or of no such
            split.
        DataError: They cannot be read.
    """
    place, shown = None, path
    if not path.exists():
        raise DataError(f"there is no {printable(path)}; expected a picture, or a folder of them")
    if (document := path / STORE).is_file():
        dataset = _store(document, tuple(image_size), split, told_as)
    elif split is not None:
        raise ConfigError(
            f"--split {split}: {printable(path)} is no store of ssmdiff data prepare, which alone "
            "has splits; leave it out, and give the folder whose pictures are meant"
        )
    else:
        root, place = _folder_of(path)
        shown = path.parent if path.is_file() else path
        table: dict[str, Any] = {**reading, "name": FOLDER, "path": str(root), "channels": channels}
        with _told_of(shown, place):
            dataset = create("dataset", table, image_size=tuple(image_size))
    if dataset.channels != channels:
        raise ConfigError(
            f"images in {printable(path)} have {dataset.channels} channels; expected {channels}, "
            "as the model takes them"
        )
    files = tuple(getattr(dataset, "names", ()))
    names = tuple(_stem(name) for name in files)
    if len(set(names)) < len(names):
        name = next(name for name in names if names.count(name) > 1)
        raise ConfigError(
            f"{printable(path)} holds several images named {printable(name)} that differ by their "
            "suffix alone, and what is made of them would have one name; expected one of each"
        )

    def image(i: int) -> NDArray[np.float32]:  # which keeps a folder of links there
        with _told_of(shown, place):
            return np.asarray(dataset[i].image, np.float32)

    return Given(
        names or tuple(f"{i:06d}" for i in range(len(dataset))),
        PerImage(len(dataset), image),
        dataset.fingerprint(),
        reading,
        files,
        root if files else path,
    )


def _store(
    document: Path, image_size: tuple[int, ...], split: str | None, told_as: str | None
) -> Any:
    try:
        arrays = list(json.loads(document.read_bytes())["arrays"])
    except (OSError, ValueError, KeyError, TypeError):  # the data set says what is wrong with it
        arrays = []
    table: dict[str, Any] = {"name": "store", "path": str(document.parent)}
    table |= {} if split is None else {"split": split}
    table |= {"array": told_as} if told_as in arrays else {}
    try:
        return create("dataset", table, image_size=image_size)
    except ConfigError as error:
        raise ConfigError(str(error).replace("data.dataset.split:", "--split:")) from None


def masks_of(path: Path, given: Given, image_size: Sequence[int]) -> tuple[Sequence[Any], str]:
    """Where the pixels of each image are to be drawn, (1, H, W) bool, and a digest of it.

    A mask lies in the folder under the name of its image, or is one file for all. Every pixel of it
    that is not 0 is drawn; it goes through the geometry of its image, and a pixel that a drawn one
    is scaled into is drawn too.

    Raises:
        ConfigError: A mask is missing, of another size than its image, or masks nothing or all.
        DataError: One cannot be read.
    """
    if not given.files:
        raise ConfigError(
            f"{printable(given.root)} is a store, whose images have no names that a mask could be "
            "found by; give a folder of pictures"
        )
    reading = {key: given.reading[key] for key in ("resize",) if key in given.reading} | DRAWN
    if not path.exists():
        raise DataError(f"--mask {path}: there is no such file or folder")
    masks = given_images(path, image_size, 1, reading)
    one_for_all = path.is_file()
    place = {name: i for i, name in enumerate(masks.names)}
    if one_for_all:
        place = dict.fromkeys(given.names, 0)
    missing = [name for name in given.names if name not in place]
    if missing:
        raise ConfigError(
            f"--mask {path}: there is no mask for {printable(missing[0])}"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
            + f"; expected one of the name of each image ({did_you_mean(missing[0], place)}), or "
            "one file for all"
        )
    for name, file in zip(given.names, given.files, strict=True):
        mask = masks.files[place[name]]
        got, expected = _size(masks.root / mask), _size(given.root / file)
        if got != expected:
            raise ConfigError(
                f"mask {printable(path if one_for_all else path / mask)} is {size_text(got)}, and "
                f"the image {printable(file)} is {size_text(expected)}; expected one size"
            )

    def unknown(i: int) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = masks.images[place[given.names[i]]] > UNTOUCHED
        return found

    digest = hashlib.sha256(f"{one_for_all}".encode())
    for i in [0] if one_for_all else range(len(given)):
        drawn, what = unknown(i), f"mask {printable(path)}"
        digest.update(drawn.tobytes())
        what += "" if one_for_all else f" of {printable(given.names[i])}"
        if not drawn.any():
            raise ConfigError(f"{what} is 0 everywhere, so there is nothing to fill in")
        if drawn.all():
            raise ConfigError(
                f"{what} is nowhere 0, so nothing of the image would be kept. For whole images: "
                "ssmdiff sample"
            )
    return PerImage(len(given), unknown), digest.hexdigest()


_Links = tempfile.TemporaryDirectory[str]


def _folder_of(path: Path) -> tuple[Path, _Links | None]:
    """The folder that a path is; of a single file one that holds a link to it alone, of a folder of
    samples one that lacks their grid; with what keeps that folder there."""
    if path.is_dir() and not (path / RECORD).is_file():
        return path, None
    place = tempfile.TemporaryDirectory(prefix="ssmdiff-")
    root = path if path.is_dir() else path.parent
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file() and file != path / GRID:
            link = Path(place.name) / file.relative_to(root)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.resolve())
    return Path(place.name), place


@contextmanager
def _told_of(root: Path, place: _Links | None) -> Iterator[None]:
    """What is wrong with a link is told of what it is a link to."""
    try:
        yield
    except SsmdiffError as error:
        if place is None:
            raise
        raise type(error)(str(error).replace(place.name, printable(root))) from error


def _stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()


def _size(path: Path) -> tuple[int, int]:
    """(H, W) of a picture's file."""
    readers, _ = make_readers()
    name = reader_of(path, readers)
    if name is None:
        raise DataError(f"{printable(path)} is no picture that can be read")
    source = next(iter(readers[name].sources(path.parent, [path])))
    if isinstance(source, Refused):
        raise DataError(f"{printable(path)}: {source.reason}")
    header = readers[name].header(source)
    return header.size("y"), header.size("x")
