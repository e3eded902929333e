"""Opens pictures by Pillow, and says by its right name what is wrong with one that does not open.

A file is *damaged* only where a decoder says so; what Pillow does not read is *unsupported*, and
what the system refuses is that. Texts and colour profiles in a PNG are no pixels: one that is too
large for Pillow is passed over.
"""

from __future__ import annotations

import io
import json
import math
import re
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError
from ssmdiff import DataError, printable

FORMATS = ("PNG", "TIFF", "JPEG")
PNG_START = 26
"""Signature and header of a PNG, up to its bit depth and colour type."""
_MOST_PAGES = 1000
MOST_SLICES = 10_000
_PLAIN = 1000
"""So few bytes unpack to less than Pillow's limit, whatever they are."""
_NO_PIXELS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_ORIENTATION = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
"""Texts that may say which side is up."""
_SIGNATURES = (
    (0, b"\x89PNG", "PNG"), (0, b"II*\0", "TIFF"), (0, b"MM\0*", "TIFF"), (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"), (0, b"\xff\xd8\xff", "JPEG"), (0, b"\x93NUMPY", "npy"),
    (128, b"DICM", "DICOM"), (8, b"WEBP", "WebP"), (0, b"BM", "BMP"), (0, b"GIF8", "GIF"),
    (4, b"ftypheic", "HEIC"), (4, b"ftypmif1", "HEIC"), (4, b"ftypavif", "AVIF"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"), (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\x89HDF", "HDF5"), (0, b"PK\x03\x04", "ZIP"), (0, b"\x1f\x8b", "gzip"),
    (0, b"%PDF", "PDF"),
)  # fmt: skip
_DAMAGED = re.compile(
    r"truncated|broken|corrupt|unrecognized data stream|not enough|incomplete|bad (?:chunk|CRC|"
    r"checksum)|premature|unexpected end|buffer is not large enough|expected \d+|decoder error",
    re.IGNORECASE,
)
_UNSUPPORTED = re.compile(
    r"not available|not supported|unsupported|unknown (?:raw|pixel) mode|unknown compression|"
    r"cannot handle|unrecognized (?:image|raw) mode|not implemented",
    re.IGNORECASE,
)


def kind_of(mode: int) -> str:
    """What a ``st_mode`` stands for, in words."""
    names = ((stat.S_ISREG, "a file"), (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a FIFO"))
    for test, name in (*names, (stat.S_ISSOCK, "a socket")):
        if test(mode):
            return name
    return "a device"


def content_kind(start: bytes) -> str | None:
    """What the first 132 bytes of a file say that it is; None if they say nothing known."""
    return next((name for at, mark, name in _SIGNATURES if start[at:].startswith(mark)), None)


@contextmanager
def errors_name(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises on a bad file into a DataError that names the file."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{printable(path)}: {error}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{printable(path)}: {error}") from None
    except UnidentifiedImageError:
        raise DataError(f"{printable(path)}: {_unidentified(path)}") from None
    except MemoryError:  # such as of a chunk of PNG that claims 2 GB
        raise DataError(
            f"{printable(path)}: it asks for more memory than there is. It is damaged and claims "
            "more than it holds, or memory is short: close what else runs, or replace it"
        ) from None
    except Exception as error:
        # Pillow's readers raise OSError, SyntaxError, ValueError, struct.error and more by format.
        raise DataError(f"{printable(path)}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    said = f"{type(error).__name__}: {printable(str(error))}"
    leave_out = "or leave such files out with --set data.dataset.on_bad=quarantine"
    if isinstance(error, OSError) and error.errno:
        return f"cannot be read ({error.strerror}). Mend that, {leave_out}"
    if _UNSUPPORTED.search(str(error)) or isinstance(error, NotImplementedError):
        return f"of a kind that Pillow does not read ({said}). Save it as plain PNG or .npy"
    broken = isinstance(error, (EOFError, SyntaxError, struct.error))
    if broken or _DAMAGED.search(str(error)):
        return f"it is cut short or damaged ({said}). Replace it, {leave_out}"
    return (
        f"cannot be read ({said}). It may be damaged, or sound and of a kind that Pillow does not "
        f"read. Save it anew as PNG or .npy, {leave_out}"
    )


def _unidentified(path: Path) -> str:
    """What the file is instead, or what about it Pillow does not read."""
    with path.open("rb") as file:
        start = file.read(132)
        kind = content_kind(start)
        if kind not in FORMATS:
            found = (
                f"by its content it is {kind}" if kind else "its first bytes are of no kind known"
            )
            return f"not a PNG, TIFF or JPEG image: {found}"
        try:
            told = {"TIFF": _told_by_tiff, "JPEG": _told_by_jpeg}.get(kind, lambda _: "")(file)
        except Exception:  # the header is what is damaged
            told = ""
    if told:
        return f"{told}, which Pillow does not read. Save it as 8-bit PNG or as .npy"
    return f"a {kind} whose header is cut short or damaged. Replace it"


def _told_by_tiff(file: Any) -> str:
    file.seek(0)
    tags: Any = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
    file.seek(tags.next)
    tags.load(file)
    bits, compression = tags.get(258, (1,)), tags.get(259, 1)
    form = {1: "unsigned", 2: "signed", 3: "float", 5: "complex", 6: "complex"}
    sign = form.get(tags.get(339, (1,))[0], "untyped")
    if not tags.get(256) or not tags.get(257):
        return ""
    return (
        f"a TIFF of {tags.get(277, 1)} {sign} values of {'/'.join(map(str, sorted(set(bits))))} "
        f"bits a pixel, photometric {tags.get(262)}, compression {compression}"
    )


def _told_by_jpeg(file: Any) -> str:
    """A JPEG of another precision or process than Pillow's."""
    file.seek(2)
    while True:
        mark, code, length = struct.unpack(">BBH", file.read(4))
        if mark != 0xFF:
            return ""
        if 0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC):
            return f"a JPEG of {file.read(1)[0]} bits, process SOF{code - 0xC0}"
        file.seek(length - 2, io.SEEK_CUR)


@contextmanager
def open_picture(path: Path) -> Iterator[tuple[Image.Image, bytes]]:
    """A picture of which the header is read, and the first bytes of its file.

    Pillow gets an open file, never a name: given a name, it maps an uncompressed TIFF into memory,
    and scrambles one that its Orientation tag turns by 90 degrees (Pillow 13.0).
    """
    with path.open("rb") as file:
        start = file.read(PNG_START)
        file.seek(0)
        source: Any = file
        if start.startswith(b"\x89PNG") and _has_large_texts(file):
            source = _without_texts(file)
        with Image.open(source, formats=FORMATS) as picture:
            yield picture, start


def _chunks(file: Any) -> Iterator[tuple[bytes, int, int]]:
    """(type, start of the whole chunk, bytes of its content) of a PNG, as far as it is sound."""
    file.seek(0, io.SEEK_END)
    size, place = file.tell(), 8
    while place + 12 <= size:
        file.seek(place)
        length, kind = struct.unpack(">I4s", file.read(8))
        if place + 12 + length > size:
            break
        yield kind, place, length
        place += 12 + length


def _has_large_texts(file: Any) -> bool:
    """Whether a text or profile, or all of them, are larger than Pillow reads."""
    sizes = []
    for kind, place, length in _chunks(file):
        if kind in _NO_PIXELS:
            file.seek(place + 8)
            sizes.append(length if length <= _PLAIN else _unpacked(kind, file.read(length)))
    file.seek(0)
    return sum(sizes) > PngImagePlugin.MAX_TEXT_CHUNK


def _unpacked(kind: bytes, content: bytes) -> int:
    """Bytes of a text or profile once unpacked, or one more than Pillow unpacks."""
    _, _, rest = content.partition(b"\0")
    if kind == b"iTXt":
        rest = rest[:1] + rest[2:].split(b"\0", 2)[-1] if rest[:1] == b"\1" else b""
    if kind == b"tEXt" or not rest:
        return len(content)
    try:
        return len(zlib.decompressobj().decompress(rest[1:], PngImagePlugin.MAX_TEXT_CHUNK + 1))
    except zlib.error:
        return len(content)


def _without_texts(file: Any) -> io.BytesIO:
    """The same PNG without profile and texts, but for what may say which side is up."""
    kept, end = io.BytesIO(), 8
    file.seek(0)
    kept.write(file.read(8))
    for kind, place, length in _chunks(file):
        end = place + 12 + length
        file.seek(place)
        whole = file.read(12 + length)
        if kind not in _NO_PIXELS or whole[8:].startswith(_ORIENTATION):
            kept.write(whole)
    file.seek(end)
    kept.write(file.read())  # what is cut short is Pillow's to find
    kept.seek(0)
    return kept


def refuse_several_planes(picture: Image.Image) -> None:
    """Refuse pages, frames and stacks: one of their planes would be trained on.

    Raises:
        DataError: There are several, with their number.
    """
    if picture.format == "TIFF":
        pages = _pages(picture)
        stacked = 1 if pages > 1 else _stacked(picture)
        if stacked > 1:
            raise DataError(
                f"a stack of {stacked} planes in one TIFF page; save each as a file of its own"
            )
        count = f"{pages - 1} or more" if pages > _MOST_PAGES else str(pages)
    else:
        pages = getattr(picture, "n_frames", 1)
        count = str(pages)
    if pages > 1:
        raise DataError(
            f"it holds several pages or frames: {count} planes; save each as a file of its own, or "
            "make a store of them: ssmdiff data prepare"
        )


def stack_axes(picture: Image.Image) -> tuple[tuple[int, ...], str] | None:
    """Sizes and axes of the pages of a TIFF before each page's own, None where there is one page.

    Pages are slices, but where ImageJ noted times.

    Raises:
        DataError: They are channels, or too many.
    """
    if picture.format != "TIFF" or (pages := _pages(picture, MOST_SLICES)) == 1:
        return None
    if pages > MOST_SLICES:
        raise DataError(f"more than {MOST_SLICES} pages; cut it into several files")
    noted = _noted_by_imagej(picture)
    times, slices, channels = (noted.get(name, 1) for name in ("frames", "slices", "channels"))
    if times * slices * channels != pages:
        return (pages,), "z"
    if channels > 1:
        raise DataError(
            f"a stack of {pages} pages of which {channels} each are channels; save each channel "
            "as a file of its own"
        )
    if times == 1 or slices == 1:
        return (pages,), "z" if times == 1 else "t"
    return (times, slices), "tz"


def _noted_by_imagej(picture: Image.Image) -> dict[str, int]:
    tags: Any = getattr(picture, "tag_v2", {})
    text = str(tags.get(270, ""))
    if not text.startswith("ImageJ="):
        return {}
    found = re.findall(r"^(images|slices|frames|channels)=(\d{1,9})", text, re.M)
    return {name: int(value) for name, value in found}


def _pages(picture: Image.Image, most: int = _MOST_PAGES) -> int:
    """Pages of a TIFF; a file may have any number, so they are counted so far and no further."""
    count = 1
    try:
        while count <= most:
            picture.seek(count)
            count += 1
    except EOFError:
        pass
    picture.seek(0)
    return count


def _stacked(picture: Image.Image) -> int:
    """Planes that lie one behind the other in a single page, as its writer noted them."""
    tags: Any = getattr(picture, "tag_v2", {})
    text = str(tags.get(270, ""))
    if noted := _noted_by_imagej(picture):
        product = math.prod(noted.get(name, 1) for name in ("slices", "frames", "channels"))
        return noted.get("images", product)
    shape: Any = re.match(r"shape=\(([\d, ]+)\)", text)
    if shape:
        shape = [int(word) for word in shape[1].replace(" ", "").strip(",").split(",")]
    elif text.startswith("{"):
        try:
            shape = json.loads(text)["shape"]
        except (ValueError, KeyError, TypeError, RecursionError):
            shape = None
    if isinstance(shape, list) and all(type(n) is int and n > 0 for n in shape):
        return int(math.prod(shape) // (picture.height * picture.width * tags.get(277, 1)))
    if 33629 in tags:  # UIC2 of MetaMorph: a value for each plane
        return len(tags[33629])
    return int(tags.get(32997, 1))  # ImageDepth of SGI
