"""What an evaluation writes: a table as CSV, and one HTML page that asks for nothing from outside.

Its first line says whether real images stand in it. They do only where their data is marked open,
or on demand.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from ssmdiff import Figure, ImageSet, terms_of, write_atomically

from ssmdiff_evaluate import pictures
from ssmdiff_evaluate.evaluation import (
    SECTIONS,
    Record,
    Sets,
    mean_and_background,
    nearest_pairs,
    protocol_digest,
)
from ssmdiff_evaluate.wording import BETTER, number

PAGE, TABLE, SAMPLES = "index.html", "figures.csv", "samples.png"
SHOWN = 32

_LEADS = {
    "quality": (
        "Quality: how far from real images",
        "A distance over other features than Inception's is no FID. A floor is what two sets of "
        "real images would be apart at these counts: a distance at its floor cannot be told from "
        "none. Distances of other numbers of images are not comparable.",
    ),
    "diversity": (
        "Diversity: how varied",
        "Precision and density say how many samples look real, recall and coverage how much of "
        "what is real the samples reach.",
    ),
    "novelty": (
        "Novelty: how new",
        "Whether samples are nearer to training images than images of other patients are, by the "
        "same rule. That no copies are found does not prove that no patient can be told from a "
        "sample: it says what these features see, at this number of samples.",
    ),
    "use": (
        "Use: what a model learns from them",
        "A classifier is trained on real images, on as many samples, and on both, and tested on "
        "the same real images of other patients. Samples are of use where the last row lies above "
        "the first. The interval is over held-out patients and trainings.",
    ),
}


_REAL = {"novelty": "fresh images", "use": "trained on real"}
_FLOORS = {"novelty": "bound", "use": "guessing"}
"""What stands over the columns of a section beside the values."""


def write_outcome(
    folder: Path,
    model: Path,
    record: Record,
    sets: Sets,
    source: str,
    show_real: bool,
    is_open: bool,
) -> None:
    """Write ``figures.csv``, ``samples.png`` and ``index.html`` into the evaluation's folder."""
    shown = min(SHOWN, len(sets.samples))
    write_atomically(folder / SAMPLES, pictures.sheet(sets.samples.levels(range(shown))))
    write_atomically(folder / TABLE, table(record).encode())
    write_atomically(folder / PAGE, page(model, record, sets, source, show_real, is_open).encode())


def table(record: Record) -> str:
    """The figures as CSV, one a row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["section", "figure", "value", "low", "high", "reference", "floor", "better", "note"]
    )
    for judged in record.figures:
        figure = judged.figure
        low, high = figure.interval or ("", "")
        writer.writerow(
            [
                judged.section,
                figure.name,
                repr(figure.value),
                low,
                high,
                "" if figure.reference is None else figure.reference,
                "" if figure.floor is None else figure.floor,
                figure.better,
                figure.note,
            ]
        )
    return text.getvalue()


def page(
    model: Path, record: Record, sets: Sets, source: str, show_real: bool, is_open: bool
) -> str:
    """The HTML of an evaluation.

    Args:
        model: What was judged.
        record: What was found.
        sets: The images.
        source: What the reference is called.
        show_real: Real images were asked for.
        is_open: Their data is open, so that they may be shown anyway.
    """
    shown = min(SHOWN, len(sets.samples))
    holds = "This page holds synthetic images alone, and no real one."
    made_of_others = sets.targets is not None
    if made_of_others:
        holds = (
            f"This page holds images of {model}, which are made of others and may hold parts of "
            "them: keep it where those may be."
        )
    elif is_open:
        holds = f"This page holds images of {source}, which is open data."
    elif show_real:
        holds = f"This page holds real images of {source}: keep it where they may be."
    show = show_real or is_open
    loss = loss_of(model)
    return (
        environment()
        .get_template("evaluation.html")
        .render(
            model=str(model),
            holds=holds,
            shows_real=made_of_others or (show and not is_open),
            source=source,
            terms=terms_of(getattr(sets.reference, "dataset", None)),
            samples=len(sets.samples),
            reference=len(sets.reference),
            held_out=len(sets.held_out) if sets.held_out is not None else 0,
            protocol=protocol_digest(record.stamp),
            shown=shown,
            grid=inline(pictures.sheet(sets.samples.levels(range(shown)))),
            real_grid=inline(pictures.sheet(_spread(sets.reference, shown))) if show else None,
            histogram=inline(pictures.histogram(sets.reference, sets.samples)),
            greys={
                "samples": mean_and_background(sets.samples),
                "reference": mean_and_background(sets.reference),
            },
            sections=[_section(name, record, sets, show) for name in SECTIONS],
            loss=inline(pictures.losses({"loss": loss}, pictures.SEEN)) if loss else None,
            stamp=json.dumps(record.stamp, indent=2),
        )
    )


def _section(name: str, record: Record, sets: Sets, show_real: bool) -> dict[str, Any]:
    title, lead = _LEADS[name]
    figures = [row_of(j.figure) for j in record.figures if j.section == name]
    refusals = [r for r in record.refusals if r.section == name]
    section: dict[str, Any] = {
        "title": title,
        "lead": lead,
        "figures": figures,
        "refusals": refusals,
        "real": _REAL.get(name, "real images"),
        "floor": _FLOORS.get(name, "floor"),
        "picture": None,
    }
    if not figures and not refusals:
        section["lead"] = f"{lead} No metric of this section was asked for."
    if name == "quality":
        picture = pictures.distances(record.figures)
        section |= {
            "picture": picture and inline(picture),
            "picture_alt": "Frechet distances over their floors",
            "caption": "Frechet distances with their 95% intervals, each over its own floor.",
        }
    pairs = nearest_pairs(record)
    if name == "novelty" and pairs and show_real:
        samples = sets.samples.levels([i for i, _, _ in pairs])
        originals = sets.reference.levels([j for _, j, _ in pairs])
        section |= {
            "picture": inline(pictures.pairs_sheet(samples, originals)),
            "picture_alt": "Samples and their nearest training images",
            "caption": "The samples that are most like a training image, each above it; the most "
            f"alike first, correlations {pairs[0][2]:.4f} to {pairs[-1][2]:.4f}.",
        }
    elif name == "novelty" and pairs:
        section["lead"] += " The sheet of the nearest pairs is made by --show-real."
    return section


def row_of(figure: Figure) -> dict[str, str]:
    """A figure in words, empty where something is not known."""
    return {
        "name": figure.name,
        "value": number(figure.value),
        "interval": "" if figure.interval is None else " to ".join(map(number, figure.interval)),
        "reference": "" if figure.reference is None else number(figure.reference),
        "floor": "" if figure.floor is None else number(figure.floor),
        "better": BETTER[figure.better],
        "note": figure.note,
    }


def _spread(images: ImageSet, count: int) -> Any:
    step = max(1, len(images) // count)
    return images.levels(range(0, step * count, step)[: min(count, len(images))])


def loss_of(run: Path) -> pictures.Loss | None:
    """The losses of a run; None of what is no run."""
    config = run / "config.toml"
    if not config.is_file():
        return None
    train: Mapping[str, Any] = tomllib.loads(config.read_text(encoding="utf-8")).get("train", {})
    return pictures.read_loss(run / "metrics.jsonl", int(train.get("batch_size", 1)))


def inline(png: bytes) -> str:
    """A picture as a data URL."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def environment() -> jinja2.Environment:
    """Templates of this package; everything that is filled in is escaped."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("ssmdiff_evaluate"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
