"""What arrays in files have in common: axes, ranges, sizes that are refused before they are taken,
and the reader of ``.npz``."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from ssmdiff import DataError, ImageData, ImageHeader, Refused, Source

from ssmdiff_data.decoding import content_kind, errors_name

MOST_BYTES = 2**32
"""So much memory the values of one picture or array may take."""
_DEFLATE = 1100
"""A byte unpacks to at most so many, by zlib's own bound of 1,032."""
_RANGES = {"bool": (0.0, 1.0), "uint8": (0.0, 255.0), "uint16": (0.0, 65535.0)}


def array_axes(shape: tuple[int, ...], dtype: np.dtype[Any], volumes: bool = True) -> str:
    """The axes of an array by its shape: a last axis of 1 or 3 is channels, those before y are
    slices, then times.

    Raises:
        DataError: It holds no numbers, or as many axes as no image has.
    """
    if dtype.kind not in "buif":
        raise DataError(f"an array of {dtype}; expected numbers (integer, float or bool)")
    colour = len(shape) > 2 and shape[-1] in (1, 3)
    axes = "tzyx"[-(len(shape) - colour) :] + "c" * colour if shape else ""
    if volumes and len(axes) == len(shape) >= 2:
        return axes
    if axes in ("yx", "yxc") and len(axes) == len(shape):
        return axes
    raise DataError(
        f"an array of shape {shape}; expected (H, W), (H, W, 1) or (H, W, 3). Channels first? "
        "Save numpy.moveaxis(array, 0, -1)"
    )


def type_range(dtype: np.dtype[Any]) -> tuple[float, float] | None:
    """Stored values of black and white, None where the type says nothing."""
    return _RANGES.get(dtype.name)


def refuse_large(size: int, most: int = MOST_BYTES) -> None:
    """Refuse a claim before memory is taken for it."""
    if size > most:
        raise DataError(
            f"it claims {size / 1e9:.3g} GB of values, and at most {most / 1e9:.3g} GB are read at "
            "once. If that is true, cut it into several files"
        )


def finite(values: NDArray[Any]) -> NDArray[Any]:
    """The values.

    Raises:
        DataError: Some are NaN or infinite.
    """
    if values.dtype.kind == "f" and not (sound := np.isfinite(values)).all():
        bad = values.size - int(sound.sum())
        raise DataError(f"{bad} of {values.size} values are NaN or infinite; expected numbers")
    return values


class ArrayReader:
    """``.npz``: every array of two axes and more is an image, of its own name.

    Args:
        max_bytes: Most memory that one array may claim.
    """

    suffixes = frozenset({".npz"})

    def __init__(self, max_bytes: Annotated[int, Field(ge=1)] = MOST_BYTES) -> None:
        self.max_bytes = max_bytes

    def claims(self, path: Path, head: bytes) -> bool:
        if content_kind(head) != "ZIP":
            return False
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
            return path.suffix.lower() == ".npz"  # a damaged one: says what is wrong with it
        return bool(names) and all(name.endswith(".npy") for name in names)

    def sources(self, root: Path, files: Iterable[Path]) -> Iterable[Source | Refused]:
        """An array each; of numbers and lists beside an image nothing is said."""
        for path in files:
            name = path.relative_to(root).as_posix()
            found, refused = [], []
            try:
                with errors_name(path), zipfile.ZipFile(path) as archive:
                    names = archive.namelist()
            except DataError as error:
                yield Refused(name, str(error))
                continue
            for member in names:
                source = Source((path,), name, member.removesuffix(".npy"))
                try:
                    self.header(source)
                    found.append(source)
                except DataError as error:
                    refused.append(Refused(f"{name} ({source.part})", str(error)))
            yield from found or refused

    def header(self, source: Source) -> ImageHeader:
        with self._member(source) as (_, header):
            return header

    def read(self, source: Source) -> ImageData:
        with self._member(source) as (file, header):
            values: Any = np.lib.format.read_array(file, allow_pickle=False)
            return ImageData(finite(values), header)

    def examples(self, folder: Path) -> None:
        """An image with its label, and a packed volume."""
        levels = np.arange(12 * 10, dtype=np.uint8).reshape(12, 10)
        np.savez(folder / "image.npz", image=levels, label=np.int64(1))
        np.savez_compressed(folder / "volume.npz", volume=np.stack([levels] * 4))

    @contextmanager
    def _member(self, source: Source) -> Iterator[tuple[IO[bytes], ImageHeader]]:
        """An array's file at its beginning, and its header."""
        (path,) = source.files
        with errors_name(Path(f"{path} ({source.part})")), zipfile.ZipFile(path) as archive:
            try:
                info = archive.getinfo(f"{source.part}.npy")
            except KeyError:
                raise DataError("there is no such array in it any more") from None
            with archive.open(info) as file:
                version = np.lib.format.read_magic(file)
                if version not in ((1, 0), (2, 0)):
                    raise DataError(f".npy version {version}; expected 1.0 or 2.0")
                read = (np.lib.format.read_array_header_1_0, np.lib.format.read_array_header_2_0)
                shape, _, dtype = read[version[0] - 1](file)
                axes, begin = array_axes(shape, dtype), file.tell()
            size = math.prod(shape) * dtype.itemsize
            if size == 0:
                raise DataError(f"an array of shape {shape}: there is nothing in it")
            refuse_large(size, self.max_bytes)
            if begin + size != info.file_size or info.file_size > _DEFLATE * info.compress_size:
                raise DataError(
                    f"its header claims {size} bytes of values, which its {info.compress_size} "
                    f"packed and {info.file_size} unpacked bytes do not hold. Save it anew"
                )
            with archive.open(info) as file:
                yield file, ImageHeader(shape, axes, dtype.name, value_range=type_range(dtype))
