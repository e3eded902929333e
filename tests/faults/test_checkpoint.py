"""Rows C2 to C8, C12, C18, N4, X2 of the fault catalogue: checkpoints on a hostile disk."""

import errno
import json
import os
import pickle
import random
import resource
import shutil
import subprocess
import sys
import threading

import pytest
import torch
from ssmdiff.errors import CheckpointError, ConfigError
from ssmdiff.runs import checkpoint
from ssmdiff.runs.checkpoint import load_state
from ssmdiff.runs.config import resolve
from ssmdiff.runs.run import RunFolder
from ssmdiff_train.lock import run_lock

TENSORS = {"model": {"weight": torch.arange(600.0).reshape(20, 30)}}


@pytest.fixture
def folder(tmp_path):
    for step in (1, 2):
        checkpoint.save(tmp_path, step, TENSORS, {"step": step})
    return tmp_path


def test_a_checkpoint_comes_back_as_it_was(folder):
    found, skipped = checkpoint.latest(folder)
    assert (found.step, skipped, found.state()) == (2, [], {"step": 2})
    assert torch.equal(found.tensors("model")["weight"], TENSORS["model"]["weight"])


def test_c2_disk_full_names_path_and_bytes_and_keeps_what_was(folder, monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "_write", full)
    with pytest.raises(CheckpointError, match=r"step-00000003.*No space left.*2,400 bytes.*free"):
        checkpoint.save(folder, 3, TENSORS, {})
    assert checkpoint.latest(folder)[0].step == 2
    assert not list(folder.glob(".tmp-*"))


FILE_LIMIT = """
import resource, signal, sys, torch
from pathlib import Path
from ssmdiff.runs import checkpoint
from ssmdiff.errors import CheckpointError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    checkpoint.save(Path(sys.argv[1]), 3, {"model": {"weight": torch.ones(5000)}}, {})
except CheckpointError as error:
    print("refused:", error)
"""


def test_c2_a_file_size_limit_is_told_and_keeps_what_was(folder):
    done = subprocess.run(
        [sys.executable, "-c", FILE_LIMIT, folder], capture_output=True, text=True, timeout=60
    )
    assert "refused: cannot write checkpoint" in done.stdout, done.stderr
    assert checkpoint.latest(folder)[0].step == 2
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


