"""What a folder holds: the image files that are read, and what is left out, by kind."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ssmdiff import DataError, printable

from ssmdiff_data.decoding import content_kind, kind_of
from ssmdiff_data.pictures import SUFFIXES

_LISTED = 5
_KINDS = {
    ".bmp": "BMP", ".webp": "WebP", ".gif": "GIF", ".dcm": "DICOM", ".dicom": "DICOM",
    ".ima": "DICOM", ".nii": "NIfTI", ".nrrd": "NRRD", ".mha": "MetaImage", ".mhd": "MetaImage",
    ".jp2": "JPEG 2000", ".j2k": "JPEG 2000", ".heic": "HEIC", ".avif": "AVIF", ".npz": "NPZ",
    ".svs": "SVS", ".ndpi": "NDPI", ".czi": "CZI", ".lsm": "LSM", ".nd2": "ND2", ".mrc": "MRC",
    ".ppm": "PPM", ".pgm": "PGM", ".exr": "EXR", ".hdr": "HDR", ".tga": "TGA", ".ico": "ICO",
    ".svg": "SVG", ".pdf": "PDF", ".h5": "HDF5", ".hdf5": "HDF5", ".mat": "MAT", ".zip": "ZIP",
    ".tar": "TAR", ".mp4": "MP4", ".avi": "AVI", ".jxl": "JPEG XL", ".jfif": "JFIF",
}  # fmt: skip
"""What a person calls the files of a suffix; files of other suffixes are called by the suffix."""


class Found(NamedTuple):
    """What a folder holds."""

    images: list[str]
    """Relative paths with ``/``, sorted by their bytes."""
    folders: list[str]
    """Names of the folders directly in it, sorted."""
    left_out: Mapping[str, list[str]]
    """Relative paths of all other files, by their kind: ``DICOM``, ``WebP``, ``.csv``, ..."""
    places: tuple[Path, ...]
    """Every real folder that an image was looked for in, and those that links to files lead to."""


def find_images(root: Path) -> Found:
    """Every image file under ``root``, by suffix alone. Each real folder is entered once.

    Raises:
        DataError: ``root`` is no folder, cannot be listed, or holds no image.
    """
    try:
        status = root.stat()
    except OSError as error:
        raise DataError(
            f"no folder {printable(root)} ({error.strerror}); expected a folder of images"
        ) from None
    if not stat.S_ISDIR(status.st_mode):
        raise DataError(
            f"{printable(root)} is {kind_of(status.st_mode)}; expected a folder of images"
        )
    images: list[str] = []
    folders: list[str] = []
    left_out: dict[str, list[str]] = {}
    entered = {(status.st_dev, status.st_ino): root.resolve()}
    linked: set[Path] = set()
    pending = [""]
    while pending:
        within = pending.pop()
        inner = []
        for entry in _entries(root / within):
            name = f"{within}/{entry.name}" if within else entry.name
            if entry.name.startswith("."):
                left_out.setdefault("hidden", []).append(name)
            elif _is_folder(entry):
                inner.append(name)
            elif PurePosixPath(entry.name).suffix.lower() in SUFFIXES:
                images.append(name)
                if entry.is_symlink():
                    linked.add(Path(os.path.realpath(entry.path)).parent)
            else:
                left_out.setdefault(kind_by_name(Path(entry.path)), []).append(name)
        if not within:
            folders = inner
        for name in reversed(inner):
            status = (root / name).stat()
            if (status.st_dev, status.st_ino) not in entered:
                entered[status.st_dev, status.st_ino] = (root / name).resolve()
                pending.append(name)
    if not images:
        raise DataError(
            f"no images in {printable(root)}; expected files that end in "
            f"{', '.join(sorted(SUFFIXES))}. Other files there: {in_words(left_out) or 'none'}"
            + (f". ssmdiff data show {printable(root)} says who reads them" if left_out else "")
        )
    places = (*entered.values(), *sorted(linked))
    return Found(sorted(images, key=os.fsencode), folders, left_out, places)


def in_words(left_out: Mapping[str, list[str]]) -> str:
    """``20 BMP, 5 DICOM, 1 .csv (table.csv)``: the commonest first, by name where they are few."""
    words = []
    ordered = sorted(left_out.items(), key=lambda item: (-len(item[1]), item[0]))
    for kind, names in ordered:
        few = f" ({', '.join(map(printable, names))})" if len(names) < _LISTED else ""
        words.append(f"{len(names)} {printable(kind)}{few}")
    if len(words) > 2 * _LISTED:
        words[2 * _LISTED :] = [f"and {len(words) - 2 * _LISTED} other kinds"]
    return ", ".join(words)


def kind_by_name(path: Path) -> str:
    """By the suffix; a file without one that tells anything is asked what it holds."""
    name = path.name.lower()
    suffix = PurePosixPath(name.removesuffix(".gz")).suffix
    if suffix in _KINDS:
        return _KINDS[suffix]
    if suffix[1:].isalpha():
        return suffix
    try:
        if not path.is_file():
            return "neither file nor folder"
        with path.open("rb") as file:
            return content_kind(file.read(132)) or "no suffix"
    except OSError:
        return "no suffix"


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, sorted by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        raise DataError(f"cannot list the folder {printable(folder)}: {error.strerror}") from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: no folder
        return False
