"""Slices put together, and what is no volume: each refusal is one sentence."""

from __future__ import annotations

import re
import shutil
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from dicom_files import AXIAL, item, read, slices, write
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, JPEGLosslessSV1
from ssmdiff import DataError, Refused, Source
from ssmdiff_medical.dicom import DicomReader

PLANE = np.zeros((3, 4), "<u2")


def found(folder: Path, **options) -> list[Source | Refused]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return list(DicomReader(**options).sources(folder, iter(files)))


def reasons(folder: Path) -> str:
    items = found(folder)
    assert all(isinstance(item, Refused) for item in items), items
    for refused in items:
        assert "\n" not in refused.reason
        assert str(folder) not in refused.reason
    return "; ".join(refused.reason for refused in items)


def test_a_series_is_in_the_order_of_its_positions(tmp_path: Path) -> None:
    """Not of names or numbers; distances are those of the positions, not SliceThickness."""
    slices(tmp_path / "study" / "a")
    (source,) = found(tmp_path)
    assert (source.name, len(source.files)) == ("study/a/series 7", 4)
    header = DicomReader().header(source)
    data = DicomReader().read(source)
    assert data.values[:, 0, 0].tolist() == [0, 1, 2, 3]
    assert (header.axes, header.shape, header.spacing) == ("zyx", (4, 3, 4), (2.5, 0.5, 0.75))
    assert (header.patient, header.series) == ("4711", "1.2.3")
    assert "4711" not in repr(header)


DIRECTIONS = {
    "axial": AXIAL, "feet first": [-1, 0, 0, 0, 1, 0], "sagittal": [0, 1, 0, 0, 0, -1],
    "coronal": [1, 0, 0, 0, 0, -1], "upside down": [-1, 0, 0, 0, -1, 0],
    "sideways": [0, 1, 0, 1, 0, 0],
}  # fmt: skip


@pytest.mark.parametrize("name", DIRECTIONS)
def test_a_marker_lies_where_the_patient_has_it(tmp_path: Path, name: str) -> None:
    """A bright voxel at a known place of the patient, found again through the header's affine; in
    the array it lies to the left, the back and the head, as the canonical orientation says."""
    row, column = np.array(DIRECTIONS[name][:3]), np.array(DIRECTIONS[name][3:])
    normal = np.cross(row, column)
    shape, steps = (6, 7, 8), [3.0, 1.5, 2.0]  # slices, rows, columns
    origin = np.array([-12.0, 31.0, 5.0])
    voxel = np.empty(shape)
    place = np.empty((*shape, 3))  # LPS, by the standard's formula (C.7.6.2.1.1)
    for k, r, c in np.ndindex(shape):
        place[k, r, c] = origin + normal * steps[0] * k + column * steps[1] * r + row * steps[2] * c
    corner = place.reshape(-1, 3).max(axis=0)  # most to the left, the back and the head
    voxel[:] = (np.abs(place - corner).max(axis=-1) < 1e-6) * 1000
    assert voxel.sum() == 1000
    for k in range(shape[0]):
        write(tmp_path / f"{k}", voxel[k].astype("<u2"), ImagePositionPatient=list(place[k, 0, 0]),
              ImageOrientationPatient=DIRECTIONS[name], PixelSpacing=steps[1:])  # fmt: skip
    (source,) = found(tmp_path)
    data = DicomReader().read(source)
    assert data.values.shape == data.header.shape
    at = np.argwhere(data.values == 1000)[0]
    assert at.tolist() == [n - 1 for n in data.header.shape], "z head, y back, x left: the last"
    x, y, z, _ = np.array(data.header.affine) @ [*at[::-1], 1]
    assert np.allclose([-x, -y, z], corner, atol=1e-4), "the affine is in RAS"
    along = np.abs(np.stack([normal, column, row]))  # of (slice, row, column), in x, y, z
    assert np.allclose(data.header.spacing, (steps @ along)[::-1])


