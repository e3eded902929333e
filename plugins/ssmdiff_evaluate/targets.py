"""What each image of a folder should have been: the image of the same name in another folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image
from ssmdiff import ConfigError, DataError, create, did_you_mean, printable

from ssmdiff_evaluate.sets import DataImages, SampledFolder

_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")


def key_of(name: str) -> str:
    """What two files of a pair have in common: their name without its suffix."""
    return PurePosixPath(name).with_suffix("").as_posix()


def names_of(samples: SampledFolder | DataImages) -> list[str]:
    """The files of a set, in its order.

    Raises:
        ConfigError: It is not known which file an image is of.
    """
    if isinstance(samples, SampledFolder):
        return [path.relative_to(samples.path).as_posix() for path in samples.files]
    names = getattr(samples.dataset, "names", None)
    if names is None:
        raise ConfigError(f"{samples.name} names no files, so its images have no targets by name")
    return [names[i] for i in samples.indices]


def targets_of(
    names: Sequence[str], folder: Path, shape: tuple[int, ...], reading: Mapping[str, Any]
) -> DataImages:
    """The targets of some images, in their order.

    Args:
        names: Of the images.
        folder: Where their targets lie; further images there are not looked at.
        shape: (C, H, W) that they are read at.
        reading: Options of the data set ``folder`` that say how.

    Raises:
        ConfigError: An image has no target, or two.
        DataError: They cannot be read.
    """
    if not folder.is_dir():
        raise ConfigError(f"--targets {folder}: there is no such folder")
    table = {**reading, "name": "folder", "path": str(folder), "channels": shape[0]}
    dataset = create("dataset", table, image_size=shape[1:])
    places: dict[str, list[int]] = {}
    for i, name in enumerate(dataset.names):
        places.setdefault(key_of(name), []).append(i)
    missing = [name for name in names if key_of(name) not in places]
    if missing:
        hint = did_you_mean(key_of(missing[0]), places)
        raise ConfigError(
            f"{len(missing)} of {len(names)} images have no target of their name in "
            f"{printable(folder)}, such as {printable(missing[0])}; expected one for each ({hint})"
        )
    twice = [name for name in names if len(places[key_of(name)]) > 1]
    if twice:
        raise ConfigError(
            f"{printable(folder)} holds several files named {printable(key_of(twice[0]))}; "
            "expected one target for each image"
        )
    chosen = [places[key_of(name)][0] for name in names]
    return DataImages(dataset, name=f"the targets in {folder}", indices=chosen)


def size_of_first(folder: Path) -> tuple[int, int]:
    """(H, W) of the first picture of a folder.

    Raises:
        DataError: There is none, or it cannot be read.
    """
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _SUFFIXES and path.is_file():
            try:
                with Image.open(path) as picture:
                    return picture.height, picture.width
            except (OSError, ValueError, SyntaxError) as error:
                raise DataError(f"{printable(path)} cannot be read: {error}") from error
    raise DataError(f"{printable(folder)} holds no PNG, TIFF or JPEG image")
