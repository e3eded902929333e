"""Jitted functions in several threads, which share out jobs by a counter.

Threads are Python threads that leave the interpreter while they compute. numba's own thread pools
are avoided on purpose: one aborts in a process forked after its first use, as data loaders are, and
another must not be called from two threads at once.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ssmdiff_kernels.numba_scan.memory import count_up
from ssmdiff_kernels.numba_scan.private import inlined, pointer


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """Threads for all calls; one is started when it is needed and none is idle."""
    return ThreadPoolExecutor(max(64, os.cpu_count() or 1), "ssmdiff-numba")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a fork has none of the threads


def run(function: Callable[..., None], threads: int, *arguments: Any) -> None:
    """Call ``function(counter, *arguments)`` in so many threads, and wait until all have returned.

    A function takes jobs with `next_job` until there are none. It fails, if at all, before it takes
    one: whoever has not failed does them all.
    """
    counter = np.zeros(1, np.int64)
    helpers = [_pool().submit(function, counter, *arguments) for _ in range(threads - 1)]
    try:
        function(counter, *arguments)
    finally:
        for helper in helpers:
            if not helper.cancel():
                helper.exception()  # waits; where a helper fails, the others have done its jobs


@inlined
def next_job(counter: Any) -> int:
    """The number of a job that no thread has taken; there may be none of that number."""
    job: int = count_up(pointer(counter), 0)
    return job
