"""Reads one image file: PNG, TIFF, JPEG or ``.npy``, at its true bit depth, to -1 .. 1.

Nothing is guessed. A file whose values have no known meaning (signed integers, floats), that the
reader would cut to 8 bits, or that needs a colour profile is refused, and told the way out.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from ssmdiff import DataError

from ssmdiff_data.decoding import errors_name, kind_of, open_picture, refuse_several_planes

SUFFIXES = frozenset({".png", ".tif", ".tiff", ".jpg", ".jpeg", ".npy"})
PILLOW_LIMIT = 89_478_485
"""Pillow warns of a decompression bomb above so many pixels; no limit of ours is higher."""

_ALPHA_MODES = ("L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa")
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_SAMPLE_FORMAT = 258, 262, 339
_SIGNED = 2
_NPY_RANGES = {"bool": (0.0, 1.0), "uint8": (0.0, 255.0), "uint16": (0.0, 65535.0)}


class ReadRules(NamedTuple):
    """What a user decided about the files; see :class:`ssmdiff_data.folder.FolderDataset`."""

    max_pixels: int
    value_range: tuple[float, float] | None
    clip: bool
    alpha: Literal["error", "black", "white"]


class Header(NamedTuple):
    """What a file says of itself before any pixel is decoded."""

    height: int
    width: int
    """Height and width; an EXIF rotation by 90 degrees may yet swap them."""
    channels: int
    """1 or 3, once palettes are looked up and alpha is blended."""
    depth: str
    """The type of the stored values: ``uint8``, ``uint16``, ``12 bit``, ``float32``, ..."""
    value_range: tuple[float, float]
    """Stored values of black and white."""
    alpha: bool = False
    inverted_from: float | None = None
    """The largest value, for TIFF's WhiteIsZero where Pillow leaves it to us: above 8 bits."""


def read_header(path: Path, rules: ReadRules) -> Header:
    """Check a file from its header alone.

    Raises:
        DataError: It is no regular file, empty, not an image, larger than ``max_pixels``, or of a
            kind that is refused. The message names the file.
    """
    with errors_name(path):
        _check_regular(path)
        if path.suffix.lower() == ".npy":
            return _npy_header(path, rules)
        with open_picture(path) as (picture, start):
            return _picture_header(picture, start, rules)


def read_image(path: Path, rules: ReadRules) -> NDArray[np.float32]:
    """The whole image: (C, H, W) float32 in -1 to 1, upright by its EXIF orientation.

    Raises:
        DataError: As :func:`read_header`; or it is cut short or damaged, or holds NaN, infinity or
            values outside the range. The message names the file.
    """
    with errors_name(path):
        values, (low, high) = _read_values(path, rules)
        least, most = float(values.min()), float(values.max())
        if (least < low or most > high) and not rules.clip:
            raise DataError(
                f"values from {least:g} to {most:g}; expected {low:g} to {high:g}. Widen "
                "data.dataset.value_range, or use it as a window with --set data.dataset.clip=true"
            )
        scaled = np.clip((values - low) / (high - low) * 2 - 1, -1, 1).astype(np.float32)
        return np.ascontiguousarray(
            scaled[None] if scaled.ndim == 2 else np.moveaxis(scaled, -1, 0)
        )


class Spread(NamedTuple):
    """Where the values of a file lie."""

    least: float
    most: float
    outside: float
    """The fraction beyond the range in use."""


def read_spread(path: Path, rules: ReadRules) -> Spread:
    """The values of a file as they are stored; raises as :func:`read_image`."""
    with errors_name(path):
        values, (low, high) = _read_values(path, rules)
        outside = float(((values < low) | (values > high)).mean())
        return Spread(float(values.min()), float(values.max()), outside)


def _read_values(path: Path, rules: ReadRules) -> tuple[NDArray[Any], tuple[float, float]]:
    """The values (H, W) or (H, W, C), grey the right way round, and those of black and white."""
    _check_regular(path)
    if path.suffix.lower() == ".npy":
        header = _npy_header(path, rules)
        return _values(np.load(path, allow_pickle=False), header, rules), header.value_range
    with open_picture(path) as (picture, start):
        header = _picture_header(picture, start, rules)
        return _values(_pixels(picture, header), header, rules), header.value_range