def test_c3_a_file_in_place_of_the_run_folder_fails_before_training(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ConfigError, match="is a file; expected a folder"):
        RunFolder(tmp_path / "run").create(resolve())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_c3_a_read_only_place_fails_before_training(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(CheckpointError, match="cannot create"):
        RunFolder(tmp_path / "run").create(resolve())


@pytest.mark.parametrize("sixteenth", range(16))
def test_c4_a_file_cut_anywhere_is_named_and_skipped(folder, sixteenth):
    file = folder / "step-00000002" / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[: len(data) * sixteenth // 16])
    found, (reason,) = checkpoint.latest(folder)
    assert found.step == 1
    assert "model.safetensors is damaged" in reason
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoint.verify(file.parent)


def test_c4_any_flipped_bit_is_found(folder):
    chance = random.Random(0)
    for name in ("model.safetensors", "state.json"):
        file = folder / "step-00000002" / name
        data = file.read_bytes()
        for _ in range(20):
            flipped = bytearray(data)
            flipped[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            file.write_bytes(flipped)
            assert checkpoint.latest(folder)[0].step == 1
        file.write_bytes(data)
    assert checkpoint.latest(folder)[0].step == 2


def test_c5_no_manifest_an_extra_file_a_wrong_name_are_no_checkpoints(folder):
    newest = folder / "step-00000002"
    (newest / "extra.txt").write_text("")
    assert "not in the manifest ['extra.txt']" in checkpoint.latest(folder)[1][0]
    (newest / "extra.txt").unlink()
    (newest / "manifest.json").unlink()
    assert "manifest.json" in checkpoint.latest(folder)[1][0]
    shutil.copytree(folder / "step-00000001", folder / "step-3")
    assert checkpoint.latest(folder)[0].step == 1


@pytest.mark.parametrize(
    "text", ['{"format": 1, "format": 1}', '{"format": NaN}', "[]", "{", "\xff", "", "[" * 10_000]
)
def test_c5_a_manifest_that_is_no_strict_json_is_refused(folder, text):
    (folder / "step-00000002" / "manifest.json").write_text(text, encoding="latin-1")
    found, skipped = checkpoint.latest(folder)
    assert found.step == 1
    assert "manifest.json" in skipped[0]


def test_c7_a_run_whose_plugin_is_gone_says_what_it_was_made_with(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.create(resolve())
    text = run.config_file.read_text().replace('name = "regenerate"', 'name = "moore"')
    run.config_file.write_text(text.replace("regenerate: ssmdiff", "moore: ssmdiff-moore"))
    with pytest.raises(CheckpointError, match=r"no scan named 'moore'[^$]*moore: ssmdiff-moore"):
        run.config()


def test_c8_weights_that_do_not_fit_are_listed(tmp_path):
    model = torch.nn.Linear(3, 2)
    with pytest.raises(CheckpointError) as refused:
        load_state(model, {"weight": torch.ones(5, 5), "scale": torch.ones(1)}, tmp_path)
    for part in ("missing: bias", "unexpected: scale", "(5, 5) in the file, (2, 3) in the model"):
        assert part in str(refused.value)


def test_c11_a_lock_of_a_dead_process_is_taken_over(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    import socket

    lock = tmp_path / "run.lock"
    lock.write_text(json.dumps({"host": socket.gethostname(), "pid": gone.pid}))
    with run_lock(tmp_path):
        assert json.loads(lock.read_text())["pid"] == os.getpid()
    lock.write_text(json.dumps({"host": "another", "pid": gone.pid}))
    with pytest.raises(CheckpointError, match=f"process {gone.pid} on another"), run_lock(tmp_path):
        pass


def test_c12_the_newest_is_the_highest_step_whatever_the_clock_says(folder):
    os.utime(folder / "step-00000001", (2e9, 2e9))
    assert checkpoint.latest(folder)[0].step == 2
    checkpoint.save(folder, 100_000_000, TENSORS, {})
    assert checkpoint.latest(folder)[0].step == 100_000_000


def test_c18_files_honour_the_umask(tmp_path):
    """safetensors writes 0600 by itself; a shared run folder must stay readable."""
    modes = {}
    for umask in (0o022, 0o077):
        before = os.umask(umask)
        try:
            saved = checkpoint.save(tmp_path / f"{umask:o}", 1, TENSORS, {})
        finally:
            os.umask(before)
        modes[umask] = (saved.path / "model.safetensors").stat().st_mode & 0o777
    assert modes == {0o022: 0o644, 0o077: 0o600}


def test_n4_weights_that_are_not_finite_are_refused(tmp_path):
    saved = checkpoint.save(tmp_path, 1, {"model": {"w": torch.tensor([1.0, float("nan")])}}, {})
    with pytest.raises(CheckpointError, match="'w' holds values that are not finite"):
        saved.tensors("model")


def test_x2_a_pickle_with_another_name_is_not_opened(tmp_path):
    canary = tmp_path / "canary"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {canary}",)

    saved = checkpoint.save(tmp_path, 1, TENSORS, {})
    (saved.path / "model.safetensors").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError, match="cannot read"):
        saved.tensors("model")
    assert not canary.exists()


def test_prune_keeps_the_newest_and_sweep_removes_leftovers(folder):
    checkpoint.save(folder, 3, TENSORS, {})
    (folder / ".tmp-step-00000009-1").mkdir()
    checkpoint.prune(folder, 2)
    checkpoint.sweep(folder)
    assert sorted(p.name for p in folder.iterdir()) == ["step-00000002", "step-00000003"]


def test_readers_never_see_half_a_checkpoint(tmp_path):
    """One thread saves, another looks for the latest all the while."""
    stop = threading.Event()
    wrong = []

    def look():
        while not stop.is_set():
            wrong.extend(checkpoint.latest(tmp_path)[1])

    reader = threading.Thread(target=look)
    reader.start()
    for step in range(1, 30):
        checkpoint.save(tmp_path, step, TENSORS, {})
    stop.set()
    reader.join()
    assert not wrong
