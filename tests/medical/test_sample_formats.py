"""``ssmdiff sample --format``: which files, in whose units, and what is refused before any work."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from ssmdiff.runs import checkpoint
from ssmdiff_cli.main import app
from tiny_runs import STACK, tiny_run
from typer.testing import CliRunner

SLOW = pytest.mark.slow
LOW, HIGH = 200.0, 2200.0
PLANTED = ("PLANTED", "NACHNAME", "19591231", "4711-4712")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that knows its data's units, in a folder that is called by a patient's name."""
    folder = tmp_path_factory.mktemp("NACHNAME^PLANTED-19591231") / "4711-4712"
    return known(folder)


def known(folder: Path, channels: int = 1) -> Path:
    tiny_run(folder, ("disc", "ring"), backbone=STACK, channels=channels)
    facts = {"value_range": [LOW, HIGH], "units": "HU", "modality": "CT", "body_part": "CHEST",
             "spacing": [0.5, 0.75]}  # fmt: skip
    made = folder / "checkpoints" / "step-00000001"
    (state := json.loads((made / "state.json").read_text()))["provenance"] = {
        "data": {"images": facts}
    }
    tensors = {name: checkpoint.verify(made).tensors(name) for name in ("model", "ema")}
    checkpoint.save(folder / "checkpoints", 1, tensors, state)
    return folder


def sample(run: Path, out: Path, *flags: object, code: int = 0) -> str:
    command = ["sample", run, "--n", 4, "--steps", 2, "--batch-size", 4, "--out", out, *flags]
    done = CliRunner().invoke(app, [str(word) for word in command])
    assert done.exit_code == code, done.output
    assert not isinstance(done.exception, AssertionError)
    return done.output + str(done.exception or "")


def drawn(run: Path, out: Path) -> list[np.ndarray]:
    """What the network drew, -1 to 1."""
    sample(run, out, "--format", "npy")
    return [np.load(path).astype(np.float64) for path in sorted(out.glob("*.npy"))]


def test_every_format_holds_the_same_images_in_its_units(run: Path, tmp_path: Path) -> None:
    images = [np.clip(x, -1, 1) for x in drawn(run, tmp_path / "npy")]
    real = [(x[0] + 1) / 2 * (HIGH - LOW) + LOW for x in images]
    read = {
        "png": (1e-2, lambda p: np.asarray(Image.open(p)) / 255 * (HIGH - LOW) + LOW),
        "png16": (1e-4, lambda p: np.asarray(Image.open(p)) / 65535 * (HIGH - LOW) + LOW),
        "nifti": (1e-6, lambda p: np.asarray(nibabel.load(p).dataobj)[..., 0].T),
        "dicom": (1e-4, lambda p: pydicom.dcmread(p)),
    }
    for name, (error, opened) in read.items():
        out = tmp_path / name
        said = sample(run, out, "--format", name)
        files = sorted(p for p in out.iterdir() if p.name[:6].isdigit())
        assert len(files) == 4
        assert str(files[0]) in said.replace("\n", "")
        assert (out / "grid.png").stat().st_size > 100, "a grid, whatever the format"
        record = json.loads((out / "samples.json").read_text())
        assert record["format"] == name
        assert list(record["labels"]) == [file.name for file in files]
        for i, (file, expected) in enumerate(zip(files, real, strict=True)):
            values = opened(file)
            if name == "dicom":
                assert record["labels"][file.name] in values.DerivationDescription
                assert (values.Modality, values.InstanceNumber) == ("CT", 1)
                assert f"image {i}," in values.DerivationDescription
                values = values.pixel_array * float(values.RescaleSlope) + values.RescaleIntercept
            assert np.abs(values - expected).max() <= error * (HIGH - LOW)


@pytest.mark.parametrize("name", ["npy", pytest.param("png16", marks=SLOW)])
def test_units_of_the_data_on_demand(run: Path, tmp_path: Path, name: str) -> None:
    images = [np.clip(x, -1, 1) for x in drawn(run, tmp_path / "plain")]
    sample(run, tmp_path / "out", "--format", name, "--set", "units=data")
    files = sorted(p for p in (tmp_path / "out").iterdir() if p.name[:6].isdigit())
    for file, x in zip(files, images, strict=True):
        values = np.load(file)[0] if name == "npy" else np.asarray(Image.open(file))
        expected = (x[0] + 1) / 2 * (HIGH - LOW) + LOW
        bound = 1e-3 if name == "npy" else 0.5 + 1e-3
        inside = np.abs(np.clip(values, LOW, HIGH) - expected)
        assert inside.max() <= bound
    assert json.loads((tmp_path / "out" / "samples.json").read_text())["format"] == {
        "name": name, "units": "data",
    }  # fmt: skip


