"""The reader of NIfTI: volumes and series of volumes, in real values and one orientation.

nibabel reads the header, the affine and the orientation. The values are read here, so that no
memory is taken for what a header claims and a file cannot hold.
"""

from __future__ import annotations

import logging
import math
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from ssmdiff import Affine, DataError, ImageData, ImageHeader, Refused, Source

from ssmdiff_medical.nifti_files import (
    errors_name,
    kind_of_nifti,
    open_unpacked,
    refuse_impossible,
    stored_bytes,
    the_nibabel,
    unpacked,
    values_of,
)

MOST_BYTES = 2**33
"""So much memory the values of one file may take."""
_ODD_DEGREES = 20.0
_TO_MM = {1: 1000.0, 2: 1.0, 3: 0.001}
"""NIfTI's codes of lengths: metre, millimetre, micrometre; 0 is taken for millimetres."""
_CANONICAL = ("L", "P", "S")
"""x grows towards the left, y towards the back, z towards the head."""
_SILENT = logging.getLogger("ssmdiff_medical.nifti.header")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False


class _Volume(NamedTuple):
    """What a header says, and how its voxels are turned."""

    dtype: np.dtype[Any]
    stored: tuple[int, ...]
    """(x, y, z) or (x, y, z, t), as they lie in the file, the first fastest."""
    offset: int
    slope: float
    inter: float
    turns: NDArray[Any]
    header: ImageHeader

    @property
    def scaled(self) -> bool:
        return (self.slope, self.inter) != (1.0, 0.0)

    @property
    def claimed(self) -> int:
        return math.prod(self.stored) * self.dtype.itemsize

    @property
    def result(self) -> np.dtype[Any]:
        """As stored if nothing is scaled; else float32 where that holds it, or float64."""
        if not self.scaled:
            return self.dtype.newbyteorder("=")
        exact = self.dtype.itemsize <= (4 if self.dtype.kind == "f" else 2)
        return np.dtype(np.float32 if exact else np.float64)


class NiftiReader:
    """NIfTI-1 and NIfTI-2: ``.nii``, ``.nii.gz``, and pairs of ``.hdr`` and ``.img``.

    Slope and intercept are applied. Volumes are turned, without resampling, to the orientation of
    :class:`ssmdiff.ImageHeader` that is nearest to their affine; the fourth axis is time. Voxels
    that are NaN or infinite count as not imaged.

    Args:
        max_bytes: Most memory that the values of one file may claim.
    """

    suffixes = frozenset({".nii", ".nii.gz", ".hdr"})

    def __init__(self, max_bytes: Annotated[int, Field(ge=1)] = MOST_BYTES) -> None:
        self.max_bytes = max_bytes

    def claims(self, path: Path, head: bytes) -> bool:
        return kind_of_nifti(unpacked(head)) is not None

    def sources(self, root: Path, files: Iterable[Path]) -> Iterable[Source | Refused]:
        """A file each, or a header and its values."""
        for path in files:
            name = path.relative_to(root).as_posix()
            try:
                with errors_name(path), open_unpacked(path) as file:
                    kind = kind_of_nifti(file.read(540))
                    pair = kind in ("ni1", "ni2")
                    yield Source((path, values_of(path)) if pair else (path,), name)
            except DataError as error:
                yield Refused(name, str(error))

    def header(self, source: Source) -> ImageHeader:
        return self._volume(source).header

    def read(self, source: Source) -> ImageData:
        found = self._volume(source)
        with errors_name(source.files[-1]):
            raw = stored_bytes(source.files[-1], found.offset, found.claimed)
            return _turned(raw.view(found.dtype).reshape(found.stored, order="F"), found)

    def examples(self, folder: Path) -> None:
        """A volume, a packed one with times, and a pair."""
        nibabel = the_nibabel()
        stored = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
        affine = np.diag([2.0, 2.0, 3.0, 1.0])
        nibabel.Nifti1Image(stored, affine).to_filename(folder / "volume.nii")
        times = nibabel.Nifti2Image(np.stack([stored] * 2, axis=-1).astype(np.float64), affine)
        times.set_data_dtype(np.int16)
        times.to_filename(folder / "times.nii.gz")
        nibabel.Nifti1Pair(stored, affine).to_filename(folder / "pair.hdr")

    def _volume(self, source: Source) -> _Volume:
        with errors_name(source.files[0]):
            header, offset = _header(source.files[0])
            found = _described(header, offset, source)
            taken = math.prod(found.stored) * max(found.dtype.itemsize, found.result.itemsize)
            if taken > self.max_bytes:
                raise DataError(
                    f"it claims {' x '.join(map(str, found.stored))} voxels, {taken / 1e9:.3g} GB, "
                    f"and at most {self.max_bytes / 1e9:.3g} GB are read at once. If that is true, "
                    "cut it into several files"
                )
            refuse_impossible(source.files[-1], found.offset + found.claimed)
            return found


