"""The page of a score, to send: sentences first, then tables III to V and what they leave out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ssmdiff_turing.page import environment, policy
from ssmdiff_turing.score import Reader, Score
from ssmdiff_turing.study import SINGLE

_WIDTH, _EDGE, _ROW = 480, 24, 44
"""Units of a plot: in all, free on either side, of a row with a name over its line."""


def score_page(score: Score) -> str:
    """The HTML of a score; it holds no image and asks for nothing from outside."""
    single = score.key.design == SINGLE
    everyone = score.everyone
    accuracies = [(r.name, r.figures["accuracy"]) for r in everyone]
    return (
        environment()
        .get_template("score.html")
        .render(
            title="The visual Turing test",
            policy=policy(),
            lead=_lead(score),
            outcomes=[outcome(r, single) for r in everyone],
            notes=score.notes,
            single=single,
            accuracy_plot=_plot(accuracies, (0.0, 1.0), 0.5, None),
            difference_plot=_plot(
                [(r.name, r.figures["difference"]) for r in everyone],
                (-1.0, 1.0),
                0.0,
                score.margin,
            )
            if single
            else None,
            readers=[_tables(r) if single else {"name": r.name} for r in everyone],
            rows=_rows(everyone, single),
            agreement=agreement_lines(score),
            study=score.key.study,
            made=score.key.fields.get("made", "at a time that is not known"),
        )
    )


def outcome(reader: Reader, single: bool) -> str:
    """One reader in one sentence."""
    f = reader.figures
    accuracy, equivalence = f["accuracy"], f["equivalence"]
    text = (
        f"{reader.name[0].upper()}{reader.name[1:]}: {_percent(accuracy['value'])} right "
        f"({_percent(accuracy['low'])} to {_percent(accuracy['high'])}), p of guessing "
        f"{number(accuracy['p_of_chance'])}"
    )
    if single:
        text += f", Fisher's p {number(f['fisher']['two_sided'])}"
    shown = "is shown" if equivalence["shown"] else "is not shown"
    return f"{text}; equivalence within {equivalence['margin']:g} {shown}."


def agreement_lines(score: Score) -> list[str]:
    """What is known of several readers beside each other."""
    if len(score.readers) < 2:
        return []
    kappa, images = score.agreement["kappa"], score.agreement["images"]
    things = "images" if score.key.design == SINGLE else "pairs"
    lines = [
        f"Fleiss' kappa over {images} {things} that all of them judged: {number(kappa)} (1 is full "
        "agreement, 0 what chance gives)."
        if kappa is not None
        else f"Fleiss' kappa is not defined: {images} {things} were judged by all of them, or all "
        "judgements are the same."
    ]
    for pair in score.pairs:
        lines.append(
            f"{pair['first']} and {pair['second']}, Fisher's p that they judge alike: real images "
            f"{number(pair['real'])}, synthetic ones {number(pair['synthetic'])}."
        )
    return lines


def number(value: float | None) -> str:
    """Three digits; a dash for what is not defined."""
    if value is None:
        return "-"
    return "<0.0001" if 0 < value < 1e-4 else f"{value:.3g}"


def _lead(score: Score) -> str:
    single = score.key.design == SINGLE
    total = len(score.key.truth)
    what = f"{total // 2} real and {total // 2} synthetic images" if single else f"{total} pairs"
    who = "one doctor" if len(score.readers) == 1 else f"{len(score.readers)} doctors"
    confidence = (
        "all answers count"
        if score.counted == "low"
        else (
            f"answers of {score.counted} confidence count"
            if score.counted == "high"
            else "answers of medium and high confidence count"
        )
    )
    when = "chosen afterwards" if score.post_hoc else "set when the study was made"
    return (
        f"{what[0].upper()}{what[1:]}, judged by {who}. By rules {when}, {confidence}, and the "
        f"margin of equivalence is {score.margin:g}."
    )


def _tables(reader: Reader) -> dict[str, Any]:
    f = reader.figures
    counts = f["counts"]
    return {
        "name": reader.name,
        "rr": counts["real"]["judged_real"],
        "rs": counts["real"]["judged_synthetic"],
        "sr": counts["synthetic"]["judged_real"],
        "ss": counts["synthetic"]["judged_synthetic"],
        **{
            f"{name}_{kind}": "-" if f[name][kind] is None else f"{f[name][kind]:.3f}"
            for name in ("recall", "precision")
            for kind in ("real", "synthetic")
        },
    }


def _rows(readers: Sequence[Reader], single: bool) -> list[dict[str, Any]]:
    """Every figure of every reader, a row each: text, and its interval below it."""

    def at(reader: Reader, *path: str) -> Any:
        value: Any = reader.figures
        for part in path:
            value = value[part]
        return value

    def row(name: str, *path: str) -> dict[str, Any]:
        return {"name": name, "cells": [{"text": number(at(r, *path))} for r in readers]}

    def ranged(name: str, path: str, value: str = "value") -> dict[str, Any]:
        cells = [
            {"text": number(f[value]), "below": f"{number(f['low'])} to {number(f['high'])}"}
            for f in (at(r, path) for r in readers)
        ]
        return {"name": name, "cells": cells}

    rows = [
        {"name": "answers given", "cells": [{"text": f"{r.answered} of {r.of}"} for r in readers]},
        {"name": "of these counted", "cells": [{"text": str(r.counted)} for r in readers]},
        ranged("accuracy", "accuracy"),
        row("p of guessing, binomial", "accuracy", "p_of_chance"),
    ]
    if len(readers) > 1:
        over = [r.figures["accuracy"].get("over_images") for r in readers]
        cells = [{"text": "" if o is None else " to ".join(map(number, o))} for o in over]
        rows.append({"name": "accuracy, interval over images", "cells": cells})
    if single:
        rows += [
            row("Fisher's p, two-sided", "fisher", "two_sided"),
            ranged("odds ratio", "odds_ratio", "conditional"),
            ranged("difference judged real", "difference"),
            row("equivalence, p (Wald)", "equivalence", "p"),
            row("equivalence, p (score)", "equivalence", "p_score"),
            row("sensitivity d'", "sensitivity", "d_prime"),
            row("criterion", "sensitivity", "criterion"),
        ]
    else:
        rows += [
            ranged("picked A", "picked_first"),
            row("equivalence, p (binomial)", "equivalence", "p"),
            row("sensitivity d'", "sensitivity", "d_prime"),
        ]
    for group, what in (("of_difference", "a difference"), ("of_accuracy", "an accuracy")):
        sizes = [size for r in readers for size in r.figures["power"].get(group, {})]
        for size in dict.fromkeys(sizes):
            found = [r.figures["power"][group].get(size) for r in readers]
            cells = [{"text": number(value)} for value in found]
            rows.append({"name": f"power to find {what} of {size}", "cells": cells})
    return [*rows, row("power to show equivalence", "power", "of_equivalence")]


def _plot(
    rows: Sequence[tuple[str, Any]], span: tuple[float, float], line: float, margin: float | None
) -> dict[str, Any]:
    """A share or difference of each reader with its interval: where the template draws what."""
    low, high = span

    def x(value: float) -> float:
        return round(_EDGE + (value - low) / (high - low) * (_WIDTH - 2 * _EDGE), 1)

    return {
        "width": _WIDTH,
        "bottom": _ROW * len(rows),
        "line": x(line),
        "band": None if margin is None else (x(line - margin), x(line + margin)),
        "rows": [
            {
                "name": name,
                "y": _ROW * i + 30,
                **{key: x(value[key]) for key in ("low", "value", "high")},
            }
            for i, (name, value) in enumerate(rows)
        ],
        "ticks": [
            {"x": x(low + (high - low) * i / 4), "text": f"{low + (high - low) * i / 4:g}"}
            for i in range(5)
        ],
    }


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"
