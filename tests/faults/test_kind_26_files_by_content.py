"""Kind 26: a file is told by what it holds, and a flag that a target ignores is refused.

``tests/export/test_targets.py`` has the exporters of strangers and each flag beside each target;
here are files of every origin under every other's name.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import ssmdiff
import torch
from model_files import model, write
from PIL import Image
from ssmdiff_cli.main import app
from ssmdiff_export.runtime import OnnxSampler
from tiny_runs import SMALLEST, tiny_run
from typer.testing import CliRunner, Result


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def said(result: Result) -> str:
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> ssmdiff.Run:
    return tiny_run(
        tmp_path_factory.mktemp("run") / "run", backbone=SMALLEST, scan={"name": "raster"}
    )


@pytest.mark.parametrize("name", ["m.pt2", "m.pth", "m.zip", "m.engine", "m", "m.onnx.bak"])
def test_an_onnx_file_draws_its_images_under_any_name(tmp_path: Path, name: str) -> None:
    proto, out = model(), tmp_path / "drawn"
    proto.producer_name = "pytorch"  # as what exports has it
    known = OnnxSampler(write(tmp_path / "known.onnx", proto)).sample(2, steps=2)
    result = invoke(
        "sample",
        write(tmp_path / name, proto),
        "--n",
        2,
        "--steps",
        2,
        "--format",
        "npy",
        "--out",
        out,
    )
    assert result.exit_code == 0, result.output
    drawn = np.stack([np.load(out / f"00000{i}.npy") for i in range(2)])
    np.testing.assert_allclose(drawn, known, atol=1e-5)


def of_another_kind() -> dict[str, bytes]:
    picture, archive, weights = io.BytesIO(), io.BytesIO(), io.BytesIO()
    Image.new("L", (8, 8)).save(picture, "png")
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("archive/data.pkl", pickle.dumps({"weight": 1}))
    torch.save({"weight": torch.zeros(3)}, weights)
    return {
        "a picture": picture.getvalue(),
        "an archive": archive.getvalue(),
        "weights of torch.save": weights.getvalue(),
        "a pickle": pickle.dumps([1, 2]),
        "text": b"not a model\n" * 30,
        "nothing": b"",
    }


@pytest.mark.parametrize("suffix", [".onnx", ".pt2", ".bin"])
@pytest.mark.parametrize("content", of_another_kind().values(), ids=of_another_kind())
def test_what_is_no_model_is_a_sentence_that_accuses_nobody(
    tmp_path: Path, content: bytes, suffix: str
) -> None:
    file = tmp_path / f"m{suffix}"
    file.write_bytes(content)
    result = invoke("sample", file, "--out", tmp_path / "drawn")
    assert result.exit_code in (1, 2), result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert str(file) in said(result) or file.name in said(result)
    assert not (tmp_path / "drawn").exists()


def test_a_file_is_not_written_under_the_name_of_another_target(
    run: ssmdiff.Run, tmp_path: Path
) -> None:
    for name, to in (("m.pt2", "onnx"), ("m.engine", "onnx"), ("m.onnx", "pt2")):
        out = tmp_path / name
        result = invoke("export", run.folder.path, "--to", to, "--out", out, "--no-verify")
        assert result.exit_code == 2, result.output
        assert f"{out}: files of target " in said(result)
    assert not any(tmp_path.iterdir())
