"""DICOM files made byte by byte from known integers, and what the standard says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from ssmdiff import ImageData, Source
from ssmdiff_medical.dicom import DicomReader

AXIAL = [1, 0, 0, 0, 1, 0]


def item(**tags: Any) -> Dataset:
    found = Dataset()
    for name, value in tags.items():
        setattr(found, name, value)
    return found


def write(path: Path, words: np.ndarray, *, bits: tuple[int, int] = (16, 16), **tags: Any) -> Path:
    """A file of these words: (rows, columns), or (frames, rows, columns)."""
    allocated, stored = bits
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID = MRImageStorage
    ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    ds.Modality, ds.PatientID, ds.SeriesInstanceUID = "MR", "4711", "1.2.3"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = words.shape[-2:]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = allocated, stored, stored - 1
    ds.PixelRepresentation = 0
    if words.ndim == 3:
        ds.NumberOfFrames = len(words)
    for name, value in tags.items():
        if value is None:
            delattr(ds, name)
        else:
            setattr(ds, name, value)
    ds.PixelData = words.tobytes() + b"\0" * (words.nbytes % 2)
    ds["PixelData"].VR = "OB" if allocated <= 8 else "OW"
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def slices(folder: Path, count: int = 4, **tags: Any) -> list[Path]:
    """An axial series, 2.5 mm apart, in files whose names and numbers say another order."""
    rng = np.random.default_rng(0)
    order = rng.permutation(count)
    return [
        write(
            folder / f"{order[i]:03d}",
            np.full((3, 4), i, "<u2"),
            **{
                "ImagePositionPatient": [0, 0, 2.5 * i],
                "ImageOrientationPatient": AXIAL,
                "PixelSpacing": [0.5, 0.75],
                "SliceThickness": 9,
                "SeriesNumber": 7,
                "InstanceNumber": int(order[i]),
                **tags,
            },
        )
        for i in range(count)
    ]


def read(path: Path, **options: Any) -> ImageData:
    return DicomReader(**options).read(Source((path,), path.name))


def shown(data: ImageData) -> np.ndarray:
    """0 for black to 1 for white, as who looks through the window sees it."""
    low, high = data.header.value_range
    return np.clip((data.values.astype(np.float64) - low) / (high - low), 0, 1)


def windowed(x: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """PS3.3 C.11.2.1.2.1, C.11.2.1.3.1 and C.11.2.1.3.2 to the letter, value by value."""
    out = np.empty(x.shape)
    for at, v in np.ndenumerate(x.astype(np.float64)):
        if function == "SIGMOID":
            out[at] = 1 / (1 + np.exp(-4 * (v - centre) / width))
            continue
        c, w = (centre - 0.5, width - 1) if function == "LINEAR" else (centre, width)
        if v <= c - w / 2:
            out[at] = 0
        elif v > c + w / 2:
            out[at] = 1
        else:
            out[at] = (v - c) / w + 0.5
    return out