@pytest.mark.parametrize(
    "name", ["dicom", *(pytest.param(name, marks=SLOW) for name in ("nifti", "png16"))]
)
def test_a_set_in_parts_and_resumed_is_the_set_to_the_byte(run: Path, tmp_path: Path, name) -> None:
    def files(folder: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    sample(run, tmp_path / "whole", "--format", name)
    for part in ("2:4", "0:2"):
        sample(run, tmp_path / "parts", "--format", name, "--indices", part)
    whole = files(tmp_path / "whole")
    assert files(tmp_path / "parts") == whole
    first = min(tmp_path.glob("parts/0*"))
    first.write_bytes(first.read_bytes()[:-60])  # cut short: drawn again
    max(tmp_path.glob("parts/0*")).unlink()
    (tmp_path / "parts" / f".tmp-{first.name}-1").write_bytes(b"of a killed process")
    sample(run, tmp_path / "parts", "--format", name)
    assert files(tmp_path / "parts") == whole


@SLOW
def test_another_format_or_unit_is_another_set(run: Path, tmp_path: Path) -> None:
    sample(run, tmp_path / "out", "--format", "png16")
    said = sample(run, tmp_path / "out", "--format", "png", code=2)
    assert "format 'png16', now 'png'" in said
    sample(run, tmp_path / "out", "--format", "dicom", "--overwrite")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [*(f"{i:06d}.dcm" for i in range(4)), "grid.png", "samples.json"]


REFUSED = {
    "near": (["--format", "dicm"], 2, "did you mean 'dicom'"),
    "option": (["--set", "units=data"], 2, "units"),
    "unit": (["--format", "npy", "--set", "units=dat"], 2, "units"),
    "near option": (["--format", "npy", "--set", "unit=data"], 2, "did you mean 'units'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_said_before_anything_is_written(run: Path, tmp_path: Path, name) -> None:
    flags, code, words = REFUSED[name]
    said = sample(run, tmp_path / "out", *flags, code=code)
    assert words in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_formats_that_do_not_hold_the_images(tmp_path: Path, monkeypatch) -> None:
    """Three channels, and units that a run does not know: not one image is drawn for it."""
    from ssmdiff.runs.run import Run

    monkeypatch.setattr(Run, "denoiser", lambda self: pytest.fail("an image is drawn"))
    colour, plain = known(tmp_path / "colour", channels=3), tmp_path / "plain"
    for name in ("dicom", "nifti", "png16"):
        said = sample(colour, tmp_path / "out", "--format", name, code=2)
        assert "the image is 3 x 8 x 8" in said
    tiny_run(plain, backbone=STACK)
    said = sample(plain, tmp_path / "out", "--format", "npy", "--set", "units=data", code=2)
    assert "does not know its data's own units" in said
    assert not (tmp_path / "out").exists()


def test_a_missing_package_names_the_extra(run: Path, tmp_path: Path, monkeypatch) -> None:
    import sys

    for name in [n for n in sys.modules if n.startswith("ssmdiff_medical.dicom")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    from ssmdiff.registry.registry import registry

    registry.cache_clear()
    said = sample(run, tmp_path / "out", "--format", "dicom", code=3)
    registry.cache_clear()
    assert "'pydicom', which is not installed. Try: pip install 'ssmdiff[medical]'" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name", ["dicom", *(pytest.param(n, marks=SLOW) for n in ("png", "png16", "npy", "nifti"))]
)
def test_nothing_of_a_patient_or_a_folder_is_in_the_set(run: Path, tmp_path: Path, name) -> None:
    """The run's folder is called by a name, a date and a number; no byte of the set is."""
    sample(run, tmp_path / "out", "--format", name)
    for path in (tmp_path / "out").iterdir():
        data = path.read_bytes()
        if path.name.endswith(".gz"):
            import gzip

            data += gzip.decompress(data)
        for word in PLANTED:
            assert word.encode() not in data


@SLOW
def test_nobody_is_named_from_the_scanner_to_the_sample(tmp_path: Path, monkeypatch) -> None:
    """A folder of DICOM with planted names, dates and numbers: prepared, trained on and sampled.
    None of them is in a file, and the samples are in Hounsfield units of the window."""
    from dicom_files import AXIAL, write

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for patient in range(2):
        for z in range(3):
            write(
                Path(f"scans/PLANTED^NACHNAME{patient}/4711-4712-{z}"),
                (1000 + 30 * z + rng.integers(0, 90, (16, 16))).astype("<u2"),
                Modality="CT",
                PatientID=f"4711-4712-{patient}",
                PatientName=f"PLANTED^NACHNAME{patient}",
                PatientBirthDate="19591231",
                SeriesInstanceUID=f"1.2.3.4711.{patient}",
                SeriesDescription="PLANTED",
                ImagePositionPatient=[0, 0, 2.0 * z],
                ImageOrientationPatient=AXIAL,
                PixelSpacing=[0.5, 0.5],
                RescaleSlope="1",
                RescaleIntercept="-1024",
                WindowCenter="40",
                WindowWidth="400",
            )
    train = "train --data ./store --image-size 16 --out run --steps 1 --batch-size 2 --set"
    for command in (
        "data prepare scans --out store --image-size 16",
        f"{train} train.bound_images=0 --set sample.steps=2",
        "sample run --n 2 --steps 2 --format dicom --out dicom",
        "sample run --n 2 --steps 2 --format nifti --out nifti",
    ):
        done = CliRunner().invoke(app, command.split())
        assert done.exit_code == 0, done.output
    made = [p for room in ("store", "run", "dicom", "nifti") for p in Path(room).rglob("*")]
    assert len(made) > 15
    for path in (p for p in made if p.is_file()):
        for word in PLANTED:
            assert word.encode() not in path.read_bytes(), path
            assert word not in str(path)
    ds = pydicom.dcmread("dicom/000000.dcm")
    assert (ds.Modality, ds.RescaleType, ds.RescaleIntercept) == ("CT", "HU", -160)
    assert abs(ds.RescaleSlope * 65535 - 399) < 1e-6
    assert ds.PixelSpacing == [0.5, 0.5]
