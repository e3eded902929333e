"""A DICOM file opened: what is one, how far it may be believed, and what is said of a damaged one.

A length that a file claims is held against the bytes that are there before anything is read.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from ssmdiff import DataError

MOST_UNPACKED = 2**30
"""Bytes that a deflated file may unpack to."""
_VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR "
    b"US UT UV".split()
)


class _Bounded(io.BufferedReader):
    """A file of which never more is asked for than it has: a claimed length allocates nothing."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.size = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(self.size - self.tell(), 0)
        return super().read(left if size is None or size < 0 else min(size, left))


def looks_like_dicom(head: bytes) -> bool:
    """Whether a file begins as DICOM does: after a preamble, or with its first element."""
    if head[128:132] == b"DICM":
        return True
    if len(head) < 16:
        return False
    group, _, length = struct.unpack_from("<HHI", head)
    if group in (0x0002, 0x0008) or head[:2] == b"\0\x08":
        if head[4:6] in _VRS:
            return True
        after = head[8 + length : 10 + length]
        return group in (0x0002, 0x0008) and length < 512 and after in (b"\x08\0", b"\x02\0")
    return False


@contextmanager
def errors_named(path: Path, what: str = "its header is cut short or damaged") -> Iterator[None]:
    """Whatever a damaged file makes a library raise as one sentence, without what it quotes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except DataError as error:
        said = str(error)
        raise DataError(said if said.startswith(str(path)) else f"{path}: {said}") from None
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or type(error).__name__})"
        ) from None
    except MemoryError:
        raise DataError(f"{path}: there is not enough memory for what it claims to hold") from None
    except Exception as error:  # pydicom and its decoders raise nearly every kind
        kind = type(error).__name__
        raise DataError(f"{path}: {what} ({kind}). Replace the file, or leave it out") from error


@contextmanager
def opened(
    path: Path, tags: Sequence[str], pixels: bool = False
) -> Iterator[tuple[Dataset, int | None]]:
    """These elements of a file, and how many bytes of pixels follow them; None if not known.

    Raises:
        DataError: It is empty, no DICOM, an index of other files, or would unpack to too much.
    """
    with _Bounded(path) as file:
        if file.size == 0:
            raise DataError("the file is empty (0 bytes)")
        head = file.read(4096)
        if not looks_like_dicom(head):
            raise DataError(
                "no DICOM by its content: neither DICM at byte 128 nor an element of group 2 or 8 "
                "at its start"
            )
        file.seek(0)
        wanted: list[Any] = list(tags)
        source: Any = file
        if head[128:132] == b"DICM" and DeflatedExplicitVRLittleEndian.encode() in head:
            source = _checked_deflated(file)
        dataset = pydicom.dcmread(
            source, stop_before_pixels=not pixels, force=True, specific_tags=wanted
        )
        implicit, _ = dataset.original_encoding
        before = 8 if implicit else 12  # tag, kind and length of the pixels
        yield dataset, file.size - file.tell() - before if source is file else None


def _checked_deflated(file: _Bounded) -> io.BytesIO:
    """The same bytes, once they are known to unpack to a bounded size."""
    data = file.read()
    length = struct.unpack_from("<I", data, 140)[0] if data[132:136] == b"\2\0\0\0" else 0
    unpacked = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[144 + length :], MOST_UNPACKED)
    if len(unpacked) >= MOST_UNPACKED:
        raise DataError(f"deflated, and it unpacks to {MOST_UNPACKED:,} bytes or more")
    return io.BytesIO(data)


def syntax_of(dataset: Dataset) -> UID:
    """The transfer syntax; of a file without file meta, what it was read as."""
    found = getattr(dataset, "file_meta", Dataset()).get("TransferSyntaxUID")
    if found:
        return UID(str(found))
    implicit, little = dataset.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian
