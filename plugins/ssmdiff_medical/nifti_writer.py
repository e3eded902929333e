"""Synthetic images as NIfTI."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from ssmdiff import ImageFacts, write_atomically

from ssmdiff_medical.units import grey_planes, range_of, to_unit


class NiftiWriter:
    """NIfTI-1, gzipped: float32 in the data's units, and an affine that states where nothing was.

    The image lies around the origin, x from the patient's right to the left, y from the front to
    the back, z to the head: how the readers give volumes. Spacing is the data's, else 1 mm.
    """

    suffix = ".nii.gz"

    def write(self, path: Path, image: NDArray[np.float32], facts: ImageFacts) -> None:
        """(1, H, W) as one slice, or (1, D, H, W)."""
        low, high = range_of(facts)
        planes = grey_planes(image, "nifti")
        values = ((planes + 1) / 2 * (high - low) + low).astype(np.float32).transpose(2, 1, 0)
        given = facts.spacing or ()
        size = (1.0,) * (3 - len(given)) + tuple(given[-3:])
        steps = np.array([-size[2], -size[1], size[0]])
        affine = np.diag([*steps, 1.0])
        affine[:3, 3] = -steps * (np.array(values.shape) - 1) / 2
        volume = nibabel.Nifti1Image(values, affine)
        volume.set_qform(affine, code="aligned")
        volume.set_sform(affine, code="aligned")
        volume.header.set_xyzt_units("mm")
        units = f", values in {facts.units}" if facts.units else ""
        volume.header["descrip"] = f"synthetic{units}".encode()[:79]
        packed = io.BytesIO()
        with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as file:
            file.write(volume.to_bytes())
        write_atomically(path, packed.getvalue())

    def whole(self, path: Path) -> bool:
        """Whether the file unpacks to its end, where gzip's checksum lies."""
        try:
            with gzip.open(path) as file:
                while file.read(1 << 20):
                    pass
        except (OSError, EOFError, zlib.error):
            return False
        return True

    def load(self, path: Path, facts: ImageFacts) -> NDArray[np.float32]:
        """(1, H, W), or (1, D, H, W) of several slices, in -1 to 1."""
        planes = np.asanyarray(nibabel.load(path).dataobj).transpose(2, 1, 0)
        return to_unit(planes if len(planes) == 1 else planes[None], facts)
