"""Kind 14: --overwrite takes the lock before it touches anything, and loses nothing when killed."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from dying import dies_at_every_change
from ssmdiff import RunFolder, resolve
from ssmdiff.errors import CheckpointError, ConfigError
from ssmdiff_train.job import train
from ssmdiff_train.lock import run_lock

TENSORS = {"model": {"weight": torch.arange(60.0)}}


def snapshot(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "run.lock"
    }


def config_of(seed):
    return resolve({"seed": seed})


def made_run(path, seed=1, steps=(3, 7)):
    """A run that was trained and is over, with a file of the user's in its folder."""
    run = RunFolder(path)
    run.create(config_of(seed))
    for step in steps:
        run.save_checkpoint(step, TENSORS, {"seed": seed})
    (path / "metrics.jsonl").write_text('{"step": 1}\n')
    (path / "tensorboard").mkdir()
    (path / "tensorboard" / "events.out.tfevents.1").write_text("events")
    (path / "tensorboard" / "mine.txt").write_text("mine")
    (path / "notes.txt").write_text("mine")
    return run


def test_a_live_run_is_refused_before_anything_of_it_is_touched(tmp_path):
    path = tmp_path / "run"
    made_run(path)
    before = snapshot(path)
    with run_lock(path), pytest.raises(CheckpointError, match=f"in use by process {os.getpid()}"):
        train(config_of(2), path, overwrite=True)
    assert snapshot(path) == before
    assert not (path / "run.lock").exists()


def test_a_refused_configuration_leaves_the_old_run_whole(tmp_path):
    """What is wrong with the new run is found before the old one is moved."""
    path = tmp_path / "run"
    made_run(path)
    before = snapshot(path)
    with pytest.raises(ConfigError, match="no class labels"):
        train(
            {"data": {"dataset": {"name": "folder", "path": str(grey(tmp_path))}}},
            path,
            overwrite=True,
            model={"class_conditional": True},
        )
    assert snapshot(path) == before


def grey(tmp_path):
    from PIL import Image

    folder = tmp_path / "grey"
    folder.mkdir()
    Image.new("L", (32, 32)).save(folder / "a.png")
    return folder


def test_the_old_run_stays_until_the_new_one_has_a_checkpoint(tmp_path):
    path = tmp_path / "run"
    made_run(path)
    run = RunFolder(path)
    run.create(config_of(2), overwrite=True)
    assert run.config().seed == 2
    with pytest.raises(CheckpointError, match=rf"no valid checkpoint.*kept in {path}/replaced"):
        run.checkpoint()
    old = RunFolder(path / "replaced")
    assert (old.config().seed, old.checkpoint().step) == (1, 7)
    assert (old.path / "tensorboard" / "events.out.tfevents.1").exists()
    run.save_checkpoint(1, TENSORS, {"seed": 2})
    assert not old.path.exists()
    assert run.checkpoint().state() == {"seed": 2}
    assert (path / "notes.txt").read_text() == "mine", "what a run did not write stays"
    assert (path / "tensorboard" / "mine.txt").read_text() == "mine"


def test_a_new_run_without_a_checkpoint_does_not_push_out_the_old_one(tmp_path):
    path = tmp_path / "run"
    made_run(path)
    for seed in (2, 3):
        RunFolder(path).create(config_of(seed), overwrite=True)
        assert RunFolder(path / "replaced").config().seed == 1
    assert RunFolder(path).config().seed == 3


def newest(path):
    """The seed of the newest run with a checkpoint that loads, wherever it lies."""
    for folder in (path, path / "replaced", path / "replaced.moving"):
        try:
            found = RunFolder(folder).checkpoint()
        except CheckpointError:
            continue
        return found.state()["seed"], found.step
    return None