def _header(path: Path) -> tuple[Any, int]:
    """nibabel's header, checked, and where the values begin."""
    nibabel = the_nibabel()
    with open_unpacked(path) as file:
        head = file.read(540)
        kind = kind_of_nifti(head)
        if kind == "analyze":
            raise DataError(
                "Analyze 7.5, which does not say which side is left. Convert it to NIfTI with the "
                "program that wrote it"
            )
        if kind is None:
            raise DataError("it is cut short or no NIfTI file any more. Replace it")
        two, pair = kind.endswith("2"), kind.startswith("ni")
        name = f"Nifti{2 if two else 1}{'Pair' * pair}Header"
        header = getattr(nibabel.nifti2 if two else nibabel.nifti1, name)(
            head[: 540 if two else 348], check=False
        )
        if two and len(head) < 540:
            raise DataError("it is cut short in its header. Replace it")
        header.check_fix(logger=_SILENT, error_level=40)
        offset = int(header["vox_offset"])
        least = 0 if pair else 540 if two else 348
        if not least <= offset < 2**31:
            raise DataError(f"its values begin at byte {offset}; expected {least} or more")
    return header, offset


def _described(header: Any, offset: int, source: Source) -> _Volume:
    """The header in our words."""
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise DataError(
            f"values of type {_type_name(header, dtype)}; expected real numbers of at most 64 bits"
        )
    shape = tuple(int(n) for n in header.get_data_shape())
    if len(shape) < 2 or min(shape) < 1:
        raise DataError(f"an image of shape {shape}; expected 2 to 4 axes, each at least 1 long")
    if any(n > 1 for n in shape[4:]):
        raise DataError(
            f"an image of {len(shape)} axes, {' x '.join(map(str, shape))}; expected volumes of 3 "
            "axes, or 4 with time. Save each part as a file of its own"
        )
    stored = (*shape, 1)[:3] if len(shape) < 4 or shape[3] == 1 else shape[:4]
    slope, inter = header.get_slope_inter()
    slope, inter = (
        (1.0 if slope is None else float(slope)),
        (0.0 if inter is None else float(inter)),
    )
    affine, warnings = _affine(header)
    turns, placed = _orientation(affine, stored[:3], header)
    if np.isnan(turns).any():
        raise DataError("an affine that flattens an axis; expected one that places every voxel")
    sizes = [stored[int(i)] for i in np.argsort(turns[:, 0])]
    spacing = _spacing(header, affine, turns)
    axes = "zyx" if len(stored) == 3 else "tzyx"
    depth = dtype.newbyteorder("=").name + (", scaled" if (slope, inter) != (1.0, 0.0) else "")
    facts = {}
    if math.isfinite(low := float(header["cal_min"])) and low < float(header["cal_max"]):
        facts["display_range"] = f"{low:g} to {float(header['cal_max']):g}"
    ours = ImageHeader(
        (*stored[3:], *sizes[::-1]),
        axes,
        depth,
        spacing=spacing,
        affine=placed,
        facts=facts,
        warnings=(*warnings, *_carried(source.files[0], offset, header)),
    )
    return _Volume(dtype, stored, offset, slope, inter, turns, ours)


def _type_name(header: Any, dtype: np.dtype[Any]) -> str:
    return "RGB colour" if dtype.names else str(dtype.newbyteorder("="))


