"""DICOM of every sort that the reader decodes, to be damaged and read."""

from __future__ import annotations

import io
import tempfile
import warnings
from pathlib import Path
from typing import Any

import mutations
import numpy as np
import pydicom
import ssmdiff
from fuzzing import Opener
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from ssmdiff_medical.dicom_example import example

SIDE = 40


def _file(syntax: str, frames: int = 1) -> bytes:
    stored = np.random.default_rng(0).integers(0, 4096, (frames, SIDE, SIDE))
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "x"
        example(path, stored if frames > 1 else stored[0], None if frames > 1 else 0.0)
        ds = pydicom.dcmread(io.BytesIO(path.read_bytes()))
    ds.WindowCenter, ds.WindowWidth = ["40", "50"], ["400", "10"]
    ds.add_new("PixelPaddingValue", "US", 5)
    if frames > 1:
        ds.PerFrameFunctionalGroupsSequence = [_groups(i) for i in range(frames)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless):
            ds.compress(syntax)
        else:
            ds.file_meta.TransferSyntaxUID = syntax
    file = io.BytesIO()
    ds.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _groups(i: int) -> Dataset:
    groups, position, plane, measures, meaning = (Dataset() for _ in range(5))
    position.ImagePositionPatient = [0, 0, 2 * i]
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing = [1, 1]
    meaning.RescaleSlope, meaning.RescaleIntercept, meaning.RescaleType = "2", "-1", "US"
    groups.PlanePositionSequence, groups.PlaneOrientationSequence = [position], [plane]
    groups.PixelMeasuresSequence, groups.PixelValueTransformationSequence = [measures], [meaning]
    return groups


def _read(folder: Path) -> list[Any]:
    reader = ssmdiff.create("reader", "dicom")
    found = []
    for item in reader.sources(folder, sorted(folder.iterdir())):
        if isinstance(item, ssmdiff.Refused):
            raise ssmdiff.DataError(item.reason)
        found.append((reader.header(item), reader.read(item)))
    return found


def _are_images(folder: Path, found: list[Any]) -> None:
    assert len(found) == 1
    header, data = found[0]
    assert data.values.shape == header.shape == data.header.shape
    assert np.isfinite(data.values).all()
    assert data.valid is None or data.valid.shape == header.shape


def dicoms() -> dict[str, Opener]:
    made = {
        "plain": _file(ExplicitVRLittleEndian),
        "frames": _file(ExplicitVRLittleEndian, 3),
        "deflated": _file(DeflatedExplicitVRLittleEndian),
        "rle": _file(RLELossless),
        "jpeg-ls": _file(JPEGLSLossless),
        "jpeg 2000": _file(JPEG2000Lossless),
    }
    return {
        f"dicom {name}": Opener(
            {"x.dcm": data}, {"x.dcm": mutations.some_bytes}, _read, _are_images
        )
        for name, data in made.items()
    }
