"""Synthetic DICOM and NIfTI: valid, called synthetic, the same bytes, in the data's units."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from dicom_files import read
from ssmdiff import ConfigError, DataError, DivergedError, ImageFacts, Source, create

FACTS = ImageFacts(
    run="0123456789abcdef",
    seed=5,
    index=42,
    step=1000,
    label="disc",
    value_range=(-1000.0, 1000.0),
    units="HU",
    spacing=(0.5, 0.75),
    modality="CT",
    body_part="CHEST",
    versions={"ssmdiff": "0.2.0"},
)
IMAGE = np.random.default_rng(0).uniform(-1.1, 1.1, (1, 24, 20)).astype(np.float32)
VOLUME = np.random.default_rng(1).uniform(-1, 1, (1, 5, 24, 20)).astype(np.float32)
SHAPES = pytest.mark.parametrize("image", [IMAGE, VOLUME], ids=["image", "volume"])
KINDS = pytest.mark.parametrize("name", ["dicom", "nifti"])


def written(
    tmp_path: Path, image: np.ndarray, facts: ImageFacts = FACTS, name: str = "dicom"
) -> Path:
    writer = create("writer", name)
    path = tmp_path / f"000042{writer.suffix}"
    writer.write(path, image, facts)
    return path


def in_units(image: np.ndarray, low: float, high: float) -> np.ndarray:
    return (np.clip(image[0].astype(np.float64), -1, 1) + 1) / 2 * (high - low) + low


@SHAPES
@pytest.mark.parametrize("known", [True, False])
def test_values_come_back_in_the_units_of_the_data(tmp_path: Path, image, known: bool) -> None:
    """Within half a level of 16 bits: 0.015 HU of 2,000."""
    facts = FACTS if known else ImageFacts()
    low, high = facts.value_range or (-1.0, 1.0)
    data = read(written(tmp_path, image, facts))
    assert np.abs(data.values - in_units(image, low, high)).max() <= (high - low) / 65535 / 2 * 1.01
    assert data.header.value_range == (low, high)
    assert data.header.units == ("HU" if known else "")


def test_the_stored_values_are_those_of_the_standard(tmp_path: Path) -> None:
    """By pydicom alone: stored = round((x + 1) / 2 * 65535), value = stored * slope + intercept."""
    ds = pydicom.dcmread(written(tmp_path, IMAGE))
    stored = np.rint((np.clip(IMAGE[0].astype(float), -1, 1) + 1) / 2 * 65535)
    assert np.array_equal(ds.pixel_array, stored)
    assert (ds.RescaleIntercept, ds.RescaleType) == (-1000, "HU")
    assert abs(ds.RescaleSlope - 2000 / 65535) < 1e-12
    assert (ds.WindowCenter, ds.WindowWidth, ds.VOILUTFunction) == (0, 2000, "LINEAR_EXACT")
    assert ds.PixelSpacing == [0.5, 0.75]


@SHAPES
def test_it_says_synthetic_in_five_places(tmp_path: Path, image) -> None:
    ds = pydicom.dcmread(written(tmp_path, image))
    assert ds.SyntheticData == "YES"
    assert ds.ConversionType == "SYN"
    assert ds.ImageType == ["DERIVED", "SECONDARY", "OTHER"]
    for words in ("0123456789abcdef", "seed 5", "image 42", "step 1000", "ssmdiff 0.2.0", "disc"):
        assert words in ds.DerivationDescription
    (equipment,) = ds.ContributingEquipmentSequence
    (purpose,) = equipment.PurposeOfReferenceCodeSequence
    assert (purpose.CodeValue, purpose.CodingSchemeDesignator) == ("109100", "DCM")
    assert (equipment.Manufacturer, equipment.SoftwareVersions) == ("ssmdiff", "ssmdiff 0.2.0")
    assert (str(ds.PatientName), ds.Modality) == ("SYNTHETIC^000042", "CT")
    assert ds.PatientID.startswith("SYNTHETIC-")
    assert [ds.StudyDate, ds.PatientBirthDate, ds.PatientSex] == ["", "", ""]
    assert (ds.BurnedInAnnotation, ds.RecognizableVisualFeatures) == ("NO", "NO")


def test_a_head_is_not_said_to_show_no_face(tmp_path: Path) -> None:
    ds = pydicom.dcmread(written(tmp_path, IMAGE, replace(FACTS, body_part="BRAIN")))
    assert "RecognizableVisualFeatures" not in ds


def test_identifiers_are_a_function_of_run_seed_and_index(tmp_path: Path) -> None:
    names = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "PatientID")

    def identifiers(**changed) -> list[str]:
        ds = pydicom.dcmread(written(tmp_path, IMAGE, replace(FACTS, **changed)))
        return [str(ds[name].value) for name in names]

    first = identifiers()
    assert identifiers(label="ring", value_range=None) == first
    others = [identifiers(run="x"), identifiers(seed=6), identifiers(index=43)]
    assert len({word for group in (first, *others) for word in group}) == 16
    for uid in first[:3]:
        assert re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+", uid)
        assert len(uid) <= 64


@KINDS
@SHAPES
def test_the_same_draw_gives_the_same_bytes(tmp_path: Path, name: str, image, monkeypatch) -> None:
    """Whenever: the clock is put on in between."""
    first = written(tmp_path, image, name=name).read_bytes()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 1e8)
    assert written(tmp_path, image, name=name).read_bytes() == first


@SHAPES
@pytest.mark.parametrize("facts", [FACTS, ImageFacts()], ids=["known", "unknown"])
def test_dciodvfy_finds_nothing_but_the_tag_that_it_does_not_know(
    tmp_path: Path, image, facts
) -> None:
    """Debian's dicom3tools of 2022 knows no SyntheticData (0008,001C); dates are left empty, since
    there was no day, and it warns of that; of an unknown body part it wants to know the side."""
    if not shutil.which("dciodvfy"):
        pytest.skip("dciodvfy is not installed: apt-get install dicom3tools")
    done = subprocess.run(
        ["dciodvfy", str(written(tmp_path, image, facts))],
        capture_output=True,
        text=True,
        check=False,
    )
    said = [
        line for line in (done.stderr + done.stdout).splitlines() if "0x0008,0x001c" not in line
    ]
    assert [line for line in said if line.startswith("Error")] == []
    kind = "MultiframeGrayscaleWordSCImage" if image.ndim == 4 else "SCImage"
    assert kind in said, "it knows what kind of object this is"
    warned = [line for line in said if "Warning" in line]
    allowed = ("Study Date", "Study Time", "Standard Extended SOP Class", "attribute <Laterality>")
    assert [line for line in warned if not line.rstrip().endswith(allowed)] == []
    assert any("Laterality" in line for line in warned) is (facts is not FACTS)


def test_dciodvfy_finds_what_is_wrong(tmp_path: Path) -> None:
    """The validator itself can fail."""
    if not shutil.which("dciodvfy"):
        pytest.skip("dciodvfy is not installed: apt-get install dicom3tools")
    path = written(tmp_path, IMAGE)
    ds = pydicom.dcmread(path)
    del ds.ConversionType
    ds.save_as(path)
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    assert "Error - Missing attribute Type 1" in done.stderr + done.stdout


@pytest.mark.slow
def test_monai_reads_it_back(tmp_path: Path) -> None:
    reader = pytest.importorskip("monai.data").PydicomReader()
    array, _ = reader.get_data(reader.read(str(written(tmp_path, IMAGE))))
    assert np.abs(array.T - in_units(IMAGE, -1000, 1000)).max() < 0.02


@SHAPES
def test_nifti_has_real_values_and_a_stated_affine(tmp_path: Path, image) -> None:
    path = written(tmp_path, image, replace(FACTS, spacing=(2.0, 0.5, 0.75)), "nifti")
    volume = nibabel.load(path)
    values = np.asarray(volume.dataobj)
    expected = np.atleast_3d(in_units(image, -1000, 1000).T)
    assert np.abs(values - expected).max() < 1e-3
    assert nibabel.aff2axcodes(volume.affine) == ("L", "P", "S")
    assert volume.header.get_zooms() == (0.75, 0.5, 2.0)
    assert [volume.header["qform_code"], volume.header["sform_code"]] == [2, 2]
    assert path.read_bytes()[4:8] == bytes(4), "gzip's time is 0"
    centre = volume.affine @ [*((np.array(values.shape) - 1) / 2), 1]
    assert np.allclose(centre[:3], 0)
    reader = create("reader", "nifti")
    data = reader.read(Source((path,), path.name))
    assert np.abs(np.squeeze(data.values) - in_units(image, -1000, 1000)).max() < 1e-3


@KINDS
def test_what_it_does_not_hold_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="one channel, and the image is 3 x 24 x 20"):
        written(tmp_path, np.repeat(IMAGE, 3, 0), name=name)
    with pytest.raises(DivergedError, match="not finite"):
        written(tmp_path, np.full((1, 4, 4), np.nan, np.float32), name=name)
    assert not list(tmp_path.iterdir())


@KINDS
def test_one_that_was_cut_short_is_known(tmp_path: Path, name: str) -> None:
    writer, path = create("writer", name), written(tmp_path, IMAGE, name=name)
    assert writer.whole(path)
    assert np.abs(writer.load(path, FACTS) - np.clip(IMAGE, -1, 1)).max() < 2e-5
    path.write_bytes(path.read_bytes()[:-100])
    assert not writer.whole(path)
    if name == "dicom":
        with pytest.raises(DataError, match="cut short"):
            read(path)
