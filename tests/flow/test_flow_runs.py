"""A flow in a run folder and in files: trained, resumed, sampled, judged, exported."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmdiff
import torch
from small_flows import small
from ssmdiff import ConfigError, ExportError, RunFolder, hookimpl, load_run
from ssmdiff_cli.main import app
from ssmdiff_export.runtime import ModelCard, OnnxSampler
from ssmdiff_export.runtime.card import Flow
from typer.testing import CliRunner, Result

FILES = ("model", "ema", "optimizer")
SAMPLERS = ("flow-euler", "flow-heun", "flow-adams")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def lines(folder: Path) -> list[dict[str, Any]]:
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in row.items() if k != "images_per_s"} for row in rows]


def test_a_run_says_what_it_is(trained: Path) -> None:
    written = tomllib.loads((trained / "config.toml").read_text())
    assert written["method"] == {
        "name": "flow", "times": "logit-normal", "mean": 0.0, "std": 1.0, "shift": 1.0,
        "base_size": 64, "error": "squared",
    }  # fmt: skip
    assert "diffusion" not in written
    assert written["sample"]["scheduler"]["name"] == "flow-adams"
    assert "method flow" in repr(RunFolder(trained))
    assert "method flow, backbone vmddpm, block conv, scan regenerate" in repr(load_run(trained))
    found = {p.name for p in (trained / "checkpoints" / "step-00000002").iterdir()}
    assert {f"{name}.safetensors" for name in FILES} <= found
    result = run("cite", trained)
    for number in ("2209.03003", "2210.02747", "2403.03206"):
        assert f"arxiv.org/abs/{number}" in result.output


def test_a_resumed_run_is_the_one_never_stopped_to_the_bit(tmp_path: Path) -> None:
    settings = {"steps": 4, "schedule": "cosine", "held_out_every": 2, "held_out_images": 4}
    data = {"image_size": 16, "dataset": {"name": "phantom", "length": 40}}
    whole = ssmdiff.train(small(train=settings, data=data), tmp_path / "whole")

    class Stop:
        @hookimpl
        def ssmdiff_step_end(self, record: ssmdiff.StepRecord) -> None:
            if record.step == 2:
                raise KeyboardInterrupt

    config = small(train={**settings, "checkpoint_every": 1}, data=data)
    with pytest.raises(KeyboardInterrupt):
        ssmdiff.train(config, tmp_path / "cut", callbacks=[Stop()])
    cut = ssmdiff.train(None, tmp_path / "cut", resume=True)
    for name in FILES:
        ours, theirs = (folder.checkpoint().tensors(name) for folder in (whole, cut))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name
    assert lines(cut.path) == lines(whole.path)
    assert [row["step"] for row in lines(whole.path) if "held_out_loss" in row] == [2, 4]


@pytest.mark.slow
def test_bits_per_dimension_are_told_where_they_are_asked_for(tmp_path: Path) -> None:
    config = small(train={"steps": 1, "bound_images": 2})
    folder = ssmdiff.train(config, tmp_path / "run").path
    (bits,) = [row["bits_per_dim"] for row in lines(folder) if "bits_per_dim" in row]
    # An untrained network's flow stands still, so pixels are judged by N(0, 1).
    assert 7 < bits < 9.5


def test_another_process_is_refused_by_a_sentence_that_lists_what_fits(trained: Path) -> None:
    result = run("sample", trained, "--scheduler", "ddim", "--n", 1)
    assert result.exit_code == 2
    told = " ".join(result.output.split())
    assert "'ddim' walks back the process 'diffusion'" in told
    assert "expected one of flow-adams, flow-euler, flow-heun" in told
    for name in SAMPLERS:
        images = load_run(trained).sample(2, scheduler=name, steps=1)
        assert images.shape == (2, 1, 16, 16)


def test_a_walk_with_another_order_or_shift_is_asked_for_by_its_options(trained: Path) -> None:
    opened = load_run(trained)
    shifted = opened.sampling({"name": "flow-adams", "order": 3, "shift": 2.0}, steps=5)
    scheduler = opened.new_scheduler(shifted.scheduler)
    scheduler.set_timesteps(5)
    assert scheduler.order == 3
    assert scheduler.timesteps[1] == pytest.approx(1000 * 2 * 0.8 / (1 + 0.8))


# Files


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run whose every weight has an effect, and its ONNX file."""
    folder = tmp_path_factory.mktemp("files")
    settings = {"steps": 8, "learning_rate": 5e-3}
    model = {"block": "mss", "class_conditional": True}
    config = small(method={"shift": 2.0}, train=settings, model=model)
    ssmdiff.train(config, folder / "run")
    ssmdiff.job("export")(folder / "run", folder / "flow.onnx")
    return folder / "run", folder / "flow.onnx"


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_torch_and_onnx_draw_the_same_images(made: tuple[Path, Path], name: str) -> None:
    path, file = made
    sampler = OnnxSampler(file, threads=1)
    wanted = load_run(path).sample(4, seed=2, scheduler=name, steps=3)
    assert wanted.std() > 0.05
    found = sampler.sample(4, seed=2, scheduler=name, steps=3, batch_size=2)
    np.testing.assert_allclose(found, wanted.numpy(), atol=2e-5)


