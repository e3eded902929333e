"""What a run cannot begin with: a sentence each, with the next step, and nothing is written."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import ssmdiff
import torch
from other_runs import SHORT, begun
from ssmdiff import CheckpointError, ConfigError, RunFolder, load_run
from ssmdiff_train import init_from, matching
from ssmdiff_train.job import train


def refused(config, out, error=ConfigError):
    """The sentence, as it comes before anything is written."""
    with pytest.raises(error) as said:
        begun(config, out)
    return str(said.value)


def test_nothing_is_written_and_no_step_is_done(tiny, old, tmp_path):
    config = tiny(model={"backbone": {"channels": 16}}, train={**SHORT, "init_from": old[0]})
    with pytest.raises(ConfigError, match="its weights do not fit this run's network"):
        train(config, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_another_width_is_refused_with_keys_and_a_way_that_works(tiny, old, tmp_path):
    path, _ = old
    model = {"backbone": {"channels": 16, "widths": [1, 2, 2]}, "block": {"state": 8}}
    said = refused(tiny(model=model, train={"init_from": path}), tmp_path / "new")
    assert f"train.init_from = {path} (step-00000007): its weights do not fit" in said
    assert "embedding.expand.weight is (32, 8) there and (64, 16) here" in said
    assert " more. It comes of model.backbone.channels (8 there, 16 here), " in said
    assert "dropout" not in said, "which differs and is of no shape"
    advice = shlex.split(said.partition("Try: ")[2].partition(", or ")[0])
    assert advice[::2] == ["--set"] * 3
    assert advice[1::2] == [
        "model.backbone.channels=8", "model.backbone.widths=[1, 2]", "model.block.state=4",
    ]  # fmt: skip
    asked = ssmdiff.Layer(tiny(model=model, train={"init_from": path}).to_dict(), "a run", True)
    equal = ssmdiff.resolve_flags(run=asked, sets=advice[1::2])
    begun(equal, tmp_path / "new")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"block": {"name": "vss"}}, ["the block 'mss' and this run 'vss'",
                                      "--set model.block.name=mss", "--set model.block.state=4"]),
        ({"backbone": {"name": "isotropic", "channels": 16, "depth": 1}},
         ["the backbone 'vmddpm' and this run 'isotropic'", "--set model.backbone.name=vmddpm",
          "--set model.backbone.channels=8", "--set 'model.backbone.widths=[1, 2]'"]),
    ],
)  # fmt: skip
def test_another_block_or_backbone_is_refused_by_name(tiny, old, tmp_path, model, words):
    said = refused(tiny(model=model, train={"init_from": old[0]}), tmp_path / "new")
    for word in words:
        assert word in said, said


def test_a_scan_of_other_directions_is_refused_and_of_as_many_is_told(tiny, old, tmp_path):
    path, _ = old
    said = refused(tiny(model={"scan": "raster"}, train={"init_from": path}), tmp_path / "new")
    assert "block.csm." in said
    assert "--set model.scan.name=regenerate" in said
    config = tiny(model={"scan": "cross"}, data={"image_size": 8}, train={"init_from": path})
    method, found = begun(config, tmp_path / "new")
    assert method.plan.scan.directions(2) == 4
    assert "model.scan.name: 'regenerate' -> 'cross'" in found.record["differs"]
    assert "data.image_size: [16, 16] -> [8, 8]" in found.record["differs"]
    assert "  differs: model.scan.name: 'regenerate' -> 'cross'" in found.lines
    assert not found.doubts


def test_another_prediction_is_a_doubt(tiny, old, tmp_path):
    config = tiny(diffusion={"prediction": "v_prediction"}, train={"init_from": old[0]})
    _, found = begun(config, tmp_path / "new")
    (doubt,) = found.doubts
    assert "predicts 'epsilon' and this run trains it to predict 'v_prediction'" in doubt


def test_what_is_no_run_or_no_checkpoint_is_refused(tiny, old, tmp_path):
    path, _ = old
    near = str(Path(path).with_name("odl"))
    said = refused(tiny(train={"init_from": near}), tmp_path / "new", CheckpointError)
    assert said == f"train.init_from: there is no run folder {near}; did you mean 'old'?"
    lacking = {"init_from": path, "init_checkpoint": "step-00000008"}
    said = refused(tiny(train=lacking), tmp_path / "new", CheckpointError)
    assert said.startswith("train.init_from: there is no checkpoint at ")
    best = {"init_from": path, "init_checkpoint": "best"}
    said = refused(tiny(train=best), tmp_path / "new", CheckpointError)
    assert "names no best checkpoint" in said
    said = refused(tiny(train={"init_checkpoint": "best"}), tmp_path / "new")
    assert "Give --init-from RUN too" in said
    for wrong in ("newest", "step-7", ""):
        with pytest.raises(ConfigError, match=r"train\.init_checkpoint"):
            tiny(train={"init_from": path, "init_checkpoint": wrong})
    with pytest.raises(ConfigError, match=r"train\.init_from"):
        tiny(train={"init_from": ""})
    damaged = Path(path, "checkpoints/step-00000007/ema.safetensors")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    said = refused(tiny(train={"init_from": path}), tmp_path / "new", CheckpointError)
    assert "is damaged" in said


def test_a_run_is_not_replaced_by_one_that_begins_with_it(tiny, old, tmp_path):
    path, tensors = old
    with pytest.raises(ConfigError, match=r"lies in --out .* which is written anew"):
        train(tiny(train={**SHORT, "init_from": path}), path, overwrite=True)
    assert torch.equal(load_run(path).model.stem.weight, tensors["ema"]["stem.weight"])


@pytest.mark.slow
def test_a_resumed_run_cannot_begin_anew(tiny, old, tmp_path):
    train(tiny(train=SHORT), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"train\.init_from: not set -> '"):
        train(tiny(train={**SHORT, "steps": 2, "init_from": old[0]}), tmp_path / "run", resume=True)


def test_images_of_a_number_of_channels_that_a_network_refuses(tiny, old, tmp_path, monkeypatch):
    """Where it cannot be built as the other run has it, nothing is mapped."""
    plain = matching.build_method

    def picky(config, channels, conditions):
        if channels != 2:
            raise ConfigError("two channels alone")
        return plain(config, channels, conditions)

    config = tiny(train={"init_from": old[0]})
    method = plain(config, 2)
    monkeypatch.setattr(matching, "build_method", picky)
    with pytest.raises(ConfigError, match=r"stem\.weight is \(8, 1, 3, 3\) there"):
        init_from.begin(config, RunFolder(tmp_path / "new"), method, 2, ssmdiff.Conditions())