def test_killed_at_any_change_it_loses_nothing_and_the_same_call_goes_on(tmp_path, monkeypatch):
    path, pristine, moments = tmp_path / "run", tmp_path / "pristine", []
    made_run(pristine)
    acknowledged = []

    def overwrite():
        with run_lock(path):
            run = RunFolder(path)
            run.create(config_of(2), overwrite=True)
            run.sweep()
            run.save_checkpoint(1, TENSORS, {"seed": 2})
            acknowledged.append(2)

    shutil.copytree(pristine, path)
    for moment in dies_at_every_change(monkeypatch, overwrite):
        found = newest(path)
        assert found in ([(2, 1)] if acknowledged else [(1, 7), (2, 1)]), moment
        moments.append(found)
        if (path / "run.lock").exists():  # of a process that is gone
            owner = json.loads((path / "run.lock").read_text())
            (path / "run.lock").write_text(json.dumps(owner | {"pid": gone()}))
        overwrite()
        assert newest(path) == (2, 1)
        assert {p.name for p in path.iterdir()} == {
            "checkpoints", "samples", "config.toml", "notes.txt", "tensorboard",
        }, moment  # fmt: skip
        shutil.rmtree(path)
        shutil.copytree(pristine, path)
        acknowledged.clear()
    assert {(1, 7), (2, 1)} == set(moments)
    assert len(moments) > 20


def gone(cache=[]):  # noqa: B006
    if not cache:
        process = subprocess.Popen([sys.executable, "-c", ""])
        process.wait()
        cache.append(process.pid)
    return cache[0]


def test_a_resume_after_a_killed_overwrite_finds_the_old_run(tmp_path, monkeypatch):
    """Killed while it moved, before anything of the new run was written: it is as it was."""
    path, pristine = tmp_path / "run", tmp_path / "pristine"
    made_run(pristine)
    shutil.copytree(pristine, path)
    halves = 0
    for _ in dies_at_every_change(
        monkeypatch, lambda: RunFolder(path).create(config_of(2), overwrite=True)
    ):
        if (path / "replaced.moving").is_dir():
            halves += 1
            RunFolder(path).sweep()
            assert snapshot(path) == snapshot(pristine)
        shutil.rmtree(path)
        shutil.copytree(pristine, path)
    assert halves > 4


COMMAND = [
    sys.executable, "-m", "ssmdiff", "train", "--image-size", "16", "--batch-size", "4",
    "--set", "model.backbone.channels=8", "--set", "model.backbone.widths=[1,2]",
    "--set", "model.block.state=4", "--set", "diffusion.timesteps=100", "--steps", "100000",
    "--set", "train.checkpoint_every=3", "--set", "train.sample_every=0", "--overwrite",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3, pytest.param(25, marks=pytest.mark.night)])
def test_kill_9_of_train_overwrite_loses_nothing_acknowledged(tmp_path, kills):
    """Killed at random moments of start, replacement and training; always the same command."""
    path, chance, acknowledged = tmp_path / "run", random.Random(kills), None
    for attempt in range(kills):
        process = subprocess.Popen(
            [*COMMAND, "--out", str(path)], stderr=subprocess.PIPE, text=True
        )
        if attempt % 3 == 0:  # let it come to a checkpoint, then kill it while it writes others
            for line in process.stderr:
                if line.startswith("checkpoint "):
                    acknowledged = int(line.strip()[-8:])
                    break
            else:
                pytest.fail(f"attempt {attempt} did not go on")
            time.sleep(chance.random() * 0.5)
        else:
            deadline = time.monotonic() + 60
            while not (path / "run.lock").exists() or process.poll() is not None:
                assert time.monotonic() < deadline, process.stderr.read()
                time.sleep(0.01)
            time.sleep(chance.random() * 4)
        process.send_signal(signal.SIGKILL)
        rest = process.stderr.read()
        process.wait()
        assert "ssmdiff:" not in rest, rest
        for line in rest.splitlines():
            if line.startswith("checkpoint ") and line[-8:].isdigit():
                acknowledged = int(line[-8:])
        kept = []
        for folder in (path, path / "replaced"):
            try:
                kept.append(RunFolder(folder).checkpoint().step)
            except CheckpointError:
                continue
        assert kept, f"attempt {attempt}: step {acknowledged} is lost"
        assert max(kept) >= acknowledged