@pytest.mark.slow
def test_the_card_says_which_process_it_is(made: tuple[Path, Path]) -> None:
    card = OnnxSampler(made[1], threads=1).card
    assert card.flow == Flow(2.0)
    assert card.diffusion is None
    assert card.scheduler["name"] == "flow-adams"
    assert "rectified flow, times shifted by 2, predicts the velocity" in str(card)
    document = json.loads(card.to_json())
    assert (document["format"], document["flow"]) == (3, {"shift": 2.0})
    assert not {"diffusion", "latent"} & document.keys()
    assert ModelCard.from_json(card.to_json()).to_json() == card.to_json()
    with pytest.raises(ExportError, match="holds a flow, which was trained by no forward process"):
        card.betas()
    for damage, sentence in (
        ({"flow": {}}, "'shift' is missing"),
        ({"flow": {"shift": 0}}, "'shift' is 0"),
        ({"flow": {"shift": 1.0, "more": 1}}, "unknown key 'more'"),
        ({"flow": None}, "'flow' is None; expected an object"),
        ({"format": 1}, "'diffusion' is missing"),
        ({"format": 4}, "has format 4; this version reads 1 to 3"),
    ):
        with pytest.raises(ExportError, match=sentence):
            ModelCard.from_json(json.dumps(document | damage))


@pytest.mark.slow
def test_a_file_refuses_a_scheduler_of_the_other_process(made: tuple[Path, Path]) -> None:
    result = run("sample", made[1], "--scheduler", "heun", "--n", 1)
    assert result.exit_code == 2
    told = " ".join(result.output.split())
    assert "'heun' walks back the process 'diffusion', and the model is trained on" in told
    assert "expected one of flow-adams, flow-euler, flow-heun" in told
    with pytest.raises(ConfigError, match="expected one of flow-euler, flow-heun, flow-adams"):
        OnnxSampler(made[1], threads=1).sample(1, scheduler="unipc")


@pytest.mark.slow
@pytest.mark.parametrize("target", ["pt2", pytest.param("triton-server", marks=pytest.mark.night)])
def test_other_targets_hold_a_flow(made: tuple[Path, Path], target: str, tmp_path: Path) -> None:
    out = tmp_path / ("model.pt2" if target == "pt2" else "repository")
    ssmdiff.job("export")(made[0], out, target)
    if target == "pt2":
        opened = ssmdiff.open_model(out)
        wanted = load_run(made[0]).sample(2, seed=1, steps=2)
        torch.testing.assert_close(opened.sample(2, seed=1, steps=2), wanted, atol=2e-5, rtol=0)
        return
    (card,) = out.rglob("card.json")
    assert ModelCard.from_json(card.read_bytes()).flow == Flow(2.0)
