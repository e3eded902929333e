"""``train.max_hours``: when a run has to stop so that what it did is saved in time."""

from __future__ import annotations

import time
from collections import deque

OUT_OF_TIME = 1000
"""Stands where the number of a signal does, above all of them."""
_RECENT = 50  # steps
_START_S = 30.0  # Python, torch and the data were up before anything here could look at a clock
_BYTES_A_SECOND = 50e6  # of a slow disk, until a save was timed


class TimeLimit:
    """Tells when to stop: early enough for one more step, and for twice the longest save so far.

    Args:
        hours: From the start of training; None for no limit.
        state_bytes: What a save writes.
    """

    def __init__(self, hours: float | None, state_bytes: int) -> None:
        self.start_s = time.monotonic()
        self.limit_s = None if hours is None else hours * 3600
        self._save_s = state_bytes / _BYTES_A_SECOND
        self._between_s = 0.0
        self._steps_s: deque[float] = deque(maxlen=_RECENT)

    def saved(self, seconds: float) -> None:
        """A checkpoint took so long."""
        self._save_s = max(self._save_s, seconds)

    def stepped(self, step_s: float, between_s: float) -> None:
        """A step took so long, and what was done after it: samples, a checkpoint."""
        self._steps_s.append(step_s)
        self._between_s = max(self._between_s, between_s)

    @property
    def margin_s(self) -> float:
        """What is kept back of the time: when it is looked at next, a step, and what comes after
        it, have gone by, and the step that is the last is still to be done."""
        step_s = max(self._steps_s, default=0.0)
        allowance = min(_START_S, 0.05 * (self.limit_s or 0.0))
        return 2 * self._save_s + 2 * step_s + self._between_s + allowance

    def signal(self) -> int:
        """:data:`OUT_OF_TIME` once the next step should be the last, else 0."""
        if self.limit_s is None or not self._steps_s:
            return 0  # at least one step is done: a run that is started again comes further
        over = time.monotonic() - self.start_s + self.margin_s >= self.limit_s
        return OUT_OF_TIME if over else 0
