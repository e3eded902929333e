"""From volumes of named patients to store, run, file and page: terms arrive, names do not."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
import ssmdiff
from ssmdiff_cli.main import app
from ssmdiff_data.store import Store
from typer.testing import CliRunner

PLANTED = ("DOE^JANE", "19610203", "1.2.840.113619", "patient1", "Kept Hospital")
GROUPS = ("NOR", "MINF")
SMALL = [
    "train.steps=2", "train.batch_size=2", "train.bound_images=0", "train.sample_every=0",
    "train.callbacks=[]", "model.backbone.channels=8", "model.backbone.widths=[1]",
    "sample.steps=2", "sample.count=1",
]  # fmt: skip


def volume(path: Path, values: np.ndarray) -> None:
    """NIfTI with names where its header has room for text."""
    image = nibabel.Nifti1Image(values, np.diag([1.5, 1.5, 10, 1]))
    image.header["descrip"] = b"DOE^JANE 19610203"
    image.header["aux_file"] = b"1.2.840.113619"
    image.header["db_name"] = b"Kept Hospital"
    nibabel.save(image, path)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four patients of ACDC, three to train on, in its official layout."""
    root = tmp_path_factory.mktemp("acdc")
    for number in (101, 102, 103, 104):
        name = f"patient{number}"
        folder = root / "database" / ("testing" if number == 104 else "training") / name
        folder.mkdir(parents=True)
        (folder / "Info.cfg").write_text(
            f"ED: 1\nES: 2\nGroup: {GROUPS[number % 2]}\nNbFrame: 30\n"
        )
        for frame in (1, 2):
            draw = np.random.default_rng([number, frame])
            values = draw.integers(0, 2000, (20, 18, 3)).astype(np.int16)
            volume(folder / f"{name}_frame{frame:02d}.nii.gz", values)
            volume(folder / f"{name}_frame{frame:02d}_gt.nii.gz", (values % 4).astype(np.uint8))
    return root


