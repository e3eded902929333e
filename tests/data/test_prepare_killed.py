"""``kill -9`` at any moment of ``data prepare``: the same command goes on to the same store."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ssmdiff_data.store import Store
from volumes import PLUGIN, patients

KILLER = """
import os, signal, sys
from pathlib import Path

# Dies at the n-th call of the system that makes, names or deletes a file.
count = int(os.environ["DIE_AT"])

def hook(event, args):
    global count
    if event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir") or (
        event == "open" and isinstance(args[2], int) and args[2] & os.O_CREAT
        and ".preparing" in str(args[0])
    ):
        if ".preparing" in str(args[0]):
            count -= 1
            if count == 0:
                os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
from ssmdiff_data.prepare import prepare
from ssmdiff_data.recipe import make_recipe

prepare(sys.argv[1], sys.argv[2], make_recipe(image_size=[6, 8]), salt_file=sys.argv[3],
        workers=int(sys.argv[4]))
print("events", int(os.environ["DIE_AT"]) - count)
"""


def run(root: Path, out: Path, die_at: int, workers: int = 0) -> subprocess.CompletedProcess[str]:
    line = [
        sys.executable,
        "-c",
        KILLER,
        str(root),
        str(out),
        str(root.parent / "salt"),
        str(workers),
    ]
    path = os.pathsep.join([str(root.parent / "site-packages"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "DIE_AT": str(die_at), "PYTHONPATH": path}
    return subprocess.run(line, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture
def root(tmp_path: Path, install) -> Path:
    install("ssmdiff-vol", PLUGIN)
    return patients(tmp_path / "in", 40, 1)


def kill_at(root: Path, moments: list[int]) -> None:
    whole = run(root, root.parent / "whole", 10**9)
    assert whole.returncode == 0, whole.stderr
    events = int(whole.stdout.split()[-1])
    expected = Store(root.parent / "whole").digest
    for moment in moments:
        out = root.parent / f"out-{moment}"
        died = run(root, out, 1 + moment % events)
        assert died.returncode == -signal.SIGKILL, died.stderr
        again = run(root, out, 10**9)
        assert again.returncode == 0, again.stderr
        assert Store(out).digest == expected
        assert not out.with_name(f"{out.name}.preparing").exists()
        Store(out).verify()


@pytest.mark.slow
def test_killed_at_three_moments(root: Path) -> None:
    kill_at(root, [3, 9, -1])


@pytest.mark.night
def test_killed_at_twenty_five_moments(root: Path) -> None:
    kill_at(root, random.Random(0).sample(range(1000), 25))


@pytest.mark.slow
def test_killed_by_the_clock_with_two_processes(root: Path) -> None:
    """The workers too: what they leave is a part or none."""
    out = root.parent / "out"
    code = KILLER.replace("sys.addaudithook(hook)", "")
    line = [sys.executable, "-c", code, str(root), str(out), str(root.parent / "salt"), "2"]
    path = os.pathsep.join([str(root.parent / "site-packages"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "DIE_AT": "1", "PYTHONPATH": path}
    with subprocess.Popen(line, env=environment, start_new_session=True) as process:
        parts = out.with_name("out.preparing") / "parts"
        while process.poll() is None and not any(parts.glob("*.npz")):
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGKILL)
    assert run(root, out, 10**9).returncode == 0
    assert run(root, root.parent / "whole", 10**9).returncode == 0
    assert Store(out).digest == Store(root.parent / "whole").digest
