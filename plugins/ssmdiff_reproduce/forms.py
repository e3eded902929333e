"""A table as text, Markdown, LaTeX and HTML, with what is to be read beside it."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jinja2
from ssmdiff import write_atomically

from ssmdiff_reproduce.outcome import STEADY, Interval, Line, Outcome
from ssmdiff_reproduce.papers import DATA, OPEN, PROTOCOL
from ssmdiff_reproduce.recipes import recipes
from ssmdiff_reproduce.running import TRAINED_ON

Form = Literal["text", "markdown", "latex"]
NUMERALS = {"1": "I", "2": "II"}
NAMES = {"vm-ddpm": "VM-DDPM"}
HEAD = ("data", "system", "paper", "here", "95%", "floor", "difference", "against", "paper's")
COST = ("drawn by", "parameters", "multiply-adds", "images seen", "training", "judging")


def title(outcome: Outcome) -> str:
    """What the table is, for people."""
    numeral = NUMERALS.get(outcome.planned.table, outcome.planned.table)
    return f"Table {numeral} of {NAMES[outcome.planned.paper]}, scale {outcome.planned.scale_name}"


def heads(outcome: Outcome) -> list[str]:
    """What stands over the columns."""
    where = "" if outcome.planned.scale.comparable else f" ({' / '.join(DATA.values())})"
    base = outcome.planned.scale.systems[outcome.planned.base].label
    named = {
        "paper": f"paper, FID{where}",
        "here": f"here, {outcome.figure}",
        "difference": "less the paper's",
        "against": f"less {base}",
        "paper's": f"paper's, less {base}",
    }
    return [named.get(head, head) for head in shown(outcome)]


def shown(outcome: Outcome) -> list[str]:
    """The columns that hold anything."""
    rows = [cells(line) for line in outcome.lines]
    return [head for head in (*HEAD, *COST) if any(row[head] for row in rows)]


def cells(line: Line) -> dict[str, str]:
    """A line as texts, empty where there is nothing to say."""
    paper = "" if line.printed is None else f"{line.printed:.3f}"
    if line.elsewhere:
        paper = " / ".join(f"{value:.3f}" for value in line.elsewhere)
    return {
        "data": line.data,
        "system": line.system,
        "paper": paper,
        "here": _number(line.value) or "-",
        "95%": _interval(line.interval),
        "floor": _number(line.floor),
        "difference": _signed(line.difference),
        "against": _paired(line),
        "paper's": _signed(line.printed_paired),
        "drawn by": line.drawn_by,
        "parameters": "" if line.parameters is None else f"{line.parameters / 1e6:.2f} M",
        "multiply-adds": _work(line),
        "images seen": "" if line.images_seen is None else f"{line.images_seen:,}",
        "training": "" if line.trained_s is None else duration(line.trained_s),
        "judging": "" if line.judged_s is None else duration(line.judged_s),
    }


def table(outcome: Outcome, form: Form) -> str:
    """The table alone."""
    columns, body = shown(outcome), [cells(line) for line in outcome.lines]
    over = heads(outcome)
    if form == "text":  # a terminal is narrow
        columns = [column for column in columns if column not in COST]
        over = over[: len(columns)]
    rows = [over, *([row[column] for column in columns] for row in body)]
    if form == "latex":
        return _latex(rows, outcome)
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
    padded = [[text.ljust(w) for text, w in zip(row, widths, strict=True)] for row in rows]
    if form == "markdown":
        rule = ["-" * width for width in widths]
        return "".join(f"| {' | '.join(row)} |\n" for row in [padded[0], rule, *padded[1:]])
    return "".join("  ".join(row).rstrip() + "\n" for row in padded)


def notes(outcome: Outcome) -> list[str]:
    """What is to be known of the table, a sentence each."""
    planned = outcome.planned
    found = [
        f"{outcome.figure}: lower is better. The interval of one seed is the evaluation's own, at "
        "these counts; of several it is that of their mean, by Student's t.",
        f"The paper: {PROTOCOL}",
        *(
            f"Here, {source}: {protocol_text(stamp, outcome.references[source])}"
            for source, stamp in outcome.protocol.items()
        ),
        *_fitted(outcome),
        *recipes(planned),
    ]
    if planned.scale.why_not:
        found.append(f"Not held against the paper: {planned.scale.why_not}.")
    if outcome.differing:
        unlike = "; ".join(outcome.differing)
        found.append(f"Protocols differ, so the rows are not to be compared: {unlike}.")
    found += [text for line in outcome.lines if (text := _steadiness(line))]
    found += [text for line in outcome.lines if (text := _undecided(line))]
    found += _many(outcome)
    found += [f"{line.data}, {line.system}: {line.note}." for line in outcome.lines if line.note]
    found += [f"Left out: {name}: {reason}." for name, reason in planned.left_out.items()]
    found += [f"Failed: {cell}: {reason}" for cell, reason in outcome.failed.items()]
    found += [f"Computed on {_machine(one)}." for one in outcome.machines]
    return found


def protocol_text(stamp: Mapping[str, Any], reference_name: str) -> str:
    """A protocol in words."""
    networks = ", ".join(
        f"{name} {str(known['digest'])[:12]} ({known['size']} features)"
        for name, known in stamp["features"].items()
    )
    samples, reference = stamp["samples"], stamp["reference"]
    size = " x ".join(str(side) for side in samples["shape"][1:])
    digest = str(reference["digest"])[:12]
    held = f"{reference['count']:,} reference images, {reference_name} (digest {digest})"
    return (
        f"{samples['count']:,} images of {size} against {held}, over {networks}; "
        f"{stamp['levels']}; averaged weights."
    )


def markdown(outcome: Outcome) -> str:
    """The table with all that stands beside it."""
    lines = [f"# {title(outcome)}", "", table(outcome, "markdown")]
    lines += [*(f"- {note}" for note in notes(outcome)), ""]
    lines += ["What the paper leaves open, and what scale `paper` does:", ""]
    lines += [f"- {text}" for text in OPEN]
    return "\n".join(lines) + "\n"


def latex(outcome: Outcome) -> str:
    """The table for a paper, with the notes as comments."""
    return "".join(f"% {note}\n" for note in notes(outcome)) + table(outcome, "latex")


def html(outcome: Outcome) -> str:
    """One page that asks for nothing from outside."""
    columns = shown(outcome)
    return _rendered(
        title=title(outcome),
        holds_real="",
        heads=heads(outcome),
        rows=[[cells(line)[column] for column in columns] for line in outcome.lines],
        notes=notes(outcome),
        sheet=None,
        stamps=outcome.to_json(),
    )


def page(title: str, notes: Sequence[str], sheet: bytes, holds_real: str) -> str:
    """The page of a picture.

    Args:
        title: Over it.
        notes: Below it.
        sheet: The PNG.
        holds_real: Whose real images it has; empty if it has none.
    """
    data = "data:image/png;base64," + base64.b64encode(sheet).decode()
    return _rendered(
        title=title, holds_real=holds_real, heads=[], rows=[], notes=notes, sheet=data, stamps=""
    )


def _rendered(**values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ssmdiff_reproduce"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("table.html").render(open=OPEN, **values)


def write(outcome: Outcome) -> dict[str, Path]:
    """Every form into OUT; the files by their suffix."""
    texts = {
        "md": markdown(outcome),
        "tex": latex(outcome),
        "html": html(outcome),
        "json": outcome.to_json(),
    }
    stem = f"table-{outcome.planned.table}"
    paths = {suffix: outcome.planned.out / f"{stem}.{suffix}" for suffix in texts}
    for suffix, path in paths.items():
        write_atomically(path, texts[suffix].encode())
    return paths


def duration(seconds: float) -> str:
    """``43 s``, ``12 min``, ``3 h 20 min``, ``5 days``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes / 1440:.1f} days"


