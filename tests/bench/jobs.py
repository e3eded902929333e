"""Jobs with known times, memory and failures; workers import this file."""

from __future__ import annotations

import os
import time

import numpy as np
from ssmdiff_bench.worker import Job

MIB = 2**20


def load(name, case):
    if name == "no job":
        raise ValueError("it cannot be built")
    return Job(CALLS[name], facts={"name": name}, output=lambda result: np.array([result]))


def sleep():
    time.sleep(0.03)
    return 1.0


def hang():
    time.sleep(60)


def hold():
    """60 MiB at once, 40 of which are gone at the end."""
    gone = np.ones(40 * MIB, np.uint8)
    kept = np.ones(20 * MIB, np.uint8)
    return float(gone[0] + kept[0]) * 0.75


def exhaust():
    return np.ones(1 << 44, np.uint8)


def die():
    os._exit(7)


CALLS = {"sleep": sleep, "hang": hang, "hold": hold, "exhaust": exhaust, "die": die}
