"""Table II in small, trained, drawn and judged: whole, killed and gone on with, shared out."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmdiff
from ssmdiff_reproduce import job
from ssmdiff_reproduce.outcome import Outcome
from ssmdiff_reproduce.plan import Planned
from ssmdiff_reproduce.running import CELL, is_done
from ssmdiff_reproduce.sharing import Share

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs_plugin("ssmdiff_evaluate", "ssmdiff_train", "ssmdiff_vmddpm"),
]

SETS = [
    "data.image_size=8", "data.dataset.length=64", "model.backbone.channels=8",
    "model.backbone.widths=[1]", "train.batch_size=2", "train.checkpoint_every=6",
    "sample.steps=2", "sample.count=1", "train.learning_rate=0.01",
]  # fmt: skip
SMALL: dict[str, Any] = {
    "systems": ["cross", "conv"], "seeds": 2, "images_seen": 24, "n": 64,
    "reference": 64, "sets": SETS,
}  # fmt: skip
LINE = [
    "reproduce", "vm-ddpm", "--table", "2", "--scale", "cpu", "--no-cost", "--seeds", "2",
    "--systems", "cross,conv", "--images-seen", "24", "--count", "64", "--reference", "64",
    *(word for text in SETS for word in ("--set", text)),
]  # fmt: skip


def plan(out: Path, **more: Any) -> Planned:
    return job.plan("vm-ddpm", 2, "cpu", out, **{**SMALL, **more})


def values(outcome: Outcome) -> dict[str, Any]:
    """Every distance, with all its digits."""
    return {line.system: (dict(line.values or {}), line.interval) for line in outcome.lines}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Computed at one go, by this process alone."""
    return job.run(plan(tmp_path_factory.mktemp("whole")))


def test_a_cell_is_an_ordinary_run_with_an_ordinary_evaluation(whole: Outcome) -> None:
    assert len(whole.lines) == 2
    assert not whole.failed
    assert len({str(values(whole)[line.system]) for line in whole.lines}) == 2
    out = whole.planned.out
    assert sorted(path.name for path in (out / "runs/heads").iterdir()) == ["conv", "cross"]
    task = whole.planned.tasks[0]
    run = ssmdiff.load_run(task.run)
    assert run.config.model.scan["name"] == task.cells[0].system
    kept = json.loads((task.cells[0].folder / CELL).read_text())
    assert kept["images_seen"] == 24
    assert kept["trained_s"] > 0
    # The distance of the table is that of the images which the run draws.
    record = ssmdiff.job("evaluate")(
        task.run, {"name": "phantom", "seed": 1}, out / "anew", n=64, features=["texture"],
        metrics=[{"name": "frechet", "infinite": False, "halves": False}], reference=64,
    )  # fmt: skip
    assert record.find("FD texture").value == whole.lines[0].values[0]
    told = json.loads((out / "table-2.json").read_text())
    assert told["lines"][0]["values"]["0"] == whole.lines[0].values[0]
    assert told["protocol"]["heads"]["reference"]["count"] == 64


