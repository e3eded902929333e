"""Synthetic images as DICOM: Secondary Capture, called synthetic wherever the standard lets it.

Nothing comes from a header of a training image, nothing from the clock: the same image and facts
give the same bytes. In the standard: PS3.3 A.8.1 and A.8.4, C.8.6 (Secondary Capture) and C.12.1
(SOP Common, contributing equipment).
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)
from pydicom.valuerep import format_number_as_ds
from ssmdiff import DataError, ImageFacts, Source, write_atomically

from ssmdiff_medical.dicom import DicomReader
from ssmdiff_medical.units import grey_planes, range_of, to_unit

PREFIX = "1.2.826.0.1.3680043.8.498."
"""pydicom's root for its users: no root of our own is registered."""
LEVELS = 2**16 - 1
MAKER = "ssmdiff"
FACELESS = ("CHEST", "HEART", "ABDOMEN", "PELVIS", "LUNG", "LIVER")
"""Of these body parts no image shows a face. Of a head it may, and nothing is said."""


class DicomWriter:
    """Secondary Capture with 16 bits, grey: one frame for an image, several for a volume.

    Stored 0 to 65535 are -1 to 1. An image has its units by slope and intercept; a volume, whose
    kind of file must not have these, by a real world value mapping, which readers of ours follow.
    """

    suffix = ".dcm"

    def write(self, path: Path, image: NDArray[np.float32], facts: ImageFacts) -> None:
        """(1, H, W), or (1, D, H, W) as a file of several frames without a place in space."""
        planes = grey_planes(image, "dicom")
        stored = np.rint((planes + 1) / 2 * LEVELS).astype("<u2")
        volume = image.ndim == 4
        dataset = _identity(facts, volume)
        _synthetic(dataset, facts)
        _pixels(dataset, stored, volume)
        _meaning(dataset, facts, volume)
        file = io.BytesIO()
        dcmwrite(file, dataset, enforce_file_format=True)
        write_atomically(path, file.getvalue())

    def whole(self, path: Path) -> bool:
        """Whether the header can be read and the pixels are all there."""
        try:
            DicomReader().header(Source((path,), path.name))
        except DataError:
            return False
        return True

    def load(self, path: Path, facts: ImageFacts) -> NDArray[np.float32]:
        """(1, H, W) or (1, D, H, W) in -1 to 1."""
        values = DicomReader().read(Source((path,), path.name)).values
        return to_unit(values[None], facts)


def _uid(facts: ImageFacts, what: str) -> UID:
    """A function of (run, seed, index): SHA-512 of them under pydicom's root."""
    return generate_uid(
        prefix=PREFIX, entropy_srcs=[MAKER, what, facts.run, str(facts.seed), str(facts.index)]
    )


