"""Evaluations beside each other: one table in four forms, and one page.

Figures are ranked where the protocols agree; else the page and the terminal name what differs.
``ssmdiff.job("compare")`` is :func:`compare`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ssmdiff import ConfigError, DataError, write_atomically

from ssmdiff_evaluate.cost import in_short
from ssmdiff_evaluate.evaluation import RECORD, protocol_digest
from ssmdiff_evaluate.wording import BETTER, number

Form = Literal["text", "markdown", "csv", "latex"]


@dataclass(frozen=True)
class Told:
    """An evaluation as it is on disk."""

    name: str
    folder: Path
    record: Mapping[str, Any]

    @property
    def figures(self) -> dict[str, Mapping[str, Any]]:
        return {figure["name"]: figure for figure in self.record["figures"]}


@dataclass(frozen=True)
class Cell:
    """One number of a table."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One figure of every evaluation."""

    name: str
    cells: Sequence[Cell]
    better: str
    values: Sequence[tuple[float, Any] | None]


@dataclass(frozen=True)
class Fact:
    """What is known of every model: a number, a word, or ``-``."""

    name: str
    values: Sequence[Any]


@dataclass(frozen=True)
class Comparison:
    """What stands beside each other.

    Args:
        names: Of the evaluations.
        rows: One a figure.
        differences: What the protocols differ in, in words; nothing is ranked then.
        told: The evaluations.
        facts: What is known of the models, one a row; never ranked.
    """

    names: Sequence[str]
    rows: Sequence[Row]
    differences: Sequence[str]
    told: Sequence[Told]
    facts: Sequence[Fact] = ()

    def to(self, form: Form) -> str:
        """The table as text for a terminal, Markdown, CSV or LaTeX: figures, then facts."""
        head = ["figure", *self.names]
        if form == "csv":
            return self._csv(head)
        body = [[row.name, *(self._marked(cell, form) for cell in row.cells)] for row in self.rows]
        facts = [[fact.name, *map(in_short, fact.values)] for fact in self.facts]
        if form == "latex":
            lines = [" & ".join(map(_tex, head)) + r" \\", r"\midrule"]
            lines += [" & ".join([_tex(first), *rest]) + r" \\" for first, *rest in body]
            lines += [r"\midrule"] * bool(facts)
            lines += [" & ".join(map(_tex, line)) + r" \\" for line in facts]
            columns = "l" + "r" * len(self.names)
            return "\n".join(
                [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *lines, r"\bottomrule",
                 r"\end{tabular}", ""]
            )  # fmt: skip
        body += facts
        widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
        if form == "markdown":
            rule = ["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])]
            return "".join(
                f"| {' | '.join(_padded(line, widths))} |\n" for line in [head, rule, *body]
            )
        return "".join("  ".join(_padded(line, widths)).rstrip() + "\n" for line in [head, *body])

    def _csv(self, head: Sequence[str]) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(
            [head[0], *(f"{n} {part}" for n in self.names for part in ("value", "low", "high"))]
        )
        for row in self.rows:
            cells: list[Any] = []
            for value in row.values:
                one, interval = value or ("", None)
                cells += [one, *(interval or ("", ""))]
            writer.writerow([row.name, *cells])
        for fact in self.facts:
            writer.writerow([fact.name, *(cell for v in fact.values for cell in (v, "", ""))])
        return text.getvalue()

    @staticmethod
    def _marked(cell: Cell, form: Form) -> str:
        if not cell.best:
            return cell.text
        if form == "latex":
            return rf"\textbf{{{cell.text}}}"
        return f"**{cell.text}**" if form == "markdown" else f"{cell.text} *"


def compare(paths: Sequence[str | Path], out: str | Path | None = None) -> Comparison:
    """Put evaluations beside each other.

    Args:
        paths: Evaluations, or runs, whose newest evaluation is taken.
        out: A folder for ``comparison.html``, ``.md``, ``.csv`` and ``.tex``; None writes nothing.

    Raises:
        ConfigError: Fewer than two, or one that holds no evaluation.
        DataError: A record cannot be read.
    """
    if len(paths) < 2:
        raise ConfigError(f"{len(paths)} evaluations; expected at least two to compare")
    told = [told_by(Path(path)) for path in paths]
    names = _names([t.name for t in told])
    differences = differing(told)
    figures = {name: f for t in told for name, f in t.figures.items()}
    rows = [_row(name, figure, told, not differences) for name, figure in figures.items()]
    found = Comparison(names, rows, differences, told, _facts(told))
    if out is not None:
        from ssmdiff_evaluate.comparison_page import page

        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        for suffix, form in (("md", "markdown"), ("csv", "csv"), ("tex", "latex")):
            write_atomically(folder / f"comparison.{suffix}", found.to(form).encode())  # type: ignore[arg-type]
        write_atomically(folder / "comparison.html", page(found).encode())
    return found


def told_by(path: Path) -> Told:
    """The evaluation in a folder, or the newest of a run."""
    folder = path
    if not (path / RECORD).is_file():
        records = sorted(path.glob(f"evaluations/*/{RECORD}"), key=lambda p: p.stat().st_mtime_ns)
        if not records:
            raise ConfigError(f"{path} holds no evaluation; make one with: ssmdiff evaluate {path}")
        folder = records[-1].parent
    file = folder / RECORD
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        figures, protocol = record["figures"], record["stamp"]["protocol"]
        if not isinstance(figures, list) or not isinstance(protocol, dict):
            raise TypeError("figures or protocol of another form")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} is no record of an evaluation: {error}") from error
    owner = folder.parent.parent if folder.parent.name == "evaluations" else folder
    return Told(owner.name or folder.name, folder, record)


