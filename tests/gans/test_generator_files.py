"""A generator in an ONNX file: the images of torch, without steps and without torch."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import ssmdiff
from small_gans import small
from ssmdiff import ExportError, load_run
from ssmdiff_cli.main import app
from ssmdiff_export.runtime import ModelCard
from typer.testing import CliRunner, Result


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dcgan", "sagan", "unetgan"])
def test_the_generator_in_an_onnx_file_makes_the_images_of_torch(name: str, tmp_path: Path) -> None:
    from ssmdiff_export.runtime import OnnxSampler

    latent = "uniform" if name == "dcgan" else "normal"
    path = ssmdiff.train(small(name, method={"latent": latent}), tmp_path / "run").path
    opened, file = load_run(path), tmp_path / "generator.onnx"
    result = run("export", path, "--out", file)
    assert result.exit_code == 0, result.output
    assert "compared with torch: largest difference" in result.output
    images = opened.sample(5, seed=2)
    sampler = OnnxSampler(file, threads=1)
    np.testing.assert_allclose(sampler.sample(5, seed=2, batch_size=2), images.numpy(), atol=1e-5)
    card = sampler.card
    assert (card.latent.size, card.latent.distribution) == (8, latent)
    assert card.components["method.network"].startswith(f"{name}: ssmdiff")
    assert "one call" in str(card)
    assert type(card).from_json(card.to_json()) == card
    result = run("sample", file, "--n", 3, "--out", tmp_path / "drawn")
    assert result.exit_code == 0, result.output
    for asked in (["--steps", 4], ["--scheduler", "ddim"]):
        result = run("sample", file, *asked, "--n", 1, "--out", tmp_path / "refused")
        assert result.exit_code == 2
        assert "makes an image in one call" in " ".join(result.output.split())
    import onnx

    ops = {node.op_type for node in onnx.load(file).graph.node}
    assert not {"Sqrt", "ReduceL2", "Div"} & ops or name == "unetgan", "no norm is computed anew"


def test_targets_of_denoisers_refuse_a_generator(trained: Path, tmp_path: Path) -> None:
    for target in ("pt2", "triton-server"):
        with pytest.raises(ExportError, match=f"target {target} holds denoisers"):
            ssmdiff.job("export")(trained, tmp_path / f"file.{target}", target)
    assert list(tmp_path.iterdir()) == []


CARD = {
    "format": 2, "ssmdiff": "0.2.0", "components": {}, "image_size": [16, 16], "channels": 1,
    "class_names": [], "class_conditional": False, "precision": "fp32", "body": "scan",
    "checkpoint": "step-00000002", "weights_sha256": "0" * 64, "slots": [], "recipes": {},
    "parity": None, "external_data": None, "normalisation": [-1.0, 1.0],
    "latent": {"network": {"name": "dcgan"}, "size": 8, "distribution": "uniform"},
}  # fmt: skip


def test_the_card_of_a_generator_is_read_as_that_of_a_stranger() -> None:
    card = ModelCard.from_json(json.dumps(CARD))
    assert card.noise == ssmdiff.Noise((8,), "uniform")
    assert json.loads(card.to_json()) == CARD
    with pytest.raises(ExportError, match="trained by no forward process"):
        card.betas()


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("size", 0, "'size' is 0; expected"),
        ("size", "8", "'size' is '8'"),
        ("distribution", "cauchy", "'distribution' is 'cauchy'"),
        ("network", {}, "'network' is dict"),
        ("more", 1, "unknown key 'more'"),
        (None, None, "'latent' is None; expected an object"),
    ],
)
def test_a_damaged_card_of_a_generator_is_refused(key: str, value: object, sentence: str) -> None:
    latent = None if key is None else CARD["latent"] | {key: value}
    with pytest.raises(ExportError, match=re.escape(sentence)):
        ModelCard.from_json(json.dumps(CARD | {"latent": latent}))
    with pytest.raises(ExportError, match="'sample' is missing"):
        ModelCard.from_json(json.dumps(CARD | {"format": 1}))
