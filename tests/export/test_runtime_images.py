"""A trained model's images, from torch and from its file: the same, in every way of sampling it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ssmdiff_cli.main import app
from ssmdiff_export.onnx_export import export_onnx
from ssmdiff_export.runtime import OnnxSampler
from tiny_runs import tiny_run
from typer.testing import CliRunner

RANGE = 2.0  # -1 to 1


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of VM-DDPM with fresh orders at every call, and its file."""
    folder = tmp_path_factory.mktemp("made")
    run = tiny_run(folder / "run", scan={"name": "regenerate", "base": "atrous"})
    export_onnx(run, folder / "model.onnx")
    return run, folder / "model.onnx"


@pytest.mark.slow
def test_16_images_of_50_ddim_steps_are_those_of_torch(made):
    run, file = made
    options = {"seed": 5, "steps": 50, "scheduler": "ddim"}
    expected = run.sample(16, **options).numpy()
    images = OnnxSampler(file, threads=1).sample(16, **options)
    difference = float(np.abs(images - expected).max())
    print(f"16 images, 50 DDIM steps: largest difference {difference / RANGE:.1e} of the range")
    assert difference < 1e-3 * RANGE
    assert expected.std() > 0.05
    another = OnnxSampler(file, threads=1).sample(2, **options | {"seed": 6})
    assert np.abs(another - expected[:2]).max() > 0.1


@pytest.mark.parametrize("scheduler", ["ddpm", "dpmpp", "euler", "heun"])
def test_every_numpy_scheduler_draws_the_images_of_torch(made, scheduler):
    run, file = made
    options = {"seed": 1, "steps": 10, "scheduler": scheduler}
    expected = run.sample(3, **options).numpy()
    images = OnnxSampler(file, threads=1).sample(3, **options)
    assert np.abs(images - expected).max() < 1e-3 * RANGE


def sample(*arguments):
    result = CliRunner().invoke(app, ["sample", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_writes_the_same_folder_from_a_run_and_from_a_file(made, tmp_path):
    run, file = made
    options = ("--n", 5, "--seed", 3, "--scheduler", "unipc", "--format", "npy", "--batch-size", 2)
    sample(run.folder.path, "--out", tmp_path / "run", *options)
    assert "grid:" in sample(file, "--out", tmp_path / "file", *options)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == sorted(
        p.name for p in (tmp_path / "file").iterdir()
    )
    for i in range(5):
        one, other = (np.load(tmp_path / place / f"{i:06d}.npy") for place in ("run", "file"))
        assert np.abs(one - other).max() < 1e-3 * RANGE
    ours, theirs = (
        json.loads((tmp_path / place / "samples.json").read_text()) for place in ("file", "run")
    )
    assert theirs.items() <= ours.items()
    assert ours["provider"] == "cpu"
    assert len(ours["file_sha256"]) == 64
    assert ours["parity"]["max_rel"] <= ours["parity"]["tolerance"]


def test_the_command_goes_on_where_it_was_stopped(made, tmp_path):
    _, file = made
    out = tmp_path / "out"
    sample(file, "--out", out, "--n", 4, "--steps", 2)
    first = {p.name: p.read_bytes() for p in out.glob("00*.png")}
    (out / "000002.png").unlink()
    sample(file, "--out", out, "--n", 4, "--steps", 2)
    assert {p.name: p.read_bytes() for p in out.glob("00*.png")} == first
