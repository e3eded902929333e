"""The reader of pictures: PNG, TIFF and its stacks, JPEG and ``.npy``, at their true bit depth.

Nothing is guessed. A file whose values would be cut to 8 bits, that needs a colour profile, or
that holds what its axes do not tell is refused, and told the way out.
"""

from __future__ import annotations

import dataclasses
import math
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydantic import Field
from ssmdiff import DataError, ImageData, ImageHeader, Refused, Source

from ssmdiff_data.arrays import array_axes, finite, refuse_large, type_range
from ssmdiff_data.decoding import (
    content_kind,
    errors_name,
    kind_of,
    open_picture,
    refuse_several_planes,
    stack_axes,
)

SUFFIXES = frozenset({".png", ".tif", ".tiff", ".jpg", ".jpeg", ".npy"})
PILLOW_LIMIT = 89_478_485
"""Pillow warns of a decompression bomb above so many pixels; no limit of ours is higher."""

_ALPHA_MODES = ("L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa")
_TIFF_BITS, _TIFF_COMPRESSION, _TIFF_PHOTOMETRIC, _TIFF_SAMPLES, _TIFF_SAMPLE_FORMAT = (
    258, 259, 262, 277, 339,
)  # fmt: skip
_ORIENTATION = 274
_SIGNED = 2

Alpha = Literal["error", "black", "white"]


class _Picture(NamedTuple):
    """What a picture says of itself before any pixel is decoded."""

    shape: tuple[int, ...]
    axes: str
    channels: int
    """1 or 3, once palettes are looked up and alpha is blended."""
    depth: str
    value_range: tuple[float, float] | None
    """Stored values of black and white; None: the type has none."""
    alpha: bool = False
    inverted_from: float | None = None
    """The largest value, for TIFF's WhiteIsZero where Pillow leaves it to us: above 8 bits."""


