"""A resumed run is the run that was never stopped, to the bit."""

import json
import os
import signal

import pytest
import torch
from ssmdiff import hookimpl
from ssmdiff.errors import CheckpointError, ConfigError, RunInterruptedError
from ssmdiff.runs.run import RunFolder
from ssmdiff_train.callbacks import read_metrics
from ssmdiff_train.job import train


class InterruptIn:
    """Sends the process what Ctrl-C sends, so that it arrives in the given step."""

    def __init__(self, step):
        self.step = step

    @hookimpl
    def ssmdiff_step_end(self, record):
        if record.step == self.step - 1:
            os.kill(os.getpid(), signal.SIGINT)


def outcome(folder):
    checkpoint = folder.checkpoint()
    losses = [
        line["loss"] for line in read_metrics(folder.path / "metrics.jsonl") if "loss" in line
    ]
    tensors = {name: checkpoint.tensors(name) for name in ("model", "ema", "optimizer")}
    return checkpoint.state(), losses, tensors


def assert_same(a, b):
    assert a[1] == b[1], "losses"
    for name, tensors in a[2].items():
        assert tensors.keys() == b[2][name].keys()
        for key, value in tensors.items():
            assert torch.equal(value, b[2][name][key]), f"{name}: {key}"
    assert (a[0]["step"], a[0]["images_seen"]) == (b[0]["step"], b[0]["images_seen"])


@pytest.mark.parametrize(
    ("workers", "micro"), [(0, None), pytest.param(2, 2, marks=pytest.mark.slow)]
)
def test_30_steps_are_13_then_17_to_the_bit(tiny, tmp_path, workers, micro):
    """Weights, EMA, optimiser, losses; mid-epoch (10 images, batch 4), random orders, dropout."""
    changes = {"steps": 30} | ({"micro_batch_size": micro} if micro else {})
    config = tiny(train=changes, data={"workers": workers})
    whole = train(config, tmp_path / "whole")
    with pytest.raises(RunInterruptedError) as stopped:
        train(config, tmp_path / "parts", callbacks=[InterruptIn(13)])
    assert stopped.value.exit_code == 130
    assert RunFolder(tmp_path / "parts").checkpoint().step == 13
    parts = train(config, tmp_path / "parts", resume=True)
    assert_same(outcome(whole), outcome(parts))


@pytest.mark.slow
def test_a_run_can_be_made_longer_and_its_checkpoints_kept_in_step(tiny, tmp_path):
    train(tiny(train={"steps": 2, "schedule": "constant"}), tmp_path / "run")
    longer = tiny(train={"steps": 4, "schedule": "constant"})
    folder = train(longer, tmp_path / "run", resume=True)
    straight = train(longer, tmp_path / "straight")
    assert_same(outcome(folder), outcome(straight))


def test_resume_from_an_older_checkpoint_rewrites_the_metrics(tiny, tmp_path):
    config = tiny(train={"steps": 6, "checkpoint_every": 3})
    folder = train(config, tmp_path / "run")
    before = outcome(folder)
    newest = folder.checkpoint().path
    (newest / "model.safetensors").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match=r"fell back to step-00000003: .*is damaged"):
        train(config, folder.path, resume=True)
    assert_same(before, outcome(folder))


def test_resume_refuses_another_configuration_and_lists_the_keys(tiny, tmp_path):
    train(tiny(train={"steps": 1}), tmp_path / "run")
    other = tiny(train={"steps": 2, "learning_rate": 0.5}, model={"backbone": {"channels": 16}})
    with pytest.raises(ConfigError) as refused:
        train(other, tmp_path / "run", resume=True)
    assert "model.backbone.channels: 8 -> 16" in str(refused.value)
    assert "train.learning_rate: 0.001 -> 0.5" in str(refused.value)


def test_resume_allows_a_named_change(tiny, tmp_path):
    train(tiny(train={"steps": 1}), tmp_path / "run")
    other = tiny(train={"steps": 2, "learning_rate": 0.5})
    folder = train(other, tmp_path / "run", resume=True, allow_changes=["train.learning_rate"])
    assert folder.checkpoint().step == 2


def test_resume_notices_other_data(tiny, tmp_path):
    train(tiny(train={"steps": 1}), tmp_path / "run")
    manifest = tmp_path / "run/checkpoints/step-00000001/state.json"
    state = json.loads(manifest.read_text())
    state["data_fingerprint"] = "0" * 64
    # Written again as training writes it, so that the checkpoint itself is sound.
    from ssmdiff.runs import checkpoint

    found = checkpoint.verify(manifest.parent)
    tensors = {name: found.tensors(name) for name in ("model", "ema", "optimizer")}
    checkpoint.save(tmp_path / "run/checkpoints", 1, tensors, state)
    with pytest.raises(ConfigError, match=r"data\.fingerprint"):
        train(tiny(train={"steps": 2}), tmp_path / "run", resume=True)


def test_batch_size_may_change_because_images_are_counted(tiny, tmp_path):
    train(tiny(train={"steps": 2}), tmp_path / "run")
    folder = train(tiny(train={"steps": 4, "batch_size": 2}), tmp_path / "run", resume=True)
    state = folder.checkpoint().state()
    assert (state["step"], state["images_seen"]) == (4, 2 * 4 + 2 * 2)


def test_a_state_that_lacks_what_a_run_goes_on_from_is_refused(tiny, tmp_path):
    folder = train(tiny(train={"steps": 1}), tmp_path / "run")
    written = folder.checkpoint()
    tensors = {name: written.tensors(name) for name in ("model", "ema", "optimizer")}
    keys = ("config", "data_fingerprint", "ema_updates", "images_seen")
    for step, key in enumerate(keys, start=2):
        state = {name: value for name, value in written.state().items() if name != key}
        folder.save_checkpoint(step, tensors, state)
        with pytest.raises(CheckpointError, match=f"step-0000000{step}: its state lacks {key}"):
            train(tiny(train={"steps": 9}), tmp_path / "run", resume=True)
