"""What only whole processes can show: two of them, signals, kill -9."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ssmdiff.runs import checkpoint
from ssmdiff_train.callbacks import read_metrics

pytestmark = pytest.mark.slow

SMALL = [
    "--image-size", "16", "--batch-size", "4", "--block", "mss",
    "--set", "model.backbone.channels=8", "--set", "model.backbone.widths=[1,2]",
    "--set", "model.block.state=4", "--set", "diffusion.timesteps=100",
    "--set", "train.bound_images=0", "--set", "sample.steps=2",
]  # fmt: skip


def command(*arguments):
    return [sys.executable, "-m", "ssmdiff", "train", *SMALL, *map(str, arguments)]


def losses_of(run):
    return [row["loss"] for row in read_metrics(run / "metrics.jsonl") if "loss" in row]


RECORD_ORDERS = """
import hashlib, json, os, sys
import ssmdiff_train.step as step
from ssmdiff_cli.main import main
seen, plain = [], step.order_tensors
def recording(orders, device):
    seen.append(hashlib.sha256(b"".join(o.index.tobytes() for o in orders)).hexdigest())
    return plain(orders, device)
step.order_tensors = recording
folder = sys.argv.pop(1)
try:
    main()
finally:
    rank = os.environ.get("RANK", "single")
    open(f"{folder}/orders-{rank}.json", "w").write(json.dumps(seen))
"""


def test_two_gloo_processes_train_as_one(tmp_path):
    """The losses of one process with the same global batch to 1e-5, the same orders on both."""
    script = tmp_path / "record.py"
    script.write_text(RECORD_ORDERS)
    arguments = ["train", *SMALL, "--steps", "6", "--set", "train.sample_every=0"]
    one = [sys.executable, script, tmp_path, *arguments, "--out", tmp_path / "one"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
              "--master-port", "0", "--standalone"]  # fmt: skip
    two = [*launch, script, tmp_path, *arguments, "--out", tmp_path / "two"]
    for line in (one, two):
        done = subprocess.run(
            list(map(str, line)), capture_output=True, text=True, timeout=240,
            env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
    np.testing.assert_allclose(
        losses_of(tmp_path / "one"), losses_of(tmp_path / "two"), rtol=0, atol=1e-5
    )
    orders = [
        json.loads((tmp_path / f"orders-{rank}.json").read_text()) for rank in ("single", "0", "1")
    ]
    assert orders[0] == orders[1] == orders[2]
    assert len(set(orders[0])) == 6
    one, two = (checkpoint.latest(tmp_path / n / "checkpoints")[0] for n in ("one", "two"))
    for key, value in one.tensors("model").items():
        np.testing.assert_allclose(value.numpy(), two.tensors("model")[key].numpy(), atol=1e-4)


IMPATIENT = """
import datetime, time
import ssmdiff_train.loop as loop
import torch.distributed.distributed_c10d as processes
from ssmdiff_cli.main import main
processes.default_pg_timeout = datetime.timedelta(seconds=2)
plain = loop.Trainer.draw_samples
def slowly(self):
    if self.accelerator.is_main_process:
        time.sleep(5)
    plain(self)
loop.Trainer.draw_samples = slowly
main()
"""


def test_processes_wait_for_what_the_first_one_does_alone(tmp_path):
    """Longer than torch would let them, which is 10 minutes on GPUs and here 2 seconds."""
    script = tmp_path / "impatient.py"
    script.write_text(IMPATIENT)
    line = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
            script, "train", *SMALL, "--steps", "2", "--set", "train.sample_every=1",
            "--set", "train.held_out_every=0", "--out", tmp_path / "run"]  # fmt: skip
    done = subprocess.run(
        list(map(str, line)), capture_output=True, text=True, timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(losses_of(tmp_path / "run")) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_c9_a_signal_saves_and_exits_with_its_code(tmp_path, number):
    run = tmp_path / "run"
    process = subprocess.Popen(
        command("--out", run, "--steps", 100_000), stderr=subprocess.PIPE, text=True
    )
    _wait_for(lambda: losses_of(run) if run.exists() else [], process)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + number, stderr
    found, skipped = checkpoint.latest(run / "checkpoints")
    assert not skipped
    assert found.step == len(losses_of(run))
    assert f"ssmdiff train --out {run} --resume" in stderr
    assert not (run / "run.lock").exists()


@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=pytest.mark.night)])
def test_c1_kill_9_at_random_moments_loses_no_acknowledged_checkpoint(tmp_path, kills):
    """Kills of a run that saves after every step and is resumed each time."""
    run, acknowledged, chance = tmp_path / "run", 0, random.Random(0)
    for attempt in range(kills):
        arguments = ["--out", run, "--steps", 100_000, "--set", "train.checkpoint_every=1",
                     "--set", "train.sample_every=0"]  # fmt: skip
        process = subprocess.Popen(
            command(*arguments, *(["--resume"] if attempt else [])),
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        os.set_blocking(process.stderr.fileno(), True)
        for line in process.stderr:
            if line.startswith("checkpoint "):
                acknowledged = int(line.strip()[-8:])
                break
        else:
            pytest.fail("no checkpoint was written")
        time.sleep(chance.random() * 0.3)
        process.kill()
        for line in process.stderr.read().splitlines():
            if line.startswith("checkpoint ") and len(line.strip()) == len(
                f"checkpoint {run}/checkpoints/step-00000000"
            ):
                acknowledged = int(line.strip()[-8:])
        process.wait()
        found, skipped = checkpoint.latest(run / "checkpoints")
        assert not skipped
        assert found.step >= acknowledged
    leftovers = list((run / "checkpoints").glob(".tmp-*"))
    assert len(leftovers) <= 1, "each start sweeps what the last kill left"


def test_c11_a_second_run_in_the_same_folder_is_refused(tmp_path):
    run = tmp_path / "run"
    first = subprocess.Popen(command("--out", run, "--steps", 100_000), stderr=subprocess.DEVNULL)
    try:
        _wait_for(lambda: (run / "run.lock").exists(), first)
        second = subprocess.run(
            command("--out", run, "--resume"), capture_output=True, text=True, timeout=120
        )
    finally:
        first.kill()
        first.wait()
    assert second.returncode == 1
    assert f"in use by process {first.pid}" in second.stderr


def _wait_for(condition, process, timeout_s=120):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, f"ended early with {process.returncode}"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_environment_of_a_run_is_not_written_down(tmp_path):
    """F8: a secret in the environment never reaches the run folder."""
    secret = "planted-3f9d"
    done = subprocess.run(
        command("--out", tmp_path / "run", "--steps", 1),
        capture_output=True, text=True, timeout=120, env=os.environ | {"HF_TOKEN": secret},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for path in Path(tmp_path / "run").rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes()