def _identity(facts: ImageFacts, volume: bool) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = (
        MultiFrameGrayscaleWordSecondaryCaptureImageStorage
        if volume
        else SecondaryCaptureImageStorage
    )
    meta.MediaStorageSOPInstanceUID = _uid(facts, "instance")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = generate_uid(prefix=PREFIX, entropy_srcs=[MAKER])
    meta.ImplementationVersionName = MAKER.upper()
    ds = FileDataset(io.BytesIO(), {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
    )
    whose = str(_uid(ImageFacts(run=facts.run, seed=facts.seed), "set"))[-8:]
    ds.PatientName = f"SYNTHETIC^{facts.index:06d}"
    ds.PatientID = f"SYNTHETIC-{whose}-{facts.index:06d}"
    ds.PatientBirthDate = ds.PatientSex = ""
    ds.StudyInstanceUID, ds.SeriesInstanceUID = _uid(facts, "study"), _uid(facts, "series")
    ds.StudyID = whose
    ds.StudyDate = ds.StudyTime = ds.ReferringPhysicianName = ds.AccessionNumber = ""
    ds.Modality = facts.modality or "OT"
    ds.SeriesNumber = ds.InstanceNumber = 1
    ds.PatientOrientation = ""
    if facts.body_part:
        ds.BodyPartExamined = facts.body_part
        if facts.body_part in FACELESS:
            ds.RecognizableVisualFeatures = "NO"
    else:
        ds.Laterality = ""
    return ds


def _synthetic(ds: Dataset, facts: ImageFacts) -> None:
    """The five places that say so, and the series' description."""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(facts.versions.items()))
    ds.SyntheticData = "YES"
    ds.ConversionType = "SYN"
    ds.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    drawn = f"run {facts.run or 'unknown'}, step {facts.step}, seed {facts.seed}"
    what = f"{drawn}, image {facts.index}{f', class {facts.label}' if facts.label else ''}"
    ds.DerivationDescription = f"Drawn by a generative model, shows no patient: {what}; {versions}"[
        :1024
    ]
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = "109100", "DCM"
    purpose.CodeMeaning = "Synthesizing Equipment"
    equipment = Dataset()
    equipment.Manufacturer = MAKER
    equipment.SoftwareVersions = versions[:64] or MAKER
    equipment.PurposeOfReferenceCodeSequence = [purpose]
    ds.ContributingEquipmentSequence = [equipment]
    ds.SeriesDescription = "SYNTHETIC, drawn by a generative model"
    ds.Manufacturer = MAKER


def _pixels(ds: Dataset, stored: NDArray[np.uint16], volume: bool) -> None:
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = stored.shape[1:]
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    ds.PixelData = stored.tobytes()
    ds["PixelData"].VR = "OW"
    ds.BurnedInAnnotation = "NO"
    ds.PatientIdentityRemoved, ds.DeidentificationMethod = "YES", "Synthetic: there is no patient"
    ds.LossyImageCompression = "00"
    if volume:
        ds.NumberOfFrames = len(stored)
        ds.FrameIncrementPointer = 0x00182002  # Frame Label Vector: numbers of the slices
        ds.FrameLabelVector = [str(i + 1) for i in range(len(stored))]


def _meaning(ds: Dataset, facts: ImageFacts, volume: bool) -> None:
    """What stored values stand for, and the window that shows all of them."""
    low, high = range_of(facts)
    slope = (high - low) / LEVELS
    ds.PresentationLUTShape = "IDENTITY"
    if not volume:
        if facts.spacing:
            ds.PixelSpacing = [format_number_as_ds(mm) for mm in facts.spacing[-2:]]
        ds.RescaleSlope = format_number_as_ds(slope)
        ds.RescaleIntercept = format_number_as_ds(float(low))
        ds.RescaleType = facts.units or "US"
        ds.WindowCenter = format_number_as_ds((low + high) / 2)
        ds.WindowWidth = format_number_as_ds(float(high - low))
        ds.VOILUTFunction = "LINEAR_EXACT"
        return
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = "1", "0", "US"
    ds.WindowCenter, ds.WindowWidth, ds.VOILUTFunction = "32767.5", "65535", "LINEAR_EXACT"
    units = Dataset()
    units.CodeValue = "[hnsf'U]" if facts.units == "HU" else "1"
    units.CodingSchemeDesignator = "UCUM"
    units.CodeMeaning = "Hounsfield unit" if facts.units == "HU" else "no units"
    mapping = Dataset()
    mapping.RealWorldValueFirstValueMapped, mapping.RealWorldValueLastValueMapped = 0, LEVELS
    for name in ("RealWorldValueFirstValueMapped", "RealWorldValueLastValueMapped"):
        mapping[name].VR = "US"
    mapping.RealWorldValueIntercept, mapping.RealWorldValueSlope = float(low), slope
    mapping.LUTExplanation = f"the data's units{f', {facts.units}' if facts.units else ''}"
    mapping.LUTLabel = "DATA"
    mapping.MeasurementUnitsCodeSequence = [units]
    ds.RealWorldValueMappingSequence = [mapping]