class PictureReader:
    """PNG, TIFF and its stacks, JPEG and ``.npy``.

    Unsigned 8 and 16 bit values have the range of their type, 1-bit and bool likewise; signed
    integers and floats have none. Palettes become RGB. EXIF orientation is applied.

    Args:
        max_pixels: Most pixels (H * W) that a plane may claim, against decompression bombs.
        alpha: What lies behind a transparent pixel; ``error`` refuses files with transparency.
        stacks: Whether the pages of a TIFF and three axes of an array are a volume, or refused.
        behind: Stored values of black and white behind a transparent pixel; those of the type by
            default.
    """

    suffixes = SUFFIXES

    def __init__(
        self,
        max_pixels: Annotated[int, Field(ge=1, le=PILLOW_LIMIT)] = 2**25,
        alpha: Alpha = "error",
        stacks: bool = True,
        behind: tuple[float, float] | None = None,
    ) -> None:
        self.max_pixels, self.alpha = max_pixels, alpha
        self.stacks, self.behind = stacks, behind

    def claims(self, path: Path, head: bytes) -> bool:
        return content_kind(head) in ("PNG", "TIFF", "JPEG", "npy")

    def sources(self, root: Path, files: Iterable[Path]) -> Iterable[Source | Refused]:
        """A file each."""
        for path in files:
            yield Source((path,), path.relative_to(root).as_posix())

    def header(self, source: Source) -> ImageHeader:
        (path,) = source.files
        with errors_name(path):
            check_regular(path)
            if _is_npy(path):
                return self._array(path)
            with open_picture(path) as (picture, start):
                return _header(self._picture(picture, start, path.stat().st_size))

    def read(self, source: Source) -> ImageData:
        (path,) = source.files
        with errors_name(path):
            check_regular(path)
            if _is_npy(path):
                header = self._array(path)
                return ImageData(finite(np.load(path, allow_pickle=False)), header)
            with open_picture(path) as (picture, start):
                found = self._picture(picture, start, path.stat().st_size)
                if "z" in found.axes or "t" in found.axes:
                    values = self._stack(picture, found)
                else:
                    values = self._values(_pixels(picture, found), found)
                # A rotation that the header did not tell of, as a PNG may say it after its pixels.
                header = dataclasses.replace(_header(found), shape=values.shape)
                return ImageData(values, header)

    def examples(self, folder: Path) -> None:
        """A picture of each format, a stack, an array."""
        levels = (np.arange(12 * 10) * 2).reshape(12, 10).astype(np.uint8)
        grey, pages = Image.fromarray(levels), [Image.fromarray(levels * k) for k in (1, 2, 3)]
        grey.save(folder / "grey.png")
        grey.convert("P").save(folder / "palette.png")
        grey.save(folder / "grey.jpg", quality=90)
        Image.fromarray(levels.astype(np.uint16) * 100).save(folder / "deep.tif")
        pages[0].save(folder / "stack.tif", save_all=True, append_images=pages[1:])
        np.save(folder / "volume.npy", np.stack([levels] * 4).astype(np.float32))

    def _check_size(self, height: int, width: int) -> None:
        if height < 1 or width < 1:
            raise DataError(f"{height} x {width} pixels: there is nothing in it")
        if height * width > self.max_pixels:
            raise DataError(
                f"it claims {height} x {width} pixels, more than max_pixels = {self.max_pixels}. "
                "If it is no decompression bomb, shrink it, or give --set "
                f"data.dataset.max_pixels={height * width} (at most {PILLOW_LIMIT})"
            )

    def _array(self, path: Path) -> ImageHeader:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version == (1, 0):
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            elif version == (2, 0):
                shape, _, dtype = np.lib.format.read_array_header_2_0(file)
            else:
                raise DataError(
                    f".npy version {version}; expected 1.0 or 2.0, as numpy.save writes"
                )
            found = path.stat().st_size - file.tell()
        axes = array_axes(shape, dtype, self.stacks)
        self._check_size(shape[axes.index("y")], shape[axes.index("x")])
        expected = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if found != expected:
            raise DataError(f"{found} bytes of pixels; its header claims {expected}. Save it anew")
        return ImageHeader(shape, axes, dtype.name, value_range=type_range(dtype))

    def _picture(self, picture: Image.Image, start: bytes, size: int) -> _Picture:
        self._check_size(picture.height, picture.width)
        shape: tuple[int, ...] = (picture.height, picture.width)
        axes = "yx"
        stacked = stack_axes(picture) if self.stacks else None
        if stacked is None:
            refuse_several_planes(picture)
        _refuse_missing_strips(picture, size)
        bits, signed, inverted = _stored_depth(picture, start)
        mode = picture.mode
        default: tuple[float, float] | None
        if mode.startswith("I;16"):
            depth, default = ("uint16" if bits == 16 else f"{bits} bit"), (0.0, 2.0**bits - 1)
        elif mode == "I" and signed:
            depth, default = f"int{bits}", None
        elif mode == "F":
            depth, default = "float32", None
        elif mode in ("1", *_ALPHA_MODES) and bits <= 8 and not signed:
            depth, default = ("bool", (0.0, 1.0)) if mode == "1" else ("uint8", (0.0, 255.0))
        else:
            raise DataError(_unsupported(mode, bits, signed))
        alpha = picture.has_transparency_data
        if alpha and mode not in _ALPHA_MODES:
            raise DataError(f"transparency in a picture of mode {mode}; save it without")
        if alpha and self.alpha == "error":
            raise DataError(
                "it has an alpha channel. Save it without, or choose the colour to put behind it: "
                "--set data.dataset.alpha=black or --set data.dataset.alpha=white"
            )
        channels = 3 if mode[0] in "PR" else 1
        if inverted and default is None:
            raise DataError(f"TIFF WhiteIsZero with {depth} values; save it as BlackIsZero or .npy")
        top = default[1] if inverted and default else None
        if _turned(picture):
            shape = shape[::-1]
        if stacked is not None:
            shape, axes = (*stacked[0], *shape), stacked[1] + axes
        if channels == 3:
            shape, axes = (*shape, 3), axes + "c"
        refuse_large(math.prod(shape) * (1 if bits <= 8 else bits // 8))
        return _Picture(shape, axes, channels, depth, default, alpha, top)

    def _stack(self, picture: Image.Image, found: _Picture) -> NDArray[Any]:
        """Every page, each of the first one's size and mode."""
        planes = math.prod(found.shape[: found.axes.index("y")])
        plane = found.shape[found.axes.index("y") :]
        values: NDArray[Any] | None = None
        size, mode = picture.size, picture.mode
        for number in range(planes):  # all of them, before memory is taken for as many
            picture.seek(number)
            if picture.size != size or picture.mode != mode:
                raise DataError(
                    f"page {number} is {picture.height} x {picture.width} of mode {picture.mode}, "
                    f"and page 0 is {size[1]} x {size[0]} of {mode}; save the pages as files of "
                    "their own"
                )
        for number in range(planes):
            picture.seek(number)
            page = self._values(_pixels(picture, found), found)
            if page.shape != plane:
                raise DataError(f"page {number} lies on its side, by its Orientation, page 0 not")
            if values is None:
                values = np.empty((planes, *plane), page.dtype)
            values[number] = page
        assert values is not None  # a stack has pages
        return values.reshape(found.shape)

    def _values(self, stored: NDArray[Any], found: _Picture) -> NDArray[Any]:
        """Finite numbers, on what lies behind them where they are transparent."""
        values = finite(stored)
        if found.alpha:
            low, high = self.behind or found.value_range or (0.0, 255.0)
            behind = high if self.alpha == "white" else low
            values = values.astype(np.float32)
            opacity = values[..., -1:] / 255
            values = values[..., :-1] * opacity + behind * (1 - opacity)
            if found.channels == 1:
                values = values[..., 0]
        if found.inverted_from is not None:
            values = found.inverted_from - values.astype(np.float32)
        return values


def _header(found: _Picture) -> ImageHeader:
    return ImageHeader(found.shape, found.axes, found.depth, value_range=found.value_range)


def _is_npy(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(132)
    return path.suffix.lower() == ".npy" or content_kind(start) == "npy"


def check_regular(path: Path) -> None:
    """Refuse what would hang or has no content, before it is opened."""
    try:
        status = path.stat()
    except FileNotFoundError:
        link = path.is_symlink()
        raise DataError("a link to nothing" if link else "the file is no longer there") from None
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{kind_of(status.st_mode)}; expected a regular file")
    if status.st_size == 0:
        raise DataError("the file is empty (0 bytes)")


def _refuse_missing_strips(picture: Image.Image, size: int) -> None:
    """Pillow leaves rows black for which an uncompressed TIFF has no strip."""
    tags: Any = getattr(picture, "tag_v2", {})
    if picture.format != "TIFF" or tags.get(_TIFF_COMPRESSION, 1) != 1:
        return
    samples, bits = tags.get(_TIFF_SAMPLES, 1), tags.get(_TIFF_BITS, (1,))
    needed = picture.height * -(-picture.width * max(bits) * samples // 8)
    if needed > size:
        raise DataError(
            f"it is cut short or damaged: its header claims {needed} bytes of pixels, and it has "
            f"{size}. Replace it"
        )


def _turned(picture: Image.Image) -> bool:
    """Whether its EXIF orientation turns it by 90 degrees, where that is told before the pixels.

    The size that Pillow tells of a TIFF is that of the turned one.
    """
    if picture.format == "TIFF" or (picture.format == "PNG" and "exif" not in picture.info):
        return False
    return picture.getexif().get(_ORIENTATION) in (5, 6, 7, 8)


def _stored_depth(picture: Image.Image, start: bytes) -> tuple[int, bool, bool]:
    """(bits per sample, signed, inverted) from the file itself: ``mode`` tells less."""
    if picture.format == "PNG":
        if start[12:16] != b"IHDR":
            raise DataError("a PNG that does not start with its header (IHDR)")
        return start[24], False, False
    if picture.format == "TIFF":
        tags: Any = getattr(picture, "tag_v2", {})
        bits = max(tags.get(_TIFF_BITS, (1,)))
        signed = _SIGNED in tags.get(_TIFF_SAMPLE_FORMAT, (1,))
        return bits, signed, bits > 8 and tags.get(_TIFF_PHOTOMETRIC) == 0
    return 8, False, False


def _unsupported(mode: str, bits: int, signed: bool) -> str:
    if bits > 8 and mode in _ALPHA_MODES:
        return (
            f"{bits}-bit {mode}, which Pillow would cut to 8 bits. Save it as .npy, a uint16 array "
            "of shape (H, W, 3)"
        )
    if mode == "CMYK":
        return "CMYK; its colours need a profile to be seen. Convert it to RGB first"
    sign = "signed " if signed else ""
    return f"{sign}{bits}-bit pixels of mode {mode} are not supported. Save it as RGB, grey or .npy"


def _pixels(picture: Image.Image, found: _Picture) -> NDArray[Any]:
    """The stored values, upright: (H, W) or (H, W, C), with alpha as the last channel if any."""
    picture.load()
    upright = ImageOps.exif_transpose(picture)
    if found.alpha:
        upright = upright.convert("RGBA" if found.channels == 3 else "LA")
    elif upright.mode == "P":
        upright = upright.convert("RGB")
    return np.asarray(upright)