@pytest.fixture(scope="module")
def made(database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and a run of it, by the commands."""
    folder = tmp_path_factory.mktemp("made")
    line = ["data", "prepare", str(database / "database"), "--as", "acdc", "--image-size", "16"]
    invoke(*line, "--out", str(folder / "store"))
    sets = [part for text in SMALL for part in ("--set", text)]
    line = ["train", "--data", str(folder / "store"), "--image-size", "16", "--block", "conv"]
    invoke(*line, "--out", str(folder / "run"), *sets)
    return folder


def invoke(*line: str) -> str:
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0, result.output
    return result.output


def contents(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for path in sorted(folder.rglob("*")):
        yield path, path.name.encode()
        if path.is_file():
            yield path, path.read_bytes()


@pytest.mark.slow
def test_the_store_holds_what_the_files_hold(made: Path, database: Path, tmp_path: Path) -> None:
    store = Store(made / "store")
    assert (store.count, store.classes) == (24, ("NOR", "MINF"))
    assert store.table.split.count("test") == 6
    assert len(set(store.table.group)) == 4
    first = nibabel.load(database / "database/training/patient101/patient101_frame01.nii.gz")
    values = np.asarray(first.dataobj).astype(np.float64)
    low, high = np.percentile(values, [0.1, 99.9])
    assert store.table.numbers["low"][0] == pytest.approx(low)
    # RAS on disk: x to the right and y to the front; the picture has the patient's right on its
    # left and the nose up.
    picture = np.clip((values[::-1, ::-1, 0].T - low) / (high - low), 0, 1)
    line = ["data", "prepare", str(database), "--as", "acdc", "--image-size", "18x20"]
    invoke(*line, "--out", str(tmp_path / "whole"))
    stored = Store(tmp_path / "whole").array("image")[0, 0] / 65535
    np.testing.assert_allclose(stored, picture, atol=1.1 / 65535)
    found = ssmdiff.create(
        "dataset", {"name": "acdc", "path": str(made / "store")}, image_size=(16, 16)
    )
    assert found.terms.licence.startswith("CC BY-NC-SA 4.0")
    assert found.augmentation["rotate_deg"] == 10
    mask = store.array("mask")
    assert set(np.unique(mask)) <= {0, 1, 2, 3}
    assert store.arrays["mask"].names[3] == "left ventricle"
    # 20 columns become 16, so a pixel of 1.5 mm becomes one of 1.875.
    assert set(store.table.numbers["row_mm"]) == {1.875}


@pytest.mark.slow
def test_nothing_in_store_or_run_names_a_patient(made: Path) -> None:
    found = [
        (path, word)
        for folder in ("store", "run")
        for path, content in contents(made / folder)
        for word in PLANTED
        if word.encode() in content
    ]
    assert found == []
    groups = set(Store(made / "store").table.group)
    assert all(len(group) == 20 and int(group, 16) >= 0 for group in groups)


@pytest.mark.slow
def test_terms_and_units_arrive_in_the_run_its_checkpoints_and_cite(made: Path) -> None:
    told = tomllib.loads((made / "run" / "config.toml").read_text())
    assert told["data"]["dataset"]["name"] == "acdc"
    assert told["data"]["flip"] is False
    assert told["data"]["augment"] == {"rotate_deg": 10.0, "shift": 0.05, "zoom": 0.1}
    terms = told["provenance"]["data"]["terms"]
    assert terms["name"] == "ACDC"
    assert terms["licence"].startswith("CC BY-NC-SA 4.0")
    run = ssmdiff.load_run(made / "run")
    assert run.data["terms"] == terms
    assert run.data["images"] == {
        "spacing": [1.875, 1.875],
        "modality": "MR",
        "body_part": "HEART",
    }
    state = json.loads((run.checkpoint.path / "state.json").read_text())
    assert state["provenance"]["data"] == run.data
    cited = invoke("cite", str(made / "run"))
    assert cited.count("10.1109/TMI.2018.2837502") == 1
    assert "data ACDC: CC BY-NC-SA 4.0" in cited


@pytest.mark.night
def test_terms_arrive_in_an_exported_file_and_on_a_page(made: Path) -> None:
    pytest.importorskip("onnx")
    from ssmdiff_export.runtime.sampler import OnnxSampler

    invoke("export", str(made / "run"), "--out", str(made / "run.onnx"))
    card = OnnxSampler(made / "run.onnx").card
    assert card.terms["name"] == "ACDC"
    assert "data      ACDC: CC BY-NC-SA 4.0" in str(card)
    invoke(
        "evaluate", str(made / "run"), "--n", "4", "--features", "pixels", "--out", str(made / "e")
    )
    page = (made / "e" / "index.html").read_text()
    assert "ACDC: CC BY-NC-SA 4.0" in page
    assert "10.1109/TMI.2018.2837502" in page
    assert not any(word in page for word in PLANTED)


def series(folder: Path, number: int) -> None:
    """A CT series of four slices, with everything about its patient in the headers."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    root = f"1.2.840.113619.{number}"
    for z in range(4):
        header, header.file_meta = Dataset(), FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = CTImageStorage
        uid = f"{root}.3.{z}"
        header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = uid
        header.StudyInstanceUID, header.SeriesInstanceUID = f"{root}.1", f"{root}.2"
        header.PatientName, header.PatientID = f"DOE^JANE{number}", f"patient1{number}"
        header.PatientBirthDate = header.StudyDate = "19610203"
        header.InstitutionName, header.Modality = "Kept Hospital", "CT"
        header.ImagePositionPatient = [0, 0, 5.0 * z]
        header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        header.PixelSpacing, header.SliceThickness = [2, 2], 5
        header.Rows = header.Columns = 16
        header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
        header.BitsAllocated, header.BitsStored, header.HighBit = 16, 12, 11
        header.PixelRepresentation, header.RescaleIntercept, header.RescaleSlope = 0, -1024, 1
        draw = np.random.default_rng([number, z])
        header.PixelData = draw.integers(0, 3000, (16, 16)).astype("<u2").tobytes()
        folder.mkdir(parents=True, exist_ok=True)
        header.save_as(folder / f"IM{z}", enforce_file_format=True)


def test_a_store_of_dicom_names_nobody_and_keeps_its_units(tmp_path: Path) -> None:
    from ssmdiff_data.prepare import prepare
    from ssmdiff_data.recipe import make_recipe

    for number in range(3):
        series(tmp_path / "in" / f"DOE^JANE{number}", number)
    said: list[str] = []
    recipe = make_recipe(image_size=16, shares="test=0.34")
    store = prepare(tmp_path / "in", tmp_path / "store", recipe, say=said.append).store
    assert "patients: 3, as the files say" in said
    assert (store.count, len(set(store.table.group))) == (12, 3)
    assert (store.fact_text("units"), store.fact_text("modality")) == ("HU", "CT")
    draw = np.random.default_rng([0, 0]).integers(0, 3000, (16, 16)) - 1024.0
    low, high = store.table.numbers["low"][0], store.table.numbers["high"][0]
    assert (low, high) == (-1000, 1000)
    expected = (draw.clip(low, high) - low) / (high - low) * 65535
    np.testing.assert_allclose(store.array("image")[0, 0], expected, atol=0.51)
    assert set(store.table.numbers["row_mm"]) == {2.0}
    assert set(store.table.numbers["between_mm"]) == {5.0}
    for path, content in contents(tmp_path / "store"):
        assert not any(word.encode() in content for word in PLANTED), path
