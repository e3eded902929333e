"""What a DICOM file says of its image: the dozen technical facts that values and places need.

Everything else of the header is skipped, not read and dropped. A length that a file claims is
held against the bytes that are there before anything is read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    MediaStorageDirectoryStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
)
from ssmdiff import DataError

from ssmdiff_medical.dicom_file import errors_named, opened, syntax_of

SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})
DIRECTORY = "DICOMDIR"
PIXEL_TAGS = (
    "BitsAllocated", "BitsStored", "Columns", "HighBit", "NumberOfFrames",
    "PhotometricInterpretation", "PixelRepresentation", "PlanarConfiguration", "Rows",
    "SamplesPerPixel",
)  # fmt: skip
_TAGS = (
    *PIXEL_TAGS, "SOPClassUID", "ImageType", "Modality", "PatientID", "PatientName",
    "SeriesInstanceUID", "SeriesNumber", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "PixelSpacingCalibrationType", "ImagerPixelSpacing", "RescaleSlope",
    "RescaleIntercept", "RescaleType", "ModalityLUTSequence", "VOILUTSequence", "WindowCenter",
    "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction", "PresentationLUTShape",
    "PixelPaddingValue", "PixelPaddingRangeLimit", "PerFrameFunctionalGroupsSequence",
    "SharedFunctionalGroupsSequence", "PatientIdentityRemoved", "BurnedInAnnotation",
    "SyntheticData", "RealWorldValueMappingSequence", "BodyPartExamined", "ViewPosition",
    "SpecificCharacterSet",
)  # fmt: skip
_NUMBERS = ("Rows", "Columns", "BitsAllocated")


class Lut(NamedTuple):
    """A table: the value ``first`` and all below it become ``data[0]``, and so on."""

    first: int
    bits: int
    data: tuple[int, ...]
    name: str = ""


class Window(NamedTuple):
    centre: float
    width: float
    function: str = "LINEAR"
    name: str = ""


class Frame(NamedTuple):
    """Where one plane lies, and what its stored values mean."""

    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    """Millimetres between rows, and between columns."""
    slope: float
    intercept: float
    rescale_type: str
    lut: Lut | None
    """The modality LUT, in place of slope and intercept."""
    looks: tuple[Lut | Window, ...]
    """VOI LUTs, then windows."""


@dataclass(frozen=True)
class Head:
    """One file's header."""

    path: Path
    syntax: UID
    rows: int
    columns: int
    samples: int
    photometric: str
    allocated: int
    stored: int
    signed: bool
    floats: bool
    """The pixels are floating-point numbers."""
    inverse: bool
    """Small values are white."""
    padding: tuple[int, int] | None
    """The ends, in either order, of the stored values that stand for nothing imaged."""
    modality: str
    image_type: tuple[str, ...]
    patient: str
    series: str
    series_number: str
    facts: dict[str, str]
    warnings: tuple[str, ...]
    frames: tuple[Frame, ...]
    grouped: bool
    """Several frames, described by functional groups or not."""

    @property
    def values(self) -> int:
        return self.rows * self.columns * self.samples * len(self.frames)

    @property
    def placed(self) -> bool:
        """Every frame says where it lies."""
        return all(f.position and f.orientation and f.spacing for f in self.frames)


