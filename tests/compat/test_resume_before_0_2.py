"""Runs that were begun before 0.2 are finished by today's code, to the same bits.

`before_0.2/` holds them, cut in their middle, and what their ends were. Bits are compared where the
machine is of the kind that made them; elsewhere numbers, within what rounding does in four steps.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from ssmdiff import RunFolder, load_run

BEFORE = Path(__file__).parent / "before_0.2"
RUNS = ("regenerate", "atrous", "cosine-v", "zigzag-mamba", "layers-mamba2")
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
MADE = json.loads((BEFORE / "machine.json").read_text())

RESUME = """
import sys
from ssmdiff_cli.main import app
for run in sys.argv[1:]:
    app(["train", "--out", run, "--resume"], standalone_mode=False)
"""


def same_kind_of_machine() -> bool:
    """Whether bits may be expected to be equal: the libraries, the instructions, the threads."""
    versions = {name: version(name) for name in ("numpy", "numba")}
    return (
        MADE["versions"].items() >= {**versions, "torch": torch.__version__}.items()
        and MADE["machine"] == platform.machine()
        and MADE["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
        and MADE["threads"] == os.cpu_count()
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs, resumed to their ends by the command in one process with all threads."""
    folder = tmp_path_factory.mktemp("runs")
    for name in RUNS:
        shutil.copytree(BEFORE / "trained" / name, folder / name)
        shutil.rmtree(folder / name / "samples", ignore_errors=True)  # as git leaves it out
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    result = subprocess.run(
        [sys.executable, "-c", RESUME, *(str(folder / name) for name in RUNS)],
        capture_output=True, text=True, check=False, env=environment, timeout=500,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return folder


def digest(value: torch.Tensor) -> str:
    return hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()[:16]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_was_begun_before_is_finished_to_the_same_bits(finished, name) -> None:
    wanted = json.loads((BEFORE / "ends" / f"{name}.json").read_text())
    found = RunFolder(finished / name).checkpoint(f"step-{wanted['step']:08d}")
    state = found.state()
    assert state["images_seen"] == wanted["images_seen"]
    assert state["ema_updates"] == wanted["ema_updates"]
    model = load_run(finished / name, found.path.name).model
    assert [key for key, _ in model.named_parameters()] == wanted["parameters"]

    ours, theirs = found.tensors("model"), load_file(BEFORE / "ends" / f"{name}.safetensors")
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        np.testing.assert_allclose(ours[key], value, rtol=1e-3, atol=1e-4, err_msg=key)

    lines = (finished / name / "metrics.jsonl").read_text().splitlines()
    metrics = {line["step"]: line for line in map(json.loads, lines) if "loss" in line}
    for row in wanted["metrics"]:
        assert metrics[row["step"]]["loss"] == pytest.approx(row["loss"], rel=1e-4)
        assert metrics[row["step"]]["learning_rate"] == row["learning_rate"]

    if not same_kind_of_machine():
        pytest.skip(f"equal within rounding; bits are those of another machine: {MADE}")
    ema, optimizer = found.tensors("ema"), found.tensors("optimizer")
    assert wanted["tensors"] == {
        key: [
            digest(value)
            for value in (ours[key], ema[key], *(optimizer[f"{key}/{m}"] for m in MOMENTS))
        ]
        for key in wanted["tensors"]
    }
    for row in wanted["metrics"]:
        assert {key: metrics[row["step"]][key] for key in row} == row
