"""Files that readers know by their content, to be damaged and read: volumes, stacks, archives."""

from __future__ import annotations

import gzip
import io
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

import mutations
import nibabel
import numpy as np
import ssmdiff
from fuzzing import Mutate, Opener
from PIL import Image

RNG = np.random.default_rng(0)
FIELDS = (
    (0, "i"), *((40 + 2 * k, "h") for k in range(8)), (70, "h"), (72, "h"),
    *((76 + 4 * k, "f") for k in range(8)), (108, "f"), (112, "f"), (116, "f"), (123, "B"),
    (124, "f"), (128, "f"), (252, "h"), (254, "h"), *((256 + 4 * k, "f") for k in range(18)),
    (348, "I"),
)  # fmt: skip
"""Of NIfTI-1: its size, dim, datatype, bitpix, pixdim, vox_offset, slope, intercept, units, display
range, codes of the forms, the quaternion and its offsets, the sform, the flag of extensions."""
FLOATS = (0.0, -1.0, 1e-38, 1e38, float("nan"), float("inf"), 351.0, 353.0, 1e9, 2.0**31)


def nifti(rng: random.Random, data: bytes) -> bytes:
    """Fields of the header, in either order of bytes now and then; or bytes anywhere."""
    if rng.random() < 0.3:
        return mutations.some_bytes(rng, data)
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        place, form = rng.choice(FIELDS)
        order = rng.choice("<<<>")
        if form == "f":
            struct.pack_into(order + form, changed, place, rng.choice(FLOATS))
        else:
            size = struct.calcsize(form)
            number = rng.choice(mutations.NUMBERS) & 256**size - 1
            changed[place : place + size] = number.to_bytes(
                size, "little" if order == "<" else "big"
            )
    return bytes(changed)


def packed(rng: random.Random, data: bytes) -> bytes:
    """The same behind a sound checksum, or the packed bytes themselves."""
    if rng.random() < 0.4:
        return mutations.some_bytes(rng, data)
    return gzip.compress(nifti(rng, gzip.decompress(data)), mtime=0)


def npz(rng: random.Random, data: bytes) -> bytes:
    """An array within a sound archive, or the archive."""
    if rng.random() < 0.4:
        return mutations.some_bytes(rng, data)
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as whole, zipfile.ZipFile(file, "w") as archive:
        for name in whole.namelist():
            archive.writestr(name, mutations.npy(rng, whole.read(name)))
    return file.getvalue()


def _open(folder: Path) -> list[tuple[ssmdiff.ImageHeader, ssmdiff.ImageData]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    found = ssmdiff.gather(folder, files)
    if found.refused or not found.sources:
        raise ssmdiff.DataError(found.refused[0].reason if found.refused else "nobody's any more")
    readers, _ = ssmdiff.make_readers()
    return [(readers[of].header(s), readers[of].read(s)) for of, s in found.sources]


def _are_as_their_headers_say(folder: Path, found: list[tuple[Any, Any]]) -> None:
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    inside = sum(len(_whole(data)) for data in files)
    for header, data in found:
        assert header.shape == data.values.shape == data.header.shape
        assert np.isfinite(data.values).all()
        assert data.values.dtype.kind in "buif"
        assert data.values.size <= 8 * inside, "more values than the files hold bits"
        if header.affine is not None:
            assert abs(np.linalg.det(np.array(header.affine))) > 0
        assert all("\n" not in text for text in header.warnings)


def _whole(data: bytes) -> bytes:
    try:
        return gzip.decompress(data)
    except Exception:  # another format, or damage behind the values
        return data * 1100 if data.startswith((b"\x1f\x8b", b"PK", b"II*")) else data


def files() -> dict[str, Opener]:
    values = RNG.integers(0, 999, (6, 7, 5), dtype=np.int16)
    affine = np.array([[0, -2.0, 0, 5], [2, 0, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1]])
    plain = nibabel.Nifti1Image(values, affine).to_bytes()
    times = nibabel.Nifti1Image(np.stack([values / 7] * 3, axis=-1), affine)
    times.set_data_dtype(np.int16)
    pages = [Image.fromarray(values[..., k].astype(np.uint16)) for k in range(5)]
    stack, archive = io.BytesIO(), io.BytesIO()
    pages[0].save(stack, "TIFF", save_all=True, append_images=pages[1:])
    np.savez_compressed(archive, image=values, label=np.int64(3))
    forms: dict[str, tuple[bytes, Mutate]] = {
        "volume.nii": (plain, nifti),
        "times.nii.gz": (gzip.compress(times.to_bytes(), mtime=0), packed),
        "stack.tif": (stack.getvalue(), mutations.tiff),
        "arrays.npz": (archive.getvalue(), npz),
    }
    return {
        f"read {name}": Opener({name: data}, {name: mutate}, _open, _are_as_their_headers_say)
        for name, (data, mutate) in forms.items()
    }
