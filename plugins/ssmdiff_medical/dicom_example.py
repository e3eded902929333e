"""Small DICOM files with nobody in them, for checks of the reader."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid


def example(path: Path, stored: NDArray[np.integer], slice_mm: float | None = None) -> None:
    """An MR image of 12 bits, of several frames where ``stored`` has three axes; with a place in a
    series if ``slice_mm`` is given."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = MRImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    ds = FileDataset(io.BytesIO(), {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
    ds.Modality, ds.PatientIdentityRemoved, ds.PatientID = "MR", "YES", "EXAMPLE"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = stored.shape[-2:]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.RescaleSlope, ds.RescaleIntercept = "2", "-100"
    ds.SeriesInstanceUID = generate_uid(entropy_srcs=["series", str(slice_mm is None), path.suffix])
    if stored.ndim == 3:
        ds.NumberOfFrames = len(stored)
    if slice_mm is not None:
        ds.ImagePositionPatient = [0, 0, slice_mm]
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.SeriesNumber = [0.5, 0.75], 1
    ds.PixelData = stored.astype("<u2").tobytes()
    ds["PixelData"].VR = "OW"
    ds.save_as(path, enforce_file_format=True)