def _check_regular(path: Path) -> None:
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


def _check_size(height: int, width: int, rules: ReadRules) -> None:
    if height < 1 or width < 1:
        raise DataError(f"{height} x {width} pixels: there is nothing in it")
    if height * width > rules.max_pixels:
        raise DataError(
            f"it claims {height} x {width} pixels, more than max_pixels = {rules.max_pixels}. If "
            "it is no decompression bomb, shrink it, or give --set data.dataset.max_pixels="
            f"{height * width} (at most {PILLOW_LIMIT})"
        )


def _range_of(
    default: tuple[float, float] | None, depth: str, rules: ReadRules
) -> tuple[float, float]:
    chosen = rules.value_range or default
    if chosen is None:
        raise DataError(
            f"{depth} values have no known black and white. Give both, such as --set "
            "data.dataset.value_range=[0,1] or --set data.dataset.value_range=[-1024,3071]"
        )
    return chosen


def _npy_header(path: Path, rules: ReadRules) -> Header:
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise DataError(f".npy version {version}; expected 1.0 or 2.0, as numpy.save writes")
        found = path.stat().st_size - file.tell()
    if dtype.kind not in "buif":
        raise DataError(f"an array of {dtype}; expected numbers (integer, float or bool)")
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3)):
        raise DataError(
            f"an array of shape {shape}; expected (H, W), (H, W, 1) or (H, W, 3). Channels first? "
            "Save numpy.moveaxis(array, 0, -1)"
        )
    _check_size(shape[0], shape[1], rules)
    expected = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if found != expected:
        raise DataError(f"{found} bytes of pixels; its header claims {expected}. Save it anew")
    channels = 1 if len(shape) == 2 else int(shape[2])
    depth = dtype.name
    value_range = _range_of(_NPY_RANGES.get(depth), depth, rules)
    return Header(shape[0], shape[1], channels, depth, value_range)


def _picture_header(picture: Image.Image, start: bytes, rules: ReadRules) -> Header:
    _check_size(picture.height, picture.width, rules)
    refuse_several_planes(picture)
    bits, signed, inverted = _stored_depth(picture, start)
    mode = picture.mode
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
    if alpha and rules.alpha == "error":
        raise DataError(
            "it has an alpha channel. Save it without, or choose the colour to put behind it: "
            "--set data.dataset.alpha=black or --set data.dataset.alpha=white"
        )
    channels = 3 if mode[0] in "PR" else 1
    if inverted and default is None:
        raise DataError(f"TIFF WhiteIsZero with {depth} values; save it as BlackIsZero or .npy")
    top = default[1] if inverted and default else None
    value_range = _range_of(default, depth, rules)
    return Header(picture.height, picture.width, channels, depth, value_range, alpha, top)


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


def _pixels(picture: Image.Image, header: Header) -> NDArray[Any]:
    """The stored values, upright: (H, W) or (H, W, C), with alpha as the last channel if any."""
    picture.load()
    upright = ImageOps.exif_transpose(picture)
    if header.alpha:
        upright = upright.convert("RGBA" if header.channels == 3 else "LA")
    elif upright.mode == "P":
        upright = upright.convert("RGB")
    return np.asarray(upright)


def _values(stored: NDArray[Any], header: Header, rules: ReadRules) -> NDArray[Any]:
    """Stored values as finite numbers, on what lies behind them where they are transparent."""
    exact = stored.dtype.itemsize <= 2 or stored.dtype == np.float32
    values: NDArray[Any] = stored.astype(np.float32 if exact else np.float64)
    if stored.dtype.kind == "f" and not np.isfinite(values).all():
        bad = values.size - int(np.isfinite(values).sum())
        raise DataError(f"{bad} of {values.size} values are NaN or infinite; expected numbers")
    low, high = header.value_range
    if header.alpha:
        behind = high if rules.alpha == "white" else low
        opacity = values[..., -1:] / 255
        values = values[..., :-1] * opacity + behind * (1 - opacity)
    if header.inverted_from is not None:
        values = header.inverted_from - values
    return values