REFUSED_SERIES = {
    "copies": ({3: {"ImagePositionPatient": [0, 0, 5.0]}}, "1 of 4 slices lie where another"),
    "gap": ({3: {"ImagePositionPatient": [0, 0, 12.5]}}, "so 2 seem to be missing"),
    "orientation": ({3: {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}}, "several orientations"),
    "spacing": ({3: {"PixelSpacing": [0.6, 0.75]}}, "2 pixel spacings"),
    "patients": ({3: {"PatientID": "4712"}}, "of 2 patients"),
    "skewed": (
        {i: {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]} for i in range(4)},
        "no pair of directions at right angles",
    ),
}


@pytest.mark.parametrize("name", REFUSED_SERIES)
def test_what_is_no_volume_is_refused(tmp_path: Path, name: str) -> None:
    changed, said = REFUSED_SERIES[name]
    for i in range(4):
        tags = {"ImagePositionPatient": [0, 0, 2.5 * i], "ImageOrientationPatient": AXIAL,
                "PixelSpacing": [0.5, 0.75], **changed.get(i, {})}  # fmt: skip
        write(tmp_path / str(i), PLANE, **tags)
    assert said in reasons(tmp_path)


def test_mixed_sizes_are_refused(tmp_path: Path) -> None:
    slices(tmp_path, 3)
    write(tmp_path / "odd", np.zeros((5, 4), "<u2"), ImagePositionPatient=[0, 0, 7.5],
          ImageOrientationPatient=AXIAL, PixelSpacing=[0.5, 0.75])  # fmt: skip
    assert "4 slices of 2 sizes: 3 x 4, 5 x 4" in reasons(tmp_path)


def test_windows_that_differ_from_slice_to_slice_are_not_used(tmp_path: Path) -> None:
    """Or the brightness of neighbours would jump."""
    for i, width in enumerate(["100", "200"]):
        write(tmp_path / str(i), PLANE, ImagePositionPatient=[0, 0, i], PixelSpacing=[1, 1],
              ImageOrientationPatient=AXIAL, WindowCenter="50", WindowWidth=width)  # fmt: skip
    (source,) = found(tmp_path)
    header = DicomReader().header(source)
    assert header.value_range is None
    assert any("2 different windows" in warning for warning in header.warnings)


REFUSED_FILES = {
    "localizer": ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localizer"),
    "palette": ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
    "colour": ({"PhotometricInterpretation": "CMYK", "SamplesPerPixel": 4}, "CMYK with 4 samples"),
    "dose": ({"Modality": "RTDOSE"}, "a distribution of dose"),
    "no image": ({"Rows": None}, "it holds no image"),
    "nothing in it": ({"Rows": 0}, "there is nothing in it"),
    "12 allocated": ({"BitsAllocated": 12, "BitsStored": 12}, "12 of 12 bits a pixel; expected"),
    "too many stored": ({"BitsStored": 17}, "17 of 16 bits"),
    "high bit": ({"BitsStored": 12, "HighBit": 15}, "its highest bit is 15 of 12 stored"),
    "cut short": ({"Rows": 300}, "cut short: 24 bytes"),
    "bomb": ({"Rows": 65535, "Columns": 65535}, "more than max_values"),
    "frames": ({"NumberOfFrames": 2**30}, "more than max_values"),
    "frames of a pixel": (
        {"NumberOfFrames": 2**27, "Rows": 1, "Columns": 1},
        "more frames than the file has bits",
    ),
    "short lut": (
        {"VOILUTSequence": [item(LUTDescriptor=[9, 0, 16], LUTData=b"\1\0")]},
        "a LUT of 1 values of 16 bits, and it claims 9",
    ),
    "functional groups": (
        {"NumberOfFrames": 2, "PerFrameFunctionalGroupsSequence": [item(Rows=1)]},
        "2 frames, and functional groups of 1",
    ),
}


@pytest.mark.parametrize("name", REFUSED_FILES)
def test_files_that_cannot_be_used(tmp_path: Path, name: str) -> None:
    tags, said = REFUSED_FILES[name]
    for sequence in (tags.get("VOILUTSequence"),):
        for entry in sequence or ():
            entry["LUTDescriptor"].VR, entry["LUTData"].VR = "US", "OW"
    write(tmp_path / "x.dcm", PLANE, **tags)
    assert said in reasons(tmp_path)


