"""Files of NIfTI: packed or not, in one piece or two, and nothing believed that cannot be."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from ssmdiff import DataError, PluginBrokenError, printable

_DEFLATE = 1100
"""A byte unpacks to at most so many, by zlib's own bound of 1,032."""
_CHUNK = 2**22
_TRAILING = 2**20
"""Bytes behind the values that are read so that a packed file's own checksum is compared."""


@contextmanager
def errors_name(path: Path) -> Iterator[None]:
    """Turn what a file makes nibabel or a decoder raise into a DataError that names the file."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{printable(path)}: {error}") from None
    except (PluginBrokenError, MemoryError):
        raise
    except OSError as error:
        if error.errno:
            raise DataError(f"{printable(path)}: cannot be read ({error.strerror})") from None
        raise DataError(f"{printable(path)}: it is damaged ({error}). Replace it") from error
    except (EOFError, zlib.error) as error:
        raise DataError(
            f"{printable(path)}: it is cut short or damaged ({error}). Replace it"
        ) from error
    except Exception as error:  # nibabel raises a dozen kinds by what is wrong with a header
        said = f"{type(error).__name__}: {printable(str(error))}"
        raise DataError(
            f"{printable(path)}: a NIfTI header that cannot be used ({said}). Save it anew"
        ) from error


def the_nibabel() -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise PluginBrokenError(
            f"NIfTI files need nibabel, which cannot be imported ({error}): pip install "
            "'ssmdiff[medical]'"
        ) from error
    return nibabel


def unpacked(head: bytes) -> bytes:
    """The beginning of what is in a file of this beginning."""
    if not head.startswith(b"\x1f\x8b"):
        return head
    try:
        return zlib.decompressobj(31).decompress(head, 1024)
    except zlib.error:
        return b""


def kind_of_nifti(head: bytes) -> str | None:
    """``n+1``, ``n+2``, ``ni1`` or ``ni2``, ``analyze``, or None for another format."""
    (size,) = struct.unpack("<i", head[:4]) if len(head) >= 4 else (0,)
    (swapped,) = struct.unpack(">i", head[:4]) if len(head) >= 4 else (0,)
    if 540 in (size, swapped) and head[4:7] in (b"n+2", b"ni2"):
        return head[4:7].decode()
    if 348 in (size, swapped) and len(head) >= 348:
        if head[344:347] in (b"n+1", b"ni1"):
            return head[344:347].decode()
        if head[38:39] == b"r":
            return "analyze"
    return None


@contextmanager
def open_unpacked(path: Path) -> Iterator[IO[bytes]]:
    """The file, unpacked as it is read if it is packed."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not packed:
            yield file
            return
        with gzip.GzipFile(fileobj=file, mode="rb") as inner:
            yield inner  # type: ignore[misc]


def values_of(path: Path) -> Path:
    """The file of the values beside a header."""
    stem = path.name.removesuffix(".gz").removesuffix(".hdr").removesuffix(".HDR")
    for name in (f"{stem}.img", f"{stem}.img.gz", f"{stem}.IMG"):
        if (found := path.with_name(name)).is_file():
            return found
    raise DataError(f"a header alone; expected its values beside it, as {printable(stem)}.img")


def refuse_impossible(path: Path, needed: int) -> None:
    """Refuse a claim that the file cannot hold, before memory is taken for it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    if size * (_DEFLATE if packed else 1) < needed:
        raise DataError(
            f"it is cut short: its header claims {needed} bytes, and it has {size}"
            + (" packed ones" if packed else "")
            + ". Replace it"
        )


def stored_bytes(path: Path, offset: int, size: int) -> NDArray[np.uint8]:
    """So many bytes of values from there on."""
    buffer = np.empty(size, np.uint8)
    place = 0
    with open_unpacked(path) as file:
        _skip(file, offset)
        while place < size and (read := file.read(min(_CHUNK, size - place))):
            buffer[place : place + len(read)] = np.frombuffer(read, np.uint8)
            place += len(read)
        if place < size:
            raise DataError(
                f"it is cut short: {place} bytes of values, and its header claims {size}. "
                "Replace it"
            )
        file.read(_TRAILING)
    return buffer


def _skip(file: IO[bytes], count: int) -> None:
    while count > 0 and (read := file.read(min(_CHUNK, count))):
        count -= len(read)
