"""The benchmark of GPUs, where there is none: its parts on tiny shapes, and its way out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_part_runs_dry(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    written = tmp_path / "gpu.json"
    run = subprocess.run(
        [sys.executable, "benchmarks/gpu.py", "--dry", "--json", str(written)],
        capture_output=True,
        text=True,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=ROOT,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    results = json.loads(written.read_text())
    assert list(results) == ["machine", "correctness", "speed", "network", "tests"]
    assert not [name for name, part in results.items() if "error" in part]
    assert set(results["correctness"]["largest_relative_error"]) == {
        "torch.float32",
        "torch.bfloat16",
        "torch.float16",
    }
    assert [row["kernel"] for row in results["speed"]["rows"]] == 2 * [
        "triton",
        "expand-scan-merge",
    ]
    assert "expand-scan-merge" in run.stdout


@pytest.mark.slow
def test_what_was_found_before_the_limit_is_kept(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    written = tmp_path / "gpu.json"
    run = subprocess.run(
        [sys.executable, "benchmarks/gpu.py", "--dry", "--only", "correctness", "--json", written],
        capture_output=True,
        text=True,
        env={**os.environ, "TRITON_INTERPRET": "1", "CORRECTNESS_LIMIT_S": "0"},
        cwd=ROOT,
        check=False,
    )
    assert run.returncode == 1, run.stdout + run.stderr
    found = json.loads(written.read_text())["correctness"]
    assert found["cases"] == 0
    assert "0 of 6 cases in 0 s; left: (1, 1, 1, 1, 1) euler False torch.float32" in found["error"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_it_says_where_there_is_no_gpu() -> None:
    run = subprocess.run(
        ["bash", "benchmarks/gpu.sh"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHON": sys.executable},
        cwd=ROOT,
        check=False,
    )
    assert run.returncode == 3, run.stdout + run.stderr
    assert "There is no GPU here" in run.stdout
