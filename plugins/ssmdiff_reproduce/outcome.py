"""What a table came out as: distances over seeds beside the paper's, with their errors."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from scipy import stats
from ssmdiff import DataError, load_json

from ssmdiff_reproduce.papers import DATA, PRINTED
from ssmdiff_reproduce.plan import Cell, Planned
from ssmdiff_reproduce.running import CELL, failure, is_done

RECORD = "record.json"
STEADY = 0.2
"""Spread over seeds, as a share of the distance, under which a budget may decide anything."""
Interval = tuple[float, float]


@dataclass(frozen=True)
class Paired:
    """A system less the base, seed by seed.

    Args:
        mean: Of the differences.
        interval: 95% by Student's t; None of one seed.
        enough: Seeds that would take the interval off 0 if mean and spread stayed as they are; None
            where it is off 0 already or nothing can be said.
    """

    mean: float
    interval: Interval | None
    enough: int | None

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``undecided``: lower is better."""
        if self.interval is None:
            return "one seed"
        low, high = self.interval
        return "better" if high < 0 else "worse" if low > 0 else "undecided"


@dataclass(frozen=True)
class Line:
    """A system on a data set.

    Args:
        data: The data set, for people.
        system: Likewise.
        printed: The paper's distance on this data set; None where it has none.
        elsewhere: The paper's on its own data sets, in its order, where this is none of them.
        values: Ours, seed -> distance.
        value: Their mean.
        interval: 95%: of one seed the evaluation's own, of several that of the mean by Student's t.
        spread: Standard deviation over seeds; None of one.
        floor: What two sets of real images would be apart at these counts.
        difference: Ours less the paper's, where the two may be held against each other.
        paired: Against the base, seed by seed.
        printed_paired: The paper's difference of the same two.
        drawn_by: Scheduler and steps.
        parameters: Of the network that draws.
        call: Multiply-adds of a call of that network for an image.
        drawing: Of all calls for an image.
        images_seen: Of each run.
        trained_s: Seconds of training, mean over the seeds.
        judged_s: Of drawing and judging, likewise.
        note: Why something is not there.
    """

    data: str
    system: str
    printed: float | None = None
    elsewhere: Sequence[float] = ()
    values: Mapping[int, float] | None = None
    value: float | None = None
    interval: Interval | None = None
    spread: float | None = None
    floor: float | None = None
    difference: float | None = None
    paired: Paired | None = None
    printed_paired: float | None = None
    drawn_by: str = ""
    parameters: int | None = None
    call: int | None = None
    drawing: int | None = None
    images_seen: int | None = None
    trained_s: float | None = None
    judged_s: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Outcome:
    """A table of a paper, computed anew.

    Args:
        planned: What was asked for.
        lines: In the plan's order, by data set.
        figure: What the distance is called in full.
        protocol: Data set -> what every distance of it has in common, as a stamp.
        references: Data set -> what its images are held against, in words.
        differing: In what protocols differ, in words; nothing where each data set has one.
        machines: What computed the cells.
        failed: Cell -> why.
    """

    planned: Planned
    lines: Sequence[Line]
    figure: str
    protocol: Mapping[str, Any]
    references: Mapping[str, str]
    differing: Sequence[str]
    machines: Sequence[Mapping[str, Any]]
    failed: Mapping[str, str]

    def fields(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "paper": self.planned.paper,
            "table": self.planned.table,
            "scale": self.planned.scale_name,
            "figure": self.figure,
            "base": self.planned.base,
            "lines": [asdict(line) for line in self.lines],
            "protocol": self.protocol,
            "references": self.references,
            "differing": list(self.differing),
            "machines": list(self.machines),
            "left_out": dict(self.planned.left_out),
            "failed": dict(self.failed),
        }

    def to_json(self) -> str:
        return json.dumps(self.fields(), indent=2) + "\n"


@dataclass(frozen=True)
class _Found:
    """A cell that is done."""

    cell: Cell
    kept: Mapping[str, Any]
    record: Mapping[str, Any]
    figure: Mapping[str, Any] | None
    refusal: str


def collect(planned: Planned) -> Outcome:
    """The table from what the cells left in files, whoever computed them.

    Raises:
        DataError: A record cannot be read.
    """
    found = {str(cell): _read(cell, planned) for cell in planned.cells if is_done(cell)}
    lines: list[Line] = []
    for source, data in planned.scale.data.items():
        here = [cell for cell in planned.cells if cell.data == source]
        for system in dict.fromkeys(cell.system for cell in here):
            cells = [cell for cell in here if cell.system == system]
            base = [found.get(str(replace(cell, system=planned.base))) for cell in cells]
            done = [found.get(str(cell)) for cell in cells]
            lines.append(_line(planned, source, data.label, system, done, base))
    failed = {
        str(cell): reason
        for cell in planned.cells
        if str(cell) not in found and (reason := failure(cell))
    }
    stamps = {
        source: [f.record["stamp"]["protocol"] for f in found.values() if f.cell.data == source]
        for source in planned.scale.data
    }
    machines = [dict(f.kept["machine"]) for f in found.values()]
    figures = [f.figure["name"] for f in found.values() if f.figure is not None]
    return Outcome(
        planned,
        lines,
        figures[0] if figures else planned.scale.distance,
        {source: stamp[0] for source, stamp in stamps.items() if stamp},
        {f.cell.data: str(f.kept["reference"]) for f in found.values()},
        [text for source, stamp in stamps.items() for text in _differing(source, stamp)],
        [m for i, m in enumerate(machines) if m not in machines[:i]],
        failed,
    )