def _affine(header: Any) -> tuple[NDArray[np.float64] | None, list[str]]:
    """Voxels to millimetres by the sform, else the qform, None if neither is there; doubts."""
    scale = _TO_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    forms = {}
    for name, get in (("sform", header.get_sform), ("qform", header.get_qform)):
        try:
            matrix, code = get(coded=True)
        except Exception:  # a quaternion that is none
            continue
        if code and np.isfinite(matrix).all() and abs(np.linalg.det(matrix[:3, :3])) > 1e-12:
            forms[name] = np.diag([scale, scale, scale, 1.0]) @ matrix
    if not forms:
        return None, [
            "the header states no orientation: left and right cannot be trusted, and the voxels "
            "are taken to lie as most programs write them"
        ]
    name, affine = next(iter(forms.items()))
    doubts = []
    axcodes = the_nibabel().aff2axcodes
    if len({axcodes(matrix) for matrix in forms.values()}) > 1:
        doubts.append(f"sform and qform state different orientations; the {name} is used")
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    tilt = float(np.degrees(np.arccos(np.clip(np.abs(directions).max(axis=0).min(), 0, 1))))
    if tilt > _ODD_DEGREES:
        doubts.append(
            f"its axes are {tilt:.0f} degrees off those of the body; nothing is resampled"
        )
    return affine, doubts


def _orientation(
    affine: NDArray[np.float64] | None, shape: tuple[int, ...], header: Any
) -> tuple[NDArray[Any], Affine | None]:
    """How the voxels are turned to be canonical, and the affine of those."""
    orientations = the_nibabel().orientations
    known = affine if affine is not None else header.get_base_affine()
    if not np.isfinite(known).all() or abs(np.linalg.det(known[:3, :3])) < 1e-12:
        known = np.diag([-1.0, 1.0, 1.0, 1.0])  # where the base affine has no lengths either
    turns = orientations.ornt_transform(
        orientations.io_orientation(known), orientations.axcodes2ornt(_CANONICAL)
    )
    if affine is None:
        return turns, None
    placed = affine @ orientations.inv_ornt_aff(turns, shape)
    return turns, tuple(tuple(float(n) for n in row) for row in placed)


def _spacing(
    header: Any, affine: NDArray[np.float64] | None, turns: NDArray[Any]
) -> tuple[float, ...] | None:
    """Millimetres along z, y and x as they come out."""
    if affine is not None:
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
    else:
        scale = _TO_MM.get(int(header["xyzt_units"]) & 7, 1.0)
        lengths = np.abs(np.asarray(header["pixdim"][1:4], float)) * scale
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        return None
    return tuple(float(lengths[i]) for i in np.argsort(turns[:, 0])[::-1])


def _carried(path: Path, offset: int, header: Any) -> list[str]:
    """A header of DICOM within an extension may name the patient."""
    first = int(header["sizeof_hdr"]) + 4
    if offset - first < 8 or not str(header["magic"].item(), "latin-1").startswith("n+"):
        return []
    with open_unpacked(path) as file:
        data = file.read(min(offset, first + 2**16))
    place = first
    while data[first - 4 : first - 3] == b"\x01" and place + 8 <= len(data):
        size, code = struct.unpack(header.endianness + "ii", data[place : place + 8])
        if code == 2:
            return ["it carries a DICOM header, which may name the patient: nothing of it is used"]
        if size < 16:
            break
        place += size
    return []


def _turned(stored: NDArray[Any], found: _Volume) -> ImageData:
    """Real values in the canonical orientation: (z, y, x) or (t, z, y, x)."""
    orientations = the_nibabel().orientations
    times = stored if stored.ndim == 4 else stored[..., None]
    values = np.empty((times.shape[3], *found.header.shape[-3:]), found.result)
    for t in range(times.shape[3]):
        turned = orientations.apply_orientation(times[..., t], found.turns).transpose(2, 1, 0)
        for z, plane in enumerate(turned):
            if found.scaled:
                plane = plane.astype(np.float64) * found.slope + found.inter
            values[t, z] = plane
    values = values.reshape(found.header.shape)
    if values.dtype.kind != "f" or (valid := np.isfinite(values)).all():
        return ImageData(values, found.header)
    if not valid.any():
        raise DataError("all values are NaN or infinite; expected numbers")
    values[~valid] = 0
    return ImageData(values, found.header, valid)
