"""What a cell is held against, what becomes of others when one fails, and who waits how long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmdiff
from ssmdiff_reproduce import job, running
from ssmdiff_reproduce.plan import Planned
from ssmdiff_reproduce.running import TRAINED_ON, do, failure, is_done, reference_of

pytestmark = pytest.mark.needs_plugin("ssmdiff_evaluate", "ssmdiff_train")


@pytest.mark.needs_plugin("ssmdiff_data")
@pytest.mark.parametrize(("patients", "held"), [(12, True), (3, False)])
def test_slices_are_held_against_those_of_other_patients_if_there_are_some(
    tmp_path: Path, patients: int, held: bool
) -> None:
    (tmp_path / "files").mkdir()
    for i in range(patients):
        values = np.random.default_rng(i).integers(0, 256, (32, 32), dtype=np.uint8)
        np.save(tmp_path / "files" / f"{i}.npy", values)
    ssmdiff.job("data").prepare(tmp_path / "files", tmp_path / "store")
    planned = job.plan("vm-ddpm", 2, "cpu", tmp_path, data={"slices": str(tmp_path / "store")})
    table, words = reference_of(planned.cells[0].asked, planned.tasks[0].config)
    trained: Any = ssmdiff.build_dataset(planned.tasks[0].config)
    if not held:
        assert (table, words) == (None, TRAINED_ON)
        return
    assert words == "the split test of the store"
    assert table is not None
    others: Any = ssmdiff.create("dataset", table, image_size=(32, 32))
    assert len(others) + len(trained) == patients
    assert others.fingerprint() == trained.held_out.fingerprint()
    assert not set(others.groups) & set(trained.groups)


def test_heads_are_held_against_heads_of_another_seed(tmp_path: Path) -> None:
    planned = job.plan("vm-ddpm", 2, "cpu", tmp_path)
    for task in planned.tasks:
        table, words = reference_of(task.cells[0].asked, task.config)
        assert (table, words) == ({"name": "phantom", "seed": 1}, "phantom of seed 1")
        assert task.config.data.dataset["seed"] == 0, "whatever the run's own seed"


def test_a_cell_that_fails_takes_no_other_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = job.plan("vm-ddpm", 1, "cpu", tmp_path, systems=["ddpm", "ddim", "unet"])
    (task,) = planned.tasks
    tried: list[str] = []

    def judge(cell: Any, *_: Any) -> None:
        tried.append(cell.system)
        if cell.system == "ddpm":
            raise ssmdiff.DivergedError("an image is not finite")

    monkeypatch.setattr(running, "train", lambda *_: 1.0)
    monkeypatch.setattr(running, "judge", judge)
    said: list[str] = []
    do(task, said.append, False)
    assert tried == ["ddpm", "ddim", "unet"]
    assert [failure(cell) for cell in task.cells] == ["an image is not finite", "", ""]
    assert said[0] == "failed: heads, ddpm, seed 0: an image is not finite"

    def broken(*_: Any) -> float:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(running, "train", broken)
    do(task, said.append, False)
    assert {failure(cell) for cell in task.cells} == {"ZeroDivisionError: a fault"}
    assert len(tried) == 3, "nothing is judged that is not trained"
    assert not any(map(is_done, task.cells))


@pytest.fixture
def failed_before(tmp_path: Path) -> Planned:
    """A plan whose only cell failed before this process began."""
    planned = job.plan("vm-ddpm", 2, "cpu", tmp_path, systems=["cross"], seeds=1)
    (cell,) = planned.cells
    cell.folder.mkdir(parents=True)
    (cell.folder / running.FAILED).write_text('{"error": "too early"}')
    return planned


def test_another_s_failure_is_believed_once_every_process_has_begun(
    failed_before: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(_: float) -> None:
        raise InterruptedError

    monkeypatch.setattr("time.sleep", sleep)
    after = 2**63
    with pytest.raises(InterruptedError):  # it may be of a call before, and be tried again just now
        job._wait(failed_before, after, job.silent)
    monkeypatch.setattr(job, "GRACE_S", 0)
    job._wait(failed_before, after, job.silent)


def test_what_failed_in_a_call_before_is_forgotten_at_the_start(failed_before: Planned) -> None:
    running.get_ready(failed_before.tasks)
    assert failure(failed_before.cells[0]) == ""