def _facts(told: Sequence[Told]) -> list[Fact]:
    of = [t.record.get("model", {}) for t in told]
    names = list(dict.fromkeys(name for facts in of for name in facts))
    return [Fact(name, [facts.get(name, "-") for facts in of]) for name in names]


def differing(told: Sequence[Told]) -> list[str]:
    """What the protocols differ in, in words; nothing where they are one."""
    first, *others = (t.record["stamp"] for t in told)
    found: dict[str, str] = {}
    for other, t in zip(others, told[1:], strict=True):
        unlike = _different(first["protocol"], other["protocol"])
        a, b = (stamp.get("metrics", {}) for stamp in (first, other))
        for metric in sorted(a.keys() & b.keys()):
            unlike |= _different(a[metric], b[metric], f"metrics.{metric}")
        for key, (a, b) in unlike.items():
            found.setdefault(key, f"{key} is {a} of {told[0].name} and {b} of {t.name}")
    return list(found.values())


def _different(a: Any, b: Any, path: str = "") -> dict[str, tuple[str, str]]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        found: dict[str, tuple[str, str]] = {}
        for key in sorted(a.keys() | b.keys()):
            found |= _different(a.get(key), b.get(key), f"{path}.{key}" if path else key)
        return found
    return {} if a == b else {path: (_short(a), _short(b))}


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 24 else f"{text[:12]}..."


def _row(name: str, figure: Mapping[str, Any], told: Sequence[Told], rank: bool) -> Row:
    values: list[tuple[float, Any] | None] = []
    for t in told:
        own = t.figures.get(name)
        values.append(None if own is None else (float(own["value"]), own["interval"]))
    best = _best(values, figure) if rank else None
    cells = [
        Cell("-" if value is None else _text(value), best == place)
        for place, value in enumerate(values)
    ]
    return Row(name, cells, BETTER[figure["better"]], values)


def _best(values: Sequence[tuple[float, Any] | None], figure: Mapping[str, Any]) -> int | None:
    """The one that is best for certain: its interval reaches no other's. None where none is."""
    known = {i: value for i, value in enumerate(values) if value is not None}
    if len(known) < 2:
        return None
    goal = {"lower": -float("inf"), "higher": float("inf")}.get(
        figure["better"], figure["reference"]
    )
    if goal is None:
        return None
    away = {
        i: abs(value - goal) if abs(goal) != float("inf") else (-value if goal > 0 else value)
        for i, (value, _) in known.items()
    }
    first = min(away, key=lambda i: away[i])
    low, high = _span(known[first])
    for i, value in known.items():
        other_low, other_high = _span(value)
        if i != first and low <= other_high and other_low <= high:
            return None
    return first


def _span(value: tuple[float, Any]) -> tuple[float, float]:
    one, interval = value
    return (one, one) if interval is None else (interval[0], interval[1])


def _text(value: tuple[float, Any]) -> str:
    one, interval = value
    between = "" if interval is None else f" ({' to '.join(map(number, interval))})"
    return f"{number(one)}{between}"


def _names(names: Sequence[str]) -> list[str]:
    """Each name once; the second of one is numbered."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found


def _padded(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        text.ljust(width) if i == 0 else text.rjust(width)
        for i, (text, width) in enumerate(zip(line, widths, strict=True))
    ]


def _tex(text: str) -> str:
    for special in "&%$#_{}":
        text = text.replace(special, "\\" + special)
    return text


def protocol_of(told: Told) -> str:
    """The word of its protocol."""
    return protocol_digest(told.record["stamp"])