def _read(cell: Cell, planned: Planned) -> _Found:
    kept = load_json(cell.folder / CELL)
    path: Path = cell.folder / RECORD
    try:
        record = load_json(path)
        figures = [f for f in record["figures"] if f["name"].startswith(planned.scale.distance)]
        refused = [str(r["reason"]) for r in record["refusals"]]
    except (KeyError, TypeError, OSError) as error:
        raise DataError(f"{path} is no record of an evaluation: {error}") from error
    return _Found(cell, kept, record, figures[0] if figures else None, "; ".join(refused))


def _line(
    planned: Planned,
    source: str,
    label: str,
    system: str,
    done: Sequence[_Found | None],
    base: Sequence[_Found | None],
) -> Line:
    """A row from the cells of its seeds, those that are done."""
    printed = PRINTED.get(planned.table, {})
    own = printed.get(system, {})
    paper = own.get(source)
    ours: dict[str, Any] = {
        "data": label,
        "system": planned.scale.systems[system].label,
        "printed": paper,
        "elsewhere": () if source in DATA else tuple(own.values()),
    }
    of_base = printed.get(planned.base, {}).get(source)
    if paper is not None and of_base is not None and system != planned.base:
        ours["printed_paired"] = paper - of_base
    there = [f for f in done if f is not None]
    judged = [f for f in there if f.figure is not None]
    if not there:
        return Line(**ours, note="not computed")
    first, model = there[0], there[0].kept["model"]
    ours |= {
        "drawn_by": _drawn_by(first.record),
        "parameters": model.get("parameters"),
        "call": model.get("multiply-adds of a call"),
        "drawing": model.get("multiply-adds of an image"),
        "images_seen": first.kept["images_seen"],
        "trained_s": _mean([float(f.kept["trained_s"]) for f in there]),
        "judged_s": _mean([float(f.kept["judged_s"]) for f in there]),
    }
    missing = len(done) - len(there)
    note = f"{missing} of {len(done)} seeds not computed" if missing else ""
    if not judged:
        return Line(**ours, note=first.refusal or note or "no such figure")
    values = {f.cell.seed: float(f.figure["value"]) for f in judged if f.figure is not None}
    figure: Any = judged[0].figure
    value, spread = _mean(list(values.values())), _deviation(list(values.values()))
    interval = _of_mean(list(values.values()))
    if interval is None and figure["interval"] is not None:
        interval = (float(figure["interval"][0]), float(figure["interval"][1]))
    comparable = planned.scale.comparable and paper is not None
    pairs = [
        float(a.figure["value"]) - float(b.figure["value"])
        for a, b in zip(done, base, strict=True)
        if a is not None and b is not None and a.figure is not None and b.figure is not None
    ]
    return Line(
        **ours,
        values=values,
        value=value,
        interval=interval,
        spread=spread,
        floor=figure["floor"],
        difference=value - paper if comparable and paper is not None else None,
        paired=_paired(pairs) if pairs and system != planned.base else None,
        note=note,
    )


def _paired(differences: Sequence[float]) -> Paired:
    mean, interval = _mean(differences), _of_mean(differences)
    enough = None
    if interval is not None and interval[0] <= 0 <= interval[1] and mean:
        spread = _deviation(differences)
        enough = next((n for n in range(2, 1001) if _reach(spread, n) < abs(mean)), None)
    return Paired(mean, interval, enough)


def _reach(deviation: float | None, count: int) -> float:
    """Half of the 95% interval of a mean."""
    return float(stats.t.ppf(0.975, count - 1)) * (deviation or 0.0) / math.sqrt(count)


def _of_mean(values: Sequence[float]) -> Interval | None:
    if len(values) < 2:
        return None
    mean, reach = _mean(values), _reach(_deviation(values), len(values))
    return mean - reach, mean + reach


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _deviation(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    mean = _mean(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def _drawn_by(record: Mapping[str, Any]) -> str:
    """Scheduler and steps of a stamp; empty of a model that draws in one call."""
    told = record["stamp"]["samples"]
    name = (told.get("scheduler") or {}).get("name", "")
    return f"{name}, {told['steps']} steps" if name else ""


def _differing(source: str, stamps: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys in which the protocols of a data set are not one."""
    keys = sorted({key for stamp in stamps for key in stamp})
    return [
        f"{key} of {source}"
        for key in keys
        if len({json.dumps(stamp.get(key), sort_keys=True) for stamp in stamps}) > 1
    ]
