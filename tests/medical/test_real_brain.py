"""The MNI152 template that nilearn brings along, from its file to samples: nobody here drew it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ssmdiff_cli.main import app
from ssmdiff_data.store import Store
from typer.testing import CliRunner

SMALL = ["--steps", "4", "--batch-size", "2", "--set", "train.bound_images=0", "--block", "conv"]


def invoke(*line: str) -> str:
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.night
def test_a_real_brain_from_its_file_to_samples(tmp_path: Path) -> None:
    datasets = pytest.importorskip("nilearn.datasets")
    template = datasets.load_mni152_template(resolution=2)
    (tmp_path / "in").mkdir()
    template.to_filename(tmp_path / "in" / "mni.nii.gz")
    shown = invoke("data", "show", str(tmp_path / "in"))
    assert "99" in shown
    line = ["data", "prepare", str(tmp_path / "in"), "--axis", "axial", "--slices", "content:0.1"]
    invoke(*line, "--image-size", "32", "--out", str(tmp_path / "store"))
    store = Store(tmp_path / "store")
    assert set(store.table.split) == {"train"}
    pictures = store.array("image")[:, 0].astype(float)
    # Against the volume as nibabel gives it: x to the right, y to the front, z to the head.
    volume = np.asarray(template.dataobj)
    kept = np.round(np.array(store.table.numbers["position"]) * volume.shape[2] - 0.5).astype(int)
    light = volume[:, :, kept].sum((0, 1))
    assert np.corrcoef(light, pictures.sum((1, 2)))[0, 1] > 0.999
    front = volume[:, volume.shape[1] // 2 :, kept].sum((0, 1)) / light
    assert np.corrcoef(front, pictures[:, :16].sum((1, 2)) / pictures.sum((1, 2)))[0, 1] > 0.99
    invoke("train", "--data", str(tmp_path / "store"), *SMALL, "--out", str(tmp_path / "run"))
    invoke(
        "sample", str(tmp_path / "run"), "--n", "2", "--steps", "2", "--out", str(tmp_path / "s")
    )
    assert len(list((tmp_path / "s").glob("0*.png"))) == 2
    told = invoke("evaluate", str(tmp_path / "run"), "--n", "4", "--features", "pixels")
    assert "the data is of one patient alone" in " ".join(told.split())
