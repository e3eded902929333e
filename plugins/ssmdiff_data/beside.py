"""What lies beside the images of a folder: their masks, and further pictures of the same things."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from ssmdiff import Condition, ConfigError, DataError, Source, printable, size_text
from torch import Tensor

from ssmdiff_data.finding import find_images
from ssmdiff_data.images import ReadRules, read_header, read_image
from ssmdiff_data.pictures import PictureReader
from ssmdiff_data.scaling import Resize, scale, with_channels

_MOST_LABELS = 64
_THREADS = 8


class Folder:
    """The pictures of a folder beside that of the images, one for each image by its name.

    ``scans/a.png`` belongs to ``scans/a.png`` or ``scans/a.npy`` of the images.

    Args:
        option: What messages call it.
        root: The folder.
        names: Of the images, relative to their own folder.

    Raises:
        DataError: One has no image, or an image none.
    """

    def __init__(self, option: str, root: Path, names: Sequence[str]) -> None:
        self.option, self.root = option, root
        found: dict[str, str] = {}
        for name in find_images(root).images:
            key = _key(name)
            if key in found:
                raise DataError(
                    f"{option}: {printable(root)} holds both {printable(found[key])} and "
                    f"{printable(name)}; expected one for each image"
                )
            found[key] = name
        wanted = {_key(name): name for name in names}
        if len(wanted) < len(names):
            raise DataError(
                f"{option}: several images differ by their suffix alone; expected names that tell "
                "them apart"
            )
        for key, name in found.items():
            if key not in wanted:
                raise DataError(f"{option}: {printable(root / name)} lies beside no image")
        for key, name in wanted.items():
            if key not in found:
                raise DataError(f"{option}: {printable(name)} has none in {printable(root)}")
        self.names = [found[_key(name)] for name in names]

    def path(self, i: int) -> Path:
        return self.root / self.names[i]

    def made_from(self, own: Sequence[int]) -> Iterator[bytes]:
        """For a fingerprint: names and sizes of the files of some images."""
        yield f"beside {self.option}".encode()
        for i in own:
            yield hashlib.sha256(os.fsencode(self.names[i])).digest()
            yield self.path(i).stat().st_size.to_bytes(8, "little")

    def check_size(self, i: int, got: tuple[int, ...], size: tuple[int, int]) -> None:
        """Raise unless the picture has the size of its image."""
        if got != size:
            raise DataError(
                f"{self.option}: {printable(self.path(i))} is {size_text(got)}; expected "
                f"{size_text(size)}, as its image is"
            )


def _key(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()


class Masks:
    """Labels of the pixels of each image.

    Every mask is decoded once, when this is made, to know which labels there are. 0 is always one
    of them: it lies around what is padded.

    Args:
        folder: Theirs.
        sizes: (H, W) of each image's file.
        names: What the labels stand for, in the order of their numbers; the numbers themselves by
            default.
        max_pixels: Most pixels that a file may claim.

    Raises:
        DataError: One cannot be read, is in colour, or of another size than its image.
        ConfigError: There are fewer names than labels.
    """

    def __init__(
        self,
        folder: Folder,
        sizes: Sequence[tuple[int, int]],
        names: Sequence[str] | None,
        max_pixels: int,
    ) -> None:
        self.folder = folder
        self._reader = PictureReader(max_pixels, "black", stacks=False)

        def labels_of(i: int) -> NDArray[np.int64]:
            values = self._values(i)
            folder.check_size(i, values.shape, sizes[i])
            return np.unique(values)

        with ThreadPoolExecutor(_THREADS) as pool:
            found = list(pool.map(labels_of, range(len(sizes))))
        self.labels = np.unique(np.concatenate([[0], *found]))
        if len(self.labels) > _MOST_LABELS:
            raise DataError(
                f"{folder.option}: the masks in {printable(folder.root)} hold {len(self.labels)} "
                f"different values; expected labels of pixels, at most {_MOST_LABELS}"
            )
        if len(self.labels) < 2:
            raise DataError(
                f"{folder.option}: the masks in {printable(folder.root)} hold 0 alone, so there is "
                "nothing to tell"
            )
        if names is not None and len(names) != len(self.labels):
            raise ConfigError(
                f"data.dataset.mask_names: {len(names)} names for the {len(self.labels)} labels "
                f"{', '.join(map(str, self.labels.tolist()))}; expected one for each, in this order"
            )
        self.condition = Condition(
            "mask", "mask", tuple(names or (str(x) for x in self.labels.tolist()))
        )

    def read(self, i: int, size: tuple[int, int], how: Resize) -> Tensor:
        """(H, W) uint8: places of the labels in ``condition.names``.

        Raises:
            DataError: The file has changed since.
        """
        values = self._values(i)
        places = np.searchsorted(self.labels, values)
        if not np.array_equal(self.labels[places.clip(max=len(self.labels) - 1)], values):
            raise DataError(
                f"{printable(self.folder.path(i))} holds other labels than when it was first read"
            )
        tensor = torch.from_numpy(places.astype(np.float32))[None]
        return scale(tensor, size, how, labels=True)[0].to(torch.uint8)

    def _values(self, i: int) -> NDArray[np.int64]:
        path = self.folder.path(i)
        values = self._reader.read(Source((path,), path.name)).values
        if values.ndim == 3 and values.shape[-1] == 1:
            values = values[..., 0]
        whole = values.astype(np.int64)
        if values.ndim != 2 or (values.dtype.kind == "f" and not np.array_equal(whole, values)):
            what = "in colour" if values.ndim == 3 else "of numbers that are not whole"
            raise DataError(
                f"{self.folder.option}: {printable(path)} is {what}; expected one label a pixel, "
                "in grey levels"
            )
        return whole


class Others:
    """A further picture of each image: another modality, another slice.

    Args:
        name: Of the condition.
        folder: Theirs.
        sizes: (H, W) of each image's file.
        rules: How they are read: as the images are.

    Raises:
        DataError: One cannot be read, or is of another size than its image; they differ in
            channels.
    """

    def __init__(
        self, name: str, folder: Folder, sizes: Sequence[tuple[int, int]], rules: ReadRules
    ) -> None:
        self.folder, self.rules = folder, rules

        def channels_of(i: int) -> int:
            header = read_header(folder.path(i), rules)
            folder.check_size(i, (header.size("y"), header.size("x")), sizes[i])
            return header.size("c")

        with ThreadPoolExecutor(_THREADS) as pool:
            found = set(pool.map(channels_of, range(len(sizes))))
        # Grey and colour together are colour, as everywhere grey is repeated.
        self.condition = Condition(name, "image", channels=max(found))

    def read(self, i: int, size: tuple[int, int], how: Resize) -> Tensor:
        """(channels, H, W) float32 in -1 to 1."""
        values = torch.from_numpy(read_image(self.folder.path(i), self.rules))
        return scale(with_channels(values, self.condition.channels), size, how)


def parse_others(given: Sequence[str]) -> Mapping[str, str]:
    """``t1=t1_images`` as name -> folder.

    Raises:
        ConfigError: One is not of that form.
    """
    found: dict[str, str] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if not (equals and name and folder) or name in found:
            raise ConfigError(
                f"data.dataset.others: got {text!r}; expected NAME=FOLDER, each name once, such as "
                "t1=t1_images"
            )
        found[name] = folder
    return found


def without(names: Sequence[str], root: Path, folders: Sequence[Path]) -> list[str]:
    """Names of images or folders that lie in none of these folders, and are none of them."""
    inside = []
    for folder in folders:
        try:
            inside.append(f"{folder.resolve().relative_to(root.resolve()).as_posix()}/")
        except ValueError:
            continue
    return [name for name in names if not f"{name}/".startswith(tuple(inside))]