def read_head(path: Path, most_values: int) -> Head:
    """One file's header, checked.

    Raises:
        DataError: The file holds no image that can be used; one sentence that names it.
    """
    with errors_named(path), opened(path, _TAGS) as (dataset, left):
        head = _head(path, dataset, most_values)
        needed = -(-head.values * head.allocated // 8)
        if head.photometric == "YBR_FULL_422":
            needed = needed // 3 * 2
        if not is_known(head.syntax):
            raise DataError(
                f"its pixels are in the transfer syntax {head.syntax}, which pydicom does not "
                "decode. Save it with another, such as Explicit VR Little Endian"
            )
        if left is not None and not head.syntax.is_compressed and left < needed:
            raise DataError(
                f"cut short: {max(left, 0):,} bytes are left for pixels, and "
                f"{len(head.frames)} x {head.rows} x {head.columns} of {head.allocated} bits take "
                f"{needed:,}"
            )
        return head


def is_known(syntax: UID) -> bool:
    """Whether pydicom knows it as a transfer syntax; of others it does not tell anything."""
    return syntax.name != syntax and syntax.type == "Transfer Syntax"


def _head(path: Path, ds: Dataset, most_values: int) -> Head:
    meta = getattr(ds, "file_meta", {})
    sop_class = UID(str(ds.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID", "")))
    if path.name.upper() == DIRECTORY or sop_class == MediaStorageDirectoryStorage:
        raise DataError("an index of other files (DICOMDIR), no image")
    lacking = [word for word in _NUMBERS if ds.get(word) is None]
    if lacking:
        what = sop_class.name if sop_class.is_valid and sop_class else "of an unknown kind"
        raise DataError(f"it holds no image ({what}): without {', '.join(lacking)}")
    modality = _word(ds, "Modality")
    if modality == "RTDOSE":
        raise DataError("a distribution of dose (RTDOSE), no image")
    image_type = tuple(str(word).upper() for word in _list(ds.get("ImageType")))
    if len(image_type) > 2 and image_type[2] == "LOCALIZER":
        raise DataError("a localizer, which shows where other images lie; it is left out")
    photometric, samples = _colour(ds)
    rows, columns, allocated = (int(ds[word].value) for word in _NUMBERS)
    stored = int(ds.get("BitsStored") or allocated)
    high = int(ds.get("HighBit", stored - 1) or 0)
    floats = allocated in (32, 64) and ds.get("PixelRepresentation") is None
    count = int(ds.get("NumberOfFrames") or 1)
    if min(rows, columns) < 1 or count < 1:
        raise DataError(f"{count} frames of {rows} x {columns} pixels: there is nothing in it")
    if count * rows * columns * samples > most_values or count > 8 * path.stat().st_size:
        raise DataError(
            f"it claims {count} x {rows} x {columns} pixels of {samples} samples: more than "
            f"max_values = {most_values}, or more frames than the file has bits"
        )
    if allocated not in (1, 8, 16, 32, *((64,) if floats else ())) or not 0 < stored <= allocated:
        raise DataError(
            f"{stored} of {allocated} bits a pixel; expected 1, 8, 16 or 32 allocated and as many "
            "or fewer stored"
        )
    if high != stored - 1 and not floats:
        raise DataError(
            f"its highest bit is {high} of {stored} stored; expected {stored - 1}, the place that "
            "the standard has left since 2006"
        )
    shape = _word(ds, "PresentationLUTShape")
    return Head(
        path=path, syntax=syntax_of(ds), rows=rows, columns=columns, samples=samples,
        photometric=photometric, allocated=allocated, stored=stored,
        signed=ds.get("PixelRepresentation") == 1, floats=floats,
        inverse=samples == 1 and (photometric == "MONOCHROME1" or shape == "INVERSE"),
        padding=_padding(ds), modality=modality, image_type=image_type,
        patient=_text(ds.get("PatientID")) or _text(ds.get("PatientName")),
        series=_text(ds.get("SeriesInstanceUID")), series_number=_text(ds.get("SeriesNumber")),
        facts={
            name: word
            for name, key in (("body_part", "BodyPartExamined"), ("view", "ViewPosition"))
            if (word := _word(ds, key))
        },
        warnings=tuple(_doubts(ds, modality)), frames=_frames(ds, count), grouped=count > 1,
    )  # fmt: skip


def _colour(ds: Dataset) -> tuple[str, int]:
    photometric = _word(ds, "PhotometricInterpretation") or "MONOCHROME2"
    samples = int(ds.get("SamplesPerPixel") or 1)
    if photometric == "PALETTE COLOR":
        raise DataError("PALETTE COLOR, whose values are numbers of colours. Save it as RGB")
    grey = photometric in ("MONOCHROME1", "MONOCHROME2") and samples == 1
    known = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
    if not grey and not (photometric in known and samples == 3):
        raise DataError(
            f"{photometric} with {samples} samples a pixel; expected MONOCHROME1 or MONOCHROME2 "
            f"with 1, or {', '.join(known)} with 3"
        )
    return photometric, samples


def _padding(ds: Dataset) -> tuple[int, int] | None:
    """The two ends, in either order, of the stored values that stand for nothing imaged."""
    first = ds.get("PixelPaddingValue")
    if not isinstance(first, int):
        return None
    limit = ds.get("PixelPaddingRangeLimit")
    return first, limit if isinstance(limit, int) else first


def _doubts(ds: Dataset, modality: str) -> Iterator[str]:
    if _word(ds, "PatientIdentityRemoved") != "YES":
        yield "not marked as de-identified (PatientIdentityRemoved is not YES)"
    if _word(ds, "BurnedInAnnotation") == "YES":
        yield "text is burnt into the pixels (BurnedInAnnotation is YES)"
    elif modality in ("US", "SC", "OT") and _word(ds, "BurnedInAnnotation") != "NO":
        yield f"{modality} images often have text burnt into the pixels; look at them"
    if _word(ds, "SyntheticData") == "YES":
        yield "a synthetic image (SyntheticData is YES)"


def _frames(ds: Dataset, count: int) -> tuple[Frame, ...]:
    each = _list(ds.get("PerFrameFunctionalGroupsSequence"))
    shared = _list(ds.get("SharedFunctionalGroupsSequence"))[:1]
    if each and len(each) < count:
        raise DataError(f"{count} frames, and functional groups of {len(each)}")
    if not each and not shared:
        return (_in_data_units(_frame([ds], [ds], [ds]), ds),) * count
    frames = []
    for i in range(count):
        groups = [*each[i : i + 1], *shared]
        planes = _inner(
            groups, "PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"
        )
        meaning = _inner(groups, "PixelValueTransformationSequence")
        frames.append(
            _frame([*planes, ds], [*meaning, ds], [*_inner(groups, "FrameVOILUTSequence"), ds])
        )
    return tuple(frames)


def _inner(groups: Sequence[Dataset], *names: str) -> list[Dataset]:
    """The first items of these macros, those of the frame before what all frames share."""
    return [items[0] for g in groups for name in names if (items := _list(g.get(name)))]


def _frame(planes: list[Dataset], meaning: list[Dataset], looks: list[Dataset]) -> Frame:
    def first(places: list[Dataset], name: str) -> Any:
        return next((v for ds in places if (v := ds.get(name)) not in (None, "")), None)

    whole = planes[-1]
    spacing = _floats(first(planes, "PixelSpacing"), 2)
    imager = _floats(whole.get("ImagerPixelSpacing"), 2)
    if imager and not _word(whole, "PixelSpacingCalibrationType"):
        spacing = imager  # at the detector; what is not calibrated says no more
    if spacing and min(spacing) <= 0:
        spacing = None
    slope, intercept = first(meaning, "RescaleSlope"), first(meaning, "RescaleIntercept")
    luts = [_lut(item) for ds in looks if ds.get("VOILUTSequence") for item in ds.VOILUTSequence]
    modality_luts = _list(whole.get("ModalityLUTSequence"))
    return Frame(
        _floats(first(planes, "ImagePositionPatient"), 3),
        _floats(first(planes, "ImageOrientationPatient"), 6),
        spacing,
        1.0 if slope is None else float(slope),
        0.0 if intercept is None else float(intercept),
        str(first(meaning, "RescaleType") or ""),
        _lut(modality_luts[0]) if modality_luts else None,
        (*luts, *_windows(next((ds for ds in looks if ds.get("WindowCenter") is not None), whole))),
    )


def _in_data_units(frame: Frame, ds: Dataset) -> Frame:
    """A synthetic volume as we write it: what else would be slope and intercept is a mapping."""
    mappings = _list(ds.get("RealWorldValueMappingSequence"))
    ours = ds.get("SOPClassUID") == MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    if not (ours and _word(ds, "SyntheticData") == "YES" and mappings):
        return frame
    slope, intercept = (
        float(mappings[0][f"RealWorldValue{w}"].value) for w in ("Slope", "Intercept")
    )
    units = _list(mappings[0].get("MeasurementUnitsCodeSequence"))
    hounsfield = units and str(units[0].get("CodeValue", "")) == "[hnsf'U]"
    looks = tuple(
        look._replace(centre=look.centre * slope + intercept, width=look.width * slope)
        for look in frame.looks
        if isinstance(look, Window)
    )
    return frame._replace(
        slope=slope, intercept=intercept, rescale_type="HU" if hounsfield else "", looks=looks
    )


def _windows(ds: Dataset) -> Iterator[Window]:
    centres, widths = _list(ds.get("WindowCenter")), _list(ds.get("WindowWidth"))
    names = _list(ds.get("WindowCenterWidthExplanation"))
    function = _word(ds, "VOILUTFunction") or "LINEAR"
    for i, (centre, width) in enumerate(zip(centres, widths, strict=False)):
        if centre not in (None, "") and width not in (None, ""):
            name = str(names[i]) if i < len(names) else ""
            yield Window(float(centre), float(width), function, name)


def _lut(item: Dataset) -> Lut:
    """A table of a LUT sequence; 8-bit entries may lie two in a word."""
    entries, first, bits = (int(v) for v in item.LUTDescriptor)
    entries = entries or 2**16
    raw = item["LUTData"].value
    if isinstance(raw, bytes):
        order = ">" if item.original_encoding[1] is False else "<"
        data = list(struct.unpack(f"{order}{len(raw) // 2}H", raw))
    else:
        data = _list(raw)
    if bits <= 8 and len(data) == -(-entries // 2) < entries:
        data = [half for word in data for half in (word & 255, word >> 8)][:entries]
    if len(data) < entries or not 1 <= bits <= 16:
        raise DataError(f"a LUT of {len(data)} values of {bits} bits, and it claims {entries}")
    name = str(item.get("LUTExplanation") or "")
    return Lut(first, bits, tuple(int(v) for v in data[:entries]), name)


def _floats(value: Any, count: int) -> tuple[float, ...] | None:
    values = _list(value)
    if len(values) != count:
        return None
    found = tuple(float(v) for v in values)
    return found if all(abs(v) < 1e9 for v in found) else None  # NaN is not


def _list(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return (
        list(value)
        if hasattr(value, "__iter__") and not isinstance(value, (str, bytes))
        else [value]
    )


def _word(ds: Dataset, name: str) -> str:
    value = ds.get(name)
    return str(value).strip().upper() if isinstance(value, str) else ""


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()
