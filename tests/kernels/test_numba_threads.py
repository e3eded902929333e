"""How the numba kernel's threads share out jobs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("numba")
from ssmdiff_kernels.numba_scan.threads import next_job, run

JOBS = 40


def worker(do: Callable[[int], Any]) -> Callable[..., None]:
    """What a jitted function does with its counter, in Python."""

    def function(counter: Any) -> None:
        while (job := next_job(counter)) < JOBS:
            do(job)

    return function


def in_a_helper() -> bool:
    return threading.current_thread() is not threading.main_thread()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_each_job_is_done_once(threads: int) -> None:
    done: list[int] = []
    run(worker(done.append), threads)
    assert sorted(done) == list(range(JOBS))


def test_waits_for_jobs_that_others_have_taken() -> None:
    done: list[int] = []
    taken = threading.Event()

    def do(job: int) -> None:
        if in_a_helper():
            taken.set()
            time.sleep(0.05)
        else:
            taken.wait(timeout=60)
        done.append(job)

    run(worker(do), 3)
    assert sorted(done) == list(range(JOBS))


def test_a_helper_that_fails_leaves_its_jobs_to_the_others() -> None:
    done: list[int] = []
    failed = threading.Event()
    work = worker(done.append)

    def function(counter: Any) -> None:
        if in_a_helper():
            failed.set()
            raise MemoryError
        failed.wait(timeout=60)
        work(counter)

    run(function, 2)
    assert sorted(done) == list(range(JOBS))
    run(work, 2)  # and the helper is there again
    assert sorted(done) == sorted([*range(JOBS), *range(JOBS)])


def test_the_callers_own_failure_is_raised() -> None:
    def function(counter: Any) -> None:
        raise MemoryError("no room for a workspace")

    with pytest.raises(MemoryError, match="no room"):
        run(function, 2)