def now() -> str:
    """The time of day, for the terminal."""
    return datetime.datetime.now().strftime("%H:%M")


def _work(line: Line) -> str:
    """Multiply-adds of a call of the network for an image, and of the calls that draw it."""
    if line.call is None or line.drawing is None:
        return ""
    return f"{line.call / 1e6:.1f} M a call, {line.drawing / 1e9:.2f} G an image"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.4g}"


def _interval(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval[0]:.4g} to {interval[1]:.4g}"


def _paired(line: Line) -> str:
    if line.paired is None:
        return ""
    reach = f" ({_interval(line.paired.interval)})" if line.paired.interval else ""
    return f"{line.paired.mean:+.4g}{reach}, {line.paired.verdict}"


def _steadiness(line: Line) -> str:
    """How far seeds of one setting lie apart."""
    if line.spread is None or not line.value:
        return ""
    share = line.spread / line.value
    over = (
        ""
        if share < STEADY
        else f": more than {STEADY:.0%}, so the budget is short, and the difference of its pairs "
        "alone may say anything"
    )
    each = ", ".join(f"{value:.4g}" for value in (line.values or {}).values())
    return (
        f"{line.data}, {line.system}: {each} of the seeds, a spread of {share:.0%} of the distance"
        f"{over}."
    )


def _undecided(line: Line) -> str:
    if line.paired is None or line.paired.verdict != "undecided":
        return ""
    enough = line.paired.enough
    took = f"about {enough} seeds" if enough else "more than a thousand seeds"
    return (
        f"{line.data}, {line.system}: undecided; if difference and spread stayed as they are, "
        f"{took} would decide it."
    )


def _many(outcome: Outcome) -> list[str]:
    """How likely it is that one of several comparisons is decided by chance."""
    found = []
    for data in dict.fromkeys(line.data for line in outcome.lines):
        pairs = [line.paired for line in outcome.lines if line.data == data and line.paired]
        count = sum(pair.interval is not None for pair in pairs)
        if count > 1:
            found.append(
                f"{data}: {count} systems are held against one, each at 95%: if none differed, at "
                f"least one would be decided by chance in up to {min(0.05 * count, 1):.0%} of such "
                "tables."
            )
    return found


def _fitted(outcome: Outcome) -> list[str]:
    """Data sets whose distances are to what was trained on, for want of others."""
    data = outcome.planned.scale.data
    return [
        f"{data[source].label}: the store holds no image out, so that distances are to the images "
        "that were trained on. They say how well these are fitted: what learns them by heart "
        "comes nearest, and nothing is said of other patients."
        for source, words in outcome.references.items()
        if data[source].held_out and words == TRAINED_ON
    ]


def _machine(told: Mapping[str, Any]) -> str:
    libraries = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    place = told.get("gpu") or f"{told['processor']}, {told['threads']} of {told['cores']} cores"
    return f"{place}; {libraries}"


def _latex(rows: Sequence[Sequence[str]], outcome: Outcome) -> str:
    head, *body = [" & ".join(map(_tex, row)) + r" \\" for row in rows]
    spec = "ll" + "r" * (len(rows[0]) - 2)
    lines = [r"\toprule", head, r"\midrule"]
    for i, (line, text) in enumerate(zip(outcome.lines, body, strict=True)):
        if i and line.data != outcome.lines[i - 1].data:
            lines.append(r"\midrule")
        lines.append(text)
    lines = [rf"\begin{{tabular}}{{{spec}}}", *lines, r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join(lines)


def _tex(text: str) -> str:
    for special in "&%$#_{}":
        text = text.replace(special, "\\" + special)
    return text
