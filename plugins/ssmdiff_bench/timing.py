"""Times of repeated calls, taken in turn, A B A B: a drift of the machine hits all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

TURN_S = 0.1  # a way's turn; calls shorter than this are made several times in a row
TURNS = 32  # at least so many: a machine's slow spells last seconds, and each way meets as many
SHORT_S = 0.02  # a call so short is made once uncounted first: what ran before left its caches cold


class MeasureError(Exception):
    """A way that gave no number: ``status`` as in :class:`ssmdiff_bench.record.Row`, and why."""

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


@dataclass(frozen=True)
class Timing:
    """Seconds of single calls.

    Args:
        seconds: One for each call, in the order in which they were made; at least one.
    """

    seconds: tuple[float, ...]

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)

    @property
    def quartiles_s(self) -> tuple[float, float]:
        """The first and the third, both the time itself where there is one call."""
        if len(self.seconds) == 1:
            return self.seconds[0], self.seconds[0]
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high

    def to_json(self) -> dict[str, Any]:
        """Milliseconds: ``median``, ``min``, ``quartiles``; and ``repeats``."""
        return {
            "median": _ms(self.median_s),
            "min": _ms(min(self.seconds)),
            "quartiles": [_ms(q) for q in self.quartiles_s],
            "repeats": len(self.seconds),
        }


def _ms(seconds: float) -> float:
    return float(f"{seconds * 1e3:.5g}")


Turn = Callable[[int, bool], Iterable[float]]
"""``(calls, warm) -> seconds of each call``, after an uncounted one if ``warm``; may raise
:class:`MeasureError`."""


def clocked(function: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> Turn:
    """The turn of a function of this process."""

    def turn(calls: int, warm: bool) -> list[float]:
        if warm:
            function()
        seconds = []
        for _ in range(calls):
            start = clock()
            function()
            seconds.append(clock() - start)
        return seconds

    return turn


def interleaved(
    turns: Mapping[str, Turn],
    repeats: int,
    budget_s: float = float("inf"),
    first_s: Mapping[str, float] | None = None,
    on_turn: Callable[[str], None] | None = None,
) -> dict[str, Timing | MeasureError]:
    """Time all of them in turn, until each was called ``repeats`` times or spent its budget.

    Args:
        turns: A turn for each name.
        repeats: Timed calls of each.
        budget_s: A way that has spent so many seconds on timed calls makes no more; one it makes.
        first_s: Seconds that a call takes, as far as known; else a turn starts with a single call.
        on_turn: Called with the name before each turn.

    Returns:
        For each name its times, or the error that ended it.
    """
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    known = dict(first_s or {})
    failed: dict[str, MeasureError] = {}
    waiting = list(turns)
    while waiting:
        for name in list(waiting):
            if on_turn:
                on_turn(name)
            last = known.get(name, TURN_S)
            left = repeats - len(seconds[name])
            calls = max(1, min(left, -(-repeats // TURNS), int(TURN_S / max(last, 1e-9))))
            try:
                times = list(turns[name](calls, last < SHORT_S))
            except MeasureError as error:
                failed[name] = error
                waiting.remove(name)
                continue
            seconds[name] += times
            known[name] = times[-1]
            if len(seconds[name]) >= repeats or sum(seconds[name]) >= budget_s:
                waiting.remove(name)
    return {name: failed.get(name) or Timing(tuple(times)) for name, times in seconds.items()}
