"""Jitted functions in several threads, which share out jobs by a counter.

Threads are Python threads that leave the interpreter while they compute. numba's own thread pools
are avoided on purpose: one aborts in a process forked after its first use, as data loaders are, and
another must not be called from two threads at once. The executor of ``concurrent.futures`` takes
its locks in Python, up to 0.1 ms of a call.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import numpy as np

from ssmdiff_kernels.numba_scan.memory import count_up, pause, read_counter
from ssmdiff_kernels.numba_scan.private import compiled, inlined, pointer

_TAKEN, _DONE, _LEFT = 0, 1, 2  # counters: jobs taken, jobs done, helpers that have left
# Some 25 ns each: twice what it takes a sleeping thread to wake up, then what a helper takes to
# say that it leaves, and to be gone.
_PAUSES, _PAUSES_TO_LEAVE, _PAUSES_TO_SLEEP = 4_000, 400, 100


class _Helpers:
    """Threads that wait for tasks for as long as the process lives."""

    def __init__(self) -> None:
        self._tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._threads = 0
        self._growing = threading.Lock()

    def share(self, threads: int, task: Callable[[], None]) -> None:
        """Have a task called in so many threads, soon."""
        with self._growing:
            for _ in range(self._threads, threads):
                threading.Thread(target=self._serve, name="ssmdiff-numba", daemon=True).start()
            self._threads = max(self._threads, threads)
        for _ in range(threads):
            self._tasks.put(task)

    def _serve(self) -> None:
        while True:
            self._tasks.get()()


_helpers = _Helpers()


def _forget_helpers() -> None:
    global _helpers
    _helpers = _Helpers()


os.register_at_fork(after_in_child=_forget_helpers)  # a fork has none of the threads


def run(function: Callable[..., None], jobs: int, threads: int, *arguments: Any) -> None:
    """Call ``function(counters, *arguments)`` in so many threads, until so many jobs are done.

    A function takes jobs with `next_job` until there are none, and says `job_done` for each. It
    fails, if at all, before it takes one: whoever has not failed does them all.
    """
    counters = np.zeros(3, np.int64)
    if threads == 1:
        function(counters, *arguments)
        return
    left: SimpleQueue[None] = SimpleQueue()

    def help_out() -> None:
        with contextlib.suppress(Exception):  # the caller's own call fails of the same
            if counters[_TAKEN] < jobs:
                function(counters, *arguments)
        left.put(None)
        counters[_LEFT] = left.qsize()

    _helpers.share(threads - 1, help_out)
    function(counters, *arguments)
    while not await_jobs(counters, jobs, threads - 1):
        left.get()  # whoever has a job that is not done will leave


@inlined
def next_job(counters: Any) -> int:
    """The number of a job that no thread has taken; there may be none of that number."""
    job: int = count_up(pointer(counters), _TAKEN)
    return job


@inlined
def job_done(counters: Any) -> None:
    """Say that all of a job is written."""
    count_up(pointer(counters), _DONE)


@compiled
def await_jobs(counters: Any, jobs: int, helpers: int) -> bool:
    """Wait a moment for the jobs that other threads have taken; whether all are done.

    If they are, wait for the helpers to leave, too: one that wants the interpreter while the caller
    has it would be woken at every tensor operation of the caller, 50 us in all.
    """
    for _ in range(_PAUSES):
        if read_counter(pointer(counters), _DONE) >= jobs:
            break
        pause()
    else:
        return False
    for _ in range(_PAUSES_TO_LEAVE):
        if read_counter(pointer(counters), _LEFT) >= helpers:
            break
        pause()
    for _ in range(_PAUSES_TO_SLEEP):
        pause()
    return True
