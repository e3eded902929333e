"""Slices put together: which belong to one volume, in which order, and where it lies.

Order and spacing come from where the slices lie along their normal, never from file names,
InstanceNumber or SliceThickness.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from numpy.typing import NDArray
from ssmdiff import DataError

from ssmdiff_medical.dicom_header import Frame, Head

SAME_MM = 1e-3
"""Slices that are not farther apart lie at one place."""
UNEVEN = 0.1
"""How far a distance between slices may be from the commonest, as a part of it."""
_SAME_DIRECTION = 1e-3
_TILT_DEGREES = 1.0
_OBLIQUE_DEGREES = 20.0
_CANONICAL = ("L", "P", "S")
"""x towards the patient's left, y to the back, z to the head: docs/data.md."""


class Place(NamedTuple):
    """Where a stack of frames lies."""

    order: tuple[int, ...]
    """The frames along their normal."""
    affine: NDArray[np.float64]
    """Indices (column, row, slice) to millimetres to the right, the front and the head."""
    warnings: tuple[str, ...]


def refuse_mixed(heads: Sequence[Head]) -> None:
    """Check that the files of a series are slices of one volume.

    Raises:
        DataError: They differ in what slices share.
    """
    kinds = {
        "sizes": {f"{h.rows} x {h.columns}" for h in heads},
        "depths": {f"{h.stored} of {h.allocated} bits{', signed' * h.signed}" for h in heads},
        "photometric interpretations": {h.photometric for h in heads},
        "patients": {h.patient for h in heads},
    }
    for what, found in kinds.items():
        if len(found) > 1:
            listed = "" if what == "patients" else f": {', '.join(sorted(found)[:4])}"
            raise DataError(
                f"{len(heads)} slices of {len(found)} {what}{listed}; expected one of a series. "
                "Keep those that belong together in a folder"
            )


def placed(frames: Sequence[Frame]) -> Place:
    """Frames in the order of their positions along their normal.

    Raises:
        DataError: They lie in several directions, two lie at one place, or one is missing.
    """
    directions = np.array([frame.orientation for frame in frames], np.float64)
    odd = np.abs(directions - directions[0]).max(axis=1) > _SAME_DIRECTION
    if odd.any():
        raise DataError(
            f"slices of several orientations: {int(odd.sum())} of {len(frames)} lie otherwise than "
            "the first; expected one. Keep each orientation in a series of its own"
        )
    spacings = {tuple(round(mm, 4) for mm in frame.spacing or ()) for frame in frames}
    if len(spacings) > 1:
        raise DataError(f"slices of {len(spacings)} pixel spacings; expected one of a series")
    row, column = directions[0, :3], directions[0, 3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(n - 1) for n in lengths) > 0.01 or abs(row @ column) > 0.01:
        raise DataError(
            "ImageOrientationPatient is no pair of directions at right angles, so the slices "
            "cannot be put in order"
        )
    normal = np.cross(row, column)
    positions = np.array([frame.position for frame in frames], np.float64)
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    distances = np.diff(along[order])
    same = int((distances <= SAME_MM).sum())
    if same:
        raise DataError(
            f"{same} of {len(frames)} slices lie where another one does: copies, or several times, "
            "echoes or directions in one series. Remove the copies, or convert such a series to "
            "NIfTI, one file a volume"
        )
    step = float(np.median(distances))
    uneven = np.abs(distances - step) > UNEVEN * step + SAME_MM
    if uneven.any():
        missing = int(np.rint(distances[uneven] / step - 1).clip(0).sum())
        raise DataError(
            f"slices are {distances.min():.4g} to {distances.max():.4g} mm apart, most "
            f"{step:.4g} mm{f', so {missing} seem to be missing' if missing else ''}; expected "
            "even distances. Bring the whole series"
        )
    between = (positions[order[-1]] - positions[order[0]]) / (len(frames) - 1)
    spacing = frames[0].spacing or (1.0, 1.0)
    to_lps = np.eye(4)
    to_lps[:3] = np.stack(
        [row * spacing[1], column * spacing[0], between, positions[order[0]]], axis=1
    )
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ to_lps
    return Place(tuple(int(i) for i in order), affine, tuple(_doubts(affine, between, normal)))


def _doubts(
    affine: NDArray[np.float64], between: NDArray[np.float64], normal: NDArray[np.float64]
) -> list[str]:
    doubts = []
    cosine = float(between @ normal / np.linalg.norm(between))
    tilt = math.degrees(math.acos(min(abs(cosine), 1.0)))
    if tilt > _TILT_DEGREES:
        doubts.append(
            f"the slices are shifted against each other, as by a gantry tilted by {tilt:.0f} "
            "degrees, so the volume is sheared"
        )
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    turned = math.degrees(math.acos(min(float(np.abs(axes).max(axis=0).min()), 1.0)))
    if turned > _OBLIQUE_DEGREES:
        doubts.append(f"an oblique volume, turned by {turned:.0f} degrees from the patient's axes")
    return doubts


def canonical_shape(
    shape: tuple[int, int, int], affine: NDArray[np.float64]
) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    """What :func:`canonical` makes of a shape (slice, row, column) and its affine."""
    turn = _turn(affine)
    sizes = np.array(shape[::-1])
    turned = [0, 0, 0]
    for axis, (to, _) in enumerate(turn):
        turned[int(to)] = int(sizes[axis])
    return (turned[2], turned[1], turned[0]), affine @ inv_ornt_aff(turn, sizes)


def canonical(values: NDArray, affine: NDArray[np.float64]) -> NDArray:
    """(slice, row, column) as (z, y, x): z to the head, y to the back, x to the patient's left."""
    turned = apply_orientation(values.transpose(2, 1, 0), _turn(affine))
    return np.ascontiguousarray(turned.transpose(2, 1, 0))


def _turn(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    turn: NDArray[np.float64] = ornt_transform(io_orientation(affine), axcodes2ornt(_CANONICAL))
    return turn
