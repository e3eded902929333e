"""What a benchmark found, as rows: for programs (JSON) and for people (a table)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssmdiff import write_atomically

from ssmdiff_bench.machine import load_average
from ssmdiff_bench.memory import Memory
from ssmdiff_bench.timing import Timing

FORMAT = 1
STATUSES = ("ok", "absent", "out of memory", "too slow", "failed", "not run")


@dataclass
class Row:
    """One way in one case.

    Args:
        way: Its name.
        series: What was called: ``forward``, ``both``, ``step``, ``sample``.
        size: Tokens or pixels; 0 for a way that is absent.
        status: One of :data:`STATUSES`.
        detail: Why there are no numbers.
        first_s: The first call at this size.
        timing: Of the others.
        memory: Of one call.
        ratio: Median time over that of the first way in the same case.
        difference: From the output of the first way, relative to what ``Record.settings`` says.
        facts: Of the case, such as ``inputs_bytes``.
    """

    way: str
    series: str
    size: int
    status: str = "ok"
    detail: str = ""
    first_s: float | None = None
    timing: Timing | None = None
    memory: Memory | None = None
    ratio: float | None = None
    difference: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values; what was not measured is null."""
        memory = self.memory
        return {
            "way": self.way,
            "series": self.series,
            "size": self.size,
            "status": self.status,
            "detail": self.detail,
            "first_ms": None if self.first_s is None else _round(self.first_s * 1e3),
            "time_ms": self.timing.to_json() if self.timing else None,
            "ratio": _round(self.ratio),
            "extra_mib": _round(memory.extra / 2**20) if memory else None,
            "peak_mib": _round(memory.peak / 2**20) if memory else None,
            "difference": _round(self.difference),
            **self.facts,
        }


@dataclass
class Record:
    """A benchmark's result: the machine, the settings and a row for each way in each case."""

    bench: str
    machine: dict[str, Any]
    settings: dict[str, Any]
    rows: list[Row]
    size: str = "tokens"
    """What ``Row.size`` counts."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What else the benchmark derives from its rows."""
    shown: tuple[str, ...] = ()
    """Facts of the rows that the table shows too."""

    def to_json(self) -> dict[str, Any]:
        """The document that ``--json`` writes."""
        return {
            "format": FORMAT,
            "bench": self.bench,
            "machine": {**self.machine, "load_average_after": load_average()},
            "settings": self.settings,
            "size": self.size,
            **self.extra,
            "rows": [row.to_json() for row in self.rows],
        }

    def write(self, path: Path) -> None:
        """Write the JSON, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (json.dumps(self.to_json(), indent=2) + "\n").encode())

    def measured(self, series: str | None = None) -> list[Row]:
        """The rows with times, of one series or of all."""
        return [r for r in self.rows if r.timing and series in (None, r.series)]

    def series(self) -> list[str]:
        """The series that were measured, in the order of the rows."""
        return list(dict.fromkeys(row.series for row in self.measured()))


def growth(points: Sequence[tuple[float, float]]) -> float | None:
    """The exponent p of y ~ x^p, by least squares over the logarithms; None below two sizes."""
    if len({x for x, _ in points}) < 2:
        return None
    xs, ys = ([math.log(p[i]) for p in points] for i in (0, 1))
    x_mean, y_mean = sum(xs) / len(xs), sum(ys) / len(ys)
    above = sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True))
    return above / sum((x - x_mean) ** 2 for x in xs)


COLUMNS = (
    ("median ms", 11),
    ("min", 10),
    ("quartiles", 20),
    ("ratio", 8),
    ("extra MiB", 24),
    ("difference", 12),
)


def table(record: Record) -> list[str]:
    """The lines of a table for the terminal: cases apart, then what is absent."""
    rows = [row for row in record.rows if row.status != "absent"]
    wide = max((len(row.way) for row in record.rows), default=0) + 2
    compared = any(row.difference is not None for row in rows)
    columns = COLUMNS if compared else COLUMNS[:-1]
    heads = [head.rjust(n) for head, n in columns]
    heads += [f"  {fact.replace('_', ' ')}" for fact in record.shown]
    lines = []
    for series, size in dict.fromkeys((row.series, row.size) for row in rows):
        lines.append(f"\n{series}, {size} {record.size}")
        lines.append("  " + "way".ljust(wide) + "".join(heads))
        for row in rows:
            if (row.series, row.size) == (series, size):
                cells = _cells(row, columns, record.shown)
                lines.append("  " + row.way.ljust(wide) + "".join(cells))
    absent = [row for row in record.rows if row.status == "absent"]
    return lines + [f"\n{row.way}: not here: {row.detail}" for row in absent]


def _cells(row: Row, columns: Sequence[tuple[str, int]], shown: Sequence[str]) -> list[str]:
    if row.timing is None:
        return [f"{row.status}: {row.detail}"]
    time = row.timing.to_json()
    cells = (
        _digits(time["median"]),
        _digits(time["min"]),
        " to ".join(map(_digits, time["quartiles"])),
        "" if row.ratio is None else _digits(row.ratio) + "x",
        _memory_cell(row),
        "" if row.difference is None else f"{row.difference:.1e}",
    )
    padded = [cell.rjust(n) for cell, (_, n) in zip(cells, columns, strict=False)]
    return padded + [f"  {_fact(row.facts.get(fact, '')).rjust(len(fact))}" for fact in shown]


def _memory_cell(row: Row) -> str:
    if row.memory is None:
        return "not measured"
    inputs = row.facts.get("inputs_bytes")
    text = f"{row.memory.extra / 2**20:.1f}"
    return f"{text} ({row.memory.extra / inputs:.1f}x inputs)" if inputs else text


def _fact(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
