"""Rows N5 and N6: memory is estimated before it is taken, and running out of it is one sentence."""

import subprocess
import sys

import pytest
import ssmdiff
import torch
from ssmdiff import RunFolder
from ssmdiff.errors import SsmdiffError
from ssmdiff.runs.diffusion_method import DiffusionMethod
from ssmdiff_cli.main import app
from ssmdiff_train import faults
from ssmdiff_train.estimate import FACTOR
from ssmdiff_train.job import train
from ssmdiff_train.loop import Trainer
from typer.testing import CliRunner

SMALL = {
    "data": {"image_size": 16},
    "model": {"block": "conv", "backbone": {"name": "vmddpm", "channels": 8, "widths": [1]}},
    "train": {"steps": 3, "batch_size": 8, "bound_images": 0, "sample_every": 0, "callbacks": [],
              "checkpoint_every": 2},
    "sample": {"count": 1, "steps": 1},
}  # fmt: skip

CPU_FULL = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.mark.parametrize(
    ("error", "which", "where"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "device", "losses"),
        (MemoryError(), "host", "losses"),
        (CPU_FULL, "host", "draw_samples"),
        (OSError(12, "Cannot allocate memory"), "host", "draw_samples"),
    ],
)  # fmt: skip
def test_out_of_memory_names_what_helps_and_keeps_the_checkpoint(
    tmp_path, monkeypatch, error, which, where
):
    owner = DiffusionMethod if where == "losses" else Trainer
    plain, calls = getattr(owner, where), []

    def full(self, *arguments):
        calls.append(None)
        if len(calls) > 2 or where != "losses":
            raise error
        return plain(self, *arguments)

    monkeypatch.setattr(owner, where, full)
    with pytest.raises(SsmdiffError) as refused:
        train(SMALL, tmp_path / "run")
    text = str(refused.value)
    assert refused.value.exit_code == 1
    assert "\n" not in text
    assert f"the {which} is out of memory with 8 images of 16 x 16 in fp32" in text
    kept = RunFolder(tmp_path / "run").checkpoint()
    assert kept.step == (2 if where == "losses" else 3)
    assert f"the last good checkpoint is {kept.path}" in text
    assert "train.micro_batch_size=4 (the batch stays the same)" in text
    assert "--activation-checkpointing" in text
    assert "a smaller --batch-size, image or model" in text


CUDA_FULL = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB of "
    "which 1.20 GiB is free. Including non-PyTorch memory, this process has 77.89 GiB memory in "
    "use. If reserved but unallocated memory is large try setting PYTORCH_ALLOC_CONF=..."
)

SAID_OF_IT = (
    " (CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB of "
    "which 1.20 GiB is free)"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(SMALL, tmp_path_factory.mktemp("runs") / "run").path


@pytest.mark.parametrize(
    ("command", "error", "said"),
    [
        ("sample", CUDA_FULL, SAID_OF_IT),
        ("evaluate", CUDA_FULL, SAID_OF_IT),
        ("sample", CPU_FULL, f" ({CPU_FULL})"),
        ("sample", MemoryError(), ""),
    ],
)
def test_drawing_more_than_there_is_memory_for_is_a_sentence(
    run, tmp_path, monkeypatch, command, error, said
):
    def full(self, network):
        raise error

    monkeypatch.setattr(DiffusionMethod, "denoiser", full)
    monkeypatch.chdir(tmp_path)
    out = ["--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [command, str(run), "--n", "4", *out])
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit), "no traceback"
    advice = ". Try less at once, such as a smaller --batch-size\n"
    assert done.stderr.endswith(f"ssmdiff: out of memory{said}{advice}")
    assert not (tmp_path / "out").exists()


def test_another_error_is_no_lack_of_memory(run, tmp_path, monkeypatch):
    def broken(self, network):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(DiffusionMethod, "denoiser", broken)
    done = CliRunner().invoke(app, ["sample", str(run), "--n", "4", "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, RuntimeError)
    assert "illegal" in str(done.exception)


def test_only_what_is_not_done_yet_is_advised():
    done = ssmdiff.resolve(
        {"train": {"micro_batch_size": 1, "activation_checkpointing": True, "precision": "bf16"}}
    )
    assert faults.less_memory(done) == "a smaller --batch-size, image or model"
    workers = ssmdiff.resolve({"data": {"workers": 2}})
    assert "fewer --workers" in faults.less_memory(workers, "host")
    assert "fewer --workers" not in faults.less_memory(workers, "device")


MEASURED = """
import sys, threading, time
import ssmdiff, torch
from accelerate import Accelerator
from ssmdiff import RunFolder
from ssmdiff_train import summary
from ssmdiff_train.loop import Trainer
from ssmdiff_train.signals import StopRequest
from pathlib import Path
config = ssmdiff.resolve(ssmdiff.load_preset("tiny"), {
    "data": {"image_size": int(sys.argv[2])}, "model": {"block": sys.argv[3]},
    "train": {"steps": 2, "batch_size": int(sys.argv[4]), "bound_images": 0, "callbacks": [],
              "sample_every": 0, "kernel": "torch"},
    "sample": {"count": 1, "steps": 1}})
folder = RunFolder(Path(sys.argv[1]))
trainer = Trainer(config, folder, Accelerator(cpu=True))
folder.create(config)
told = summary.memory_bytes(trainer, trainer.method)
small = torch.randn(1, 1, 32, 32)
orders = ssmdiff.order_tensors(trainer.method.plan.draw(0), torch.device("cpu"))
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
before, most, over = resident(), 0, False
def watch():
    global most
    while not over:
        most = max(most, resident())
        time.sleep(0.001)
thread = threading.Thread(target=watch, daemon=True)
thread.start()
trainer.run(StopRequest())
over = True
thread.join()
print(told, most - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("size", "block", "batch"), [(64, "conv", 24), (96, "conv", 8)])
def test_the_estimate_is_within_its_factor_of_what_is_taken(tmp_path, size, block, batch):
    """Against the growth of the process over two whole steps: activations, gradients, Adam."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, tmp_path / "run", str(size), block, str(batch)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    told, taken = map(int, done.stdout.split())
    assert taken > 3e8, "too small to be told from what Python itself takes"
    assert told / FACTOR < taken < told * FACTOR, (told, taken)


LIMITED = """
import resource, sys
import ssmdiff
from ssmdiff_cli.main import main
import ssmdiff_train.loop
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
main()
"""


@pytest.mark.slow
def test_a_process_short_of_memory_is_warned_and_then_told_in_one_sentence(tmp_path):
    """N6: RLIMIT_AS in a child, 600 MB for a step of some 10 GB."""
    out = tmp_path / "run"
    arguments = [
        "train", "--image-size", "256", "--block", "conv", "--batch-size", "64", "--steps", "2",
        "--out", str(out), "--set", "train.callbacks=[]",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(600 * 2**20), *arguments],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    (doubt,) = [line for line in done.stderr.splitlines() if line.startswith("warning: the run")]
    assert "of memory and" in doubt
    assert "train.micro_batch_size=32" in doubt
    (last,) = [line for line in done.stderr.splitlines() if line.startswith("ssmdiff: ")]
    assert "the host is out of memory with 64 images of 256 x 256 in fp32" in last
    assert "--activation-checkpointing" in last
