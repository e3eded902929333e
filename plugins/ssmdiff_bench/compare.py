"""All ways over all cases, each in its own process, taken in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ssmdiff import ConfigError, did_you_mean

from ssmdiff_bench.memory import Memory, available_bytes
from ssmdiff_bench.record import Row
from ssmdiff_bench.timing import MeasureError, interleaved
from ssmdiff_bench.worker import Case, Way, Worker

MEMORY_SHARE = 0.8  # of what is available when a benchmark starts, for each way


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Args:
        repeats: Timed calls of a way in a case.
        budget_s: Seconds of timed calls, after which a way makes no more; at least one it makes.
        limit_s: Seconds for one call; a way that takes longer is "too slow", and is not tried with
            more tokens or pixels.
        memory_bytes: What a way may allocate; None for most of what the machine has free.
    """

    repeats: int = 20
    budget_s: float = 3.0
    limit_s: float = 10.0
    memory_bytes: int | None = None


Progress = Callable[[str], None]
"""Called with what is done next, and with ``""`` when one of the :func:`steps` is done."""


def choose(ways: Sequence[Way], names: Sequence[str] | None) -> list[Way]:
    """The ways of those names, in the order of ``ways``; all of them for None.

    Raises:
        ConfigError: A name is unknown, or that of a way that is absent.
    """
    if names is None:
        return list(ways)
    known = {way.name: way for way in ways}
    for name in names:
        if name not in known:
            raise ConfigError(f"there is no way {name!r} to do this; {did_you_mean(name, known)}")
        if known[name].absent:
            raise ConfigError(f"{name} was asked for and is not here: {known[name].absent}")
    return [way for way in ways if way.name in names]


def steps(ways: Sequence[Way], cases: Sequence[Case]) -> int:
    """How many steps :func:`measure` tells of."""
    return len(cases) * sum(way.absent is None for way in ways)


def measure(
    ways: Sequence[Way],
    cases: Sequence[Case],
    effort: Effort,
    progress: Progress | None = None,
    scale: float | None = None,
) -> list[Row]:
    """Measure every way in every case.

    Args:
        ways: The first that can run is the one that others are compared with.
        cases: Each with ``series`` and ``size``, and what the ways' jobs need; small sizes first.
        effort: How long.
        progress: Told what is done.
        scale: Differences of outputs are divided by it; None for the largest value of the first
            way's output.

    Returns:
        A row for each way and case, and one for each absent way.
    """
    report = progress or (lambda text: None)
    rows = [Row(w.name, "", 0, "absent", w.absent) for w in ways if w.absent]
    here = [way for way in ways if not way.absent]
    limit = effort.memory_bytes
    available = available_bytes()
    if limit is None and available is not None:
        limit = int(available * MEMORY_SHARE)
    bench = _Bench(here, effort, report, limit)
    try:
        for case in cases:
            rows += bench.case(case, scale)
    finally:
        bench.stop()
    return rows


class _Bench:
    """The workers, and the ways that have been given up."""

    def __init__(
        self, ways: Sequence[Way], effort: Effort, report: Progress, memory_limit: int | None
    ) -> None:
        self.ways, self.effort, self.report, self.memory_limit = ways, effort, report, memory_limit
        self.workers: dict[str, Worker] = {}
        self.given_up: dict[tuple[str, str], str] = {}

    def case(self, case: Case, scale: float | None) -> list[Row]:
        series, size = case["series"], case["size"]
        rows = {way.name: Row(way.name, series, size) for way in self.ways}
        outputs: dict[str, Any] = {}
        turns, first_s = {}, {}
        for way in self.ways:
            row = rows[way.name]
            self.report(f"{way.name}, {series}, {size}")
            try:
                given_up = self.given_up.get((way.name, series))
                if given_up:
                    raise MeasureError("not run", given_up)
                worker = self._worker(way)
                row.facts = worker.load(case)
                found = worker.first(self.effort.limit_s)
            except MeasureError as error:
                self._fail(row, error)
                self.report("")
                continue
            row.first_s, row.memory = found["first_s"], _memory(found["memory"])
            outputs[way.name] = found.get("output")
            first_s[way.name] = found["call_s"]
            turns[way.name] = self._turn(way.name)
        timings = interleaved(
            turns,
            self.effort.repeats,
            self.effort.budget_s,
            first_s,
            lambda name: self.report(f"{name}, {series}, {size}"),
        )
        for name, timing in timings.items():
            if isinstance(timing, MeasureError):
                self._fail(rows[name], timing)
            else:
                rows[name].timing = timing
            if name in self.workers:
                self.workers[name].free()
            self.report("")
        measured = [row for row in rows.values() if row.timing]
        _compare(measured, outputs, scale)
        return list(rows.values())

    def stop(self) -> None:
        for worker in self.workers.values():
            worker.stop()

    def _worker(self, way: Way) -> Worker:
        worker = self.workers.get(way.name)
        if worker is None or not worker.alive:
            assert way.load is not None
            worker = self.workers[way.name] = Worker(way, self.memory_limit)
        return worker

    def _turn(self, name: str) -> Any:
        return lambda calls, warm: self.workers[name].time(calls, warm, self.effort.limit_s)

    def _fail(self, row: Row, error: MeasureError) -> None:
        row.status, row.detail = error.status, error.detail
        if error.status in ("too slow", "out of memory"):
            reason = f"{error.status} at {row.size}"
            self.given_up[row.way, row.series] = reason
        if row.way in self.workers and not self.workers[row.way].alive:
            del self.workers[row.way]


def _memory(found: Any) -> Memory | None:
    return None if found is None else Memory(*found)


def _compare(rows: list[Row], outputs: dict[str, Any], scale: float | None) -> None:
    """Ratios and differences from the first row, in place."""
    if not rows:
        return
    base = rows[0]
    expected = outputs.get(base.way)
    for row in rows:
        assert base.timing
        assert row.timing
        row.ratio = row.timing.median_s / base.timing.median_s
        got = outputs.get(row.way)
        if expected is not None and got is not None:
            largest = scale or float(np.abs(expected).max()) or 1.0
            row.difference = float(np.abs(got - expected).max()) / largest