def test_a_syntax_without_a_decoder_names_what_to_install(tmp_path: Path) -> None:
    path = write(tmp_path / "x", PLANE)
    data = path.read_bytes()
    old = ExplicitVRLittleEndian.encode() + b"\0"
    for uid, said in (
        (JPEGLosslessSV1, r"JPEG Lossless.*python-gdcm \(BSD\), or pylibjpeg-libjpeg \(GPL-3.0\)"),
        ("1.2.840.10008.1.2.4.110", r"1.2.840.10008.1.2.4.110, which pydicom does not decode"),
    ):
        new = str(uid).encode() + b"\0" * (len(str(uid)) % 2)
        changed = data.replace(old, new)
        at = changed.index(b"\2\0\x10\0UI") + 6
        changed = changed[:at] + struct.pack("<H", len(new)) + changed[at + 2 :]
        grown = struct.unpack_from("<I", changed, 140)[0] + len(new) - len(old)
        path.write_bytes(changed[:140] + struct.pack("<I", grown) + changed[144:])
        assert re.search(said, reasons(tmp_path))


def test_a_picture_of_another_size_than_the_header_is_refused_before_it_is_decoded(
    tmp_path,
) -> None:
    """A few bytes of JPEG that claim 60,000 x 60,000 pixels take no memory."""
    from pydicom import dcmread
    from pydicom.encaps import encapsulate

    path = write(tmp_path / "x", np.zeros((16, 16), "u1"), bits=(8, 8))
    sof = b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 11, 8, 60000, 60000, 1) + b"\1\x11\0"
    ds = dcmread(path)
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds.PixelData = encapsulate([sof + b"\xff\xda" + bytes(50)])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    ds.save_as(path)
    tracemalloc.start()
    with pytest.raises(DataError, match="60000 x 60000 pixels, and the header says 16 x 16"):
        read(path)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_a_length_that_a_file_claims_takes_no_memory(tmp_path: Path) -> None:
    """An element of 4 GB in a file of 600 bytes."""
    path = write(tmp_path / "x", PLANE)
    data = path.read_bytes()
    at = data.index(b"\x10\0\x20\0LO")  # PatientID
    path.write_bytes(
        data[:at] + b"\x10\0\x20\0UN\0\0" + struct.pack("<I", 0xFFFFFFF0) + data[at + 8 :]
    )
    tracemalloc.start()
    with pytest.raises(DataError):
        read(path)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_indices_text_and_empty_files_are_left_out_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "text.dcm").write_text("no DICOM, whatever it is called" * 20)
    write(tmp_path / "DICOMDIR", PLANE)
    said = reasons(tmp_path)
    for words in ("empty (0 bytes)", "no DICOM by its content", "an index of other files"):
        assert words in said
    reader = DicomReader()
    assert not reader.claims(tmp_path / "x.dcm", b"\x89PNG" + bytes(200))
    assert not reader.claims(tmp_path / "x", b"text " * 100)


def test_a_copied_folder_is_refused_and_a_series_beside_it_is_read(tmp_path: Path) -> None:
    slices(tmp_path / "a", SeriesInstanceUID="1.2.4", SeriesNumber="")
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    slices(tmp_path / "b")
    items = {type(item): item for item in found(tmp_path)}
    assert "4 of 8 slices lie where another one does" in items[Refused].reason
    assert items[Source].name == "b/series 7"


def test_warnings_name_nobody(tmp_path: Path) -> None:
    tags = {"PatientName": "PLANTED^NAME", "PatientID": "PLANTED-ID"}
    warned = {
        "de-identified": {}, "burnt into": {"BurnedInAnnotation": "YES"},
        "US images often": {"Modality": "US"}, "synthetic": {"SyntheticData": "YES"},
    }  # fmt: skip
    for word, more in warned.items():
        header = read(write(tmp_path / "x", PLANE, **tags, **more)).header
        assert any(word in warning for warning in header.warnings)
        assert "PLANTED" not in " ".join(header.warnings) + repr(header)
    quiet = read(write(tmp_path / "x", PLANE, PatientIdentityRemoved="YES")).header
    assert quiet.warnings == ()