def test_killed_in_the_middle_and_gone_on_with_it_is_the_same_table(
    whole: Outcome, tmp_path: Path
) -> None:
    planned = plan(tmp_path)
    command = [sys.executable, "-m", "ssmdiff", *LINE, "--out", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    second = planned.tasks[1].run / "checkpoints"
    deadline = time.monotonic() + 240
    while not any(second.glob("step-*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob(CELL)}
    assert 1 <= len(before) < len(planned.cells)
    saved = second / "step-00000006" / "manifest.json"
    saved_ns = saved.stat().st_mtime_ns
    said: list[str] = []
    again = job.run(planned, say=said.append)
    assert values(again) == values(whole)
    assert all(path.stat().st_mtime_ns == made for path, made in before.items())
    assert saved.stat().st_mtime_ns == saved_ns, "the run went on from it"
    first = str(planned.tasks[0])
    assert not any(first in text for text in said), "what was done is not done again"


@pytest.mark.night
def test_processes_that_see_one_folder_share_it_and_the_first_makes_the_table(
    whole: Outcome, tmp_path: Path
) -> None:
    planned = plan(tmp_path)
    assert job.run(planned, share=Share(1, 2)) is None
    assert [is_done(task.cells[0]) for task in planned.tasks] == [False, True] * 2
    shared = job.run(planned, share=Share(0, 2))
    assert values(shared) == values(whole)


@pytest.fixture
def hosts() -> Iterator[tuple[list[list[str]], str]]:
    """What starts a command on each of two hosts, and the address of the first: two network
    namespaces on one cable, or this host twice where none may be made."""
    names = [f"ssmdiff-{os.getpid()}-{i}" for i in range(2)]
    first, second = (["ip", "netns", "exec", name] for name in names)
    cable = [f"ss{os.getpid()}{end}" for end in "ab"]
    lines = [
        *(["ip", "netns", "add", name] for name in names),
        ["ip", "link", "add", cable[0], "type", "veth", "peer", "name", cable[1]],
        *(["ip", "link", "set", c, "netns", n] for c, n in zip(cable, names, strict=True)),
        *(
            [*host, "ip", "addr", "add", f"10.77.0.{i}/24", "dev", c]
            for i, (host, c) in enumerate(zip((first, second), cable, strict=True), start=1)
        ),
        *(
            [*host, "ip", "link", "set", c, "up"]
            for host, c in zip((first, second), cable, strict=True)
        ),
        *([*host, "ip", "link", "set", "lo", "up"] for host in (first, second)),
    ]
    try:
        for line in lines:
            subprocess.run(line, check=True, capture_output=True)
        apart = True
    except (OSError, subprocess.CalledProcessError):
        apart = False
    yield ([first, second], "10.77.0.1") if apart else ([[], []], "127.0.0.1")
    for name in names if shutil.which("ip") else ():
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.mark.night
def test_two_hosts_of_torchrun_make_the_same_table(
    whole: Outcome, hosts: tuple[list[list[str]], str], tmp_path: Path
) -> None:
    starts, address = hosts
    print("network namespaces" if starts[0] else "one host: no network namespace could be made")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
    torchrun += ["--nproc-per-node", "1", "--master-addr", address, "--master-port", "29611"]
    processes = [
        subprocess.Popen(
            [*start, *torchrun, "--node-rank", str(rank), "-m", "ssmdiff", *LINE, "--out",
             str(tmp_path)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank, start in enumerate(starts)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    told = json.loads((tmp_path / "table-2.json").read_text())
    expected = json.loads((whole.planned.out / "table-2.json").read_text())
    for line, other in zip(told["lines"], expected["lines"], strict=True):
        for key in ("system", "values", "interval", "paired", "drawn_by", "images_seen"):
            assert line[key] == other[key]
    assert "VM-DDPM, plain cross-scan" in outputs[0][0]
    assert outputs[1][0] == "", "the first process alone prints the table"
    cells = [f"heads, {name}, seed {seed}" for seed in (0, 1) for name in ("cross", "conv")]
    begun = [f": {cell}" in outputs[1][1] for cell in cells]
    assert begun == [False, True, False, True], outputs[1][1]


@pytest.mark.night
def test_what_fails_is_told_and_the_others_go_on(tmp_path: Path, monkeypatch) -> None:
    planned = plan(tmp_path, systems=["cross", "shuffle", "conv"], seeds=1, images_seen=2)
    real = ssmdiff.job("evaluate").__class__.__call__

    def evaluate(self, model, *arguments, **settings):
        if "conv" in str(model):
            raise ssmdiff.DivergedError("an image is not finite")
        if "shuffle" in str(model):
            raise ZeroDivisionError("a fault of ours")
        return real(self, model, *arguments, **settings)

    monkeypatch.setattr(ssmdiff.job("evaluate").__class__, "__call__", evaluate)
    outcome = job.run(planned)
    assert outcome.failed == {
        "heads, shuffle, seed 0": "ZeroDivisionError: a fault of ours",
        "heads, conv, seed 0": "an image is not finite",
    }
    assert [line.value is None for line in outcome.lines] == [False, True, True]
    with pytest.raises(ssmdiff.SsmdiffError, match="an image is not finite"):
        job.run(planned, task=2)
    monkeypatch.undo()
    assert not job.run(planned).failed, "it is tried again"


def test_a_run_of_another_configuration_is_not_gone_on_with(whole: Outcome, tmp_path: Path) -> None:
    first = whole.planned.tasks[0]
    shutil.copytree(first.run, tmp_path / first.run.relative_to(whole.planned.out))
    changed = [*SETS[:-1], "train.learning_rate=0.02"]
    with pytest.raises(ssmdiff.ConfigError, match=r"train.learning_rate 0\.01, now 0\.02"):
        job.run(plan(tmp_path, systems=["conv", "cross"], seeds=1, sets=changed))
    assert not (tmp_path / "runs/heads/conv").exists(), "refused before anything is computed"
    outcome = job.run(plan(tmp_path, systems=["cross"], seeds=1))
    assert not outcome.failed


@pytest.mark.night
def test_a_pilot_says_how_far_the_seeds_of_the_base_lie_apart(tmp_path: Path) -> None:
    from ssmdiff_reproduce.pilot import run_pilot

    asked = {key: value for key, value in SMALL.items() if key not in ("systems", "images_seen")}
    text = run_pilot("vm-ddpm", "2", "cpu", tmp_path, [4, 8], asked)
    records = json.loads((tmp_path / "pilot.json").read_text())
    assert [record["images_seen"] for record in records] == [4, 8]
    for record, line in zip(records, text.splitlines()[1:], strict=False):
        a, b = record["distances"]
        share = abs(a - b) / 2**0.5 / ((a + b) / 2)
        assert line.split()[1] == f"{share:.0%}"
        assert "VM-DDPM, plain cross-scan" in line
    folder = tmp_path / "pilot" / "8" / "runs" / "heads" / "cross"
    assert [ssmdiff.load_run(path).config.train.steps for path in sorted(folder.iterdir())] == [
        4,
        4,
    ]


def test_figure_2_is_a_sheet_of_the_same_weights(whole: Outcome) -> None:
    more = {key: value for key, value in SMALL.items() if key not in ("systems", "seeds")}
    sheet = job.run(
        job.plan("vm-ddpm", "figure-2", "cpu", whole.planned.out, systems=["conv"], **more)
    )
    from PIL import Image

    with Image.open(sheet.paths["png"]) as picture:
        pixels = np.asarray(picture)
    assert len(pixels) == 26 + 2 * 100, "real heads, which are open, and a system"
    task = next(t for t in whole.planned.tasks if t.cells[0].system == "conv")
    image = ssmdiff.load_run(task.run).sample(8, batch_size=8)[0, 0].numpy()
    shown = pixels[26 + 100 : 26 + 196, 250 : 250 + 96, 0].reshape(8, 12, 8, 12).mean((1, 3))
    np.testing.assert_allclose(shown, (image + 1) * 127.5, atol=0.6)
    page = sheet.paths["html"].read_text()
    assert "This page holds real images of built-in heads" in page
    assert not sheet.missing
