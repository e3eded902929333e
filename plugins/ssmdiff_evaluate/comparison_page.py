"""The page of a comparison: figures with intervals, models, curves, samples of the same seeds."""

from __future__ import annotations

from pathlib import Path

from ssmdiff_evaluate import pictures
from ssmdiff_evaluate.compare import Comparison, Told, protocol_of
from ssmdiff_evaluate.cost import in_short
from ssmdiff_evaluate.page import SAMPLES, environment, inline, loss_of

_SHOWN_FIGURES = ("frechet", "mmd", "copies")


def page(comparison: Comparison) -> str:
    """The HTML of a comparison; it asks for nothing from outside."""
    told = comparison.told
    shown = {
        row.name: [value for value in row.values if value is not None]
        for row in comparison.rows
        if all(value is not None for value in row.values) and _is_shown(row.name, told[0])
    }
    bars = pictures.bars(comparison.names, shown)
    losses = {
        name: found
        for name, t in zip(comparison.names, told, strict=True)
        if (found := loss_of(t.folder.parent.parent)) is not None
    }
    curves = [
        {
            "alt": f"Loss over {over}",
            "picture": inline(pictures.losses(losses, over)),
            "caption": f"The loss, a running mean of it, over {over}.",
        }
        for over in (pictures.SEEN, pictures.SECONDS)
        if losses
    ]
    return (
        environment()
        .get_template("comparison.html")
        .render(
            names=comparison.names,
            differences=comparison.differences,
            protocol=protocol_of(told[0]),
            rows=comparison.rows,
            bars=bars and inline(bars),
            facts=[
                {"name": fact.name, "cells": list(map(in_short, fact.values))}
                for fact in comparison.facts
            ],
            curves=curves,
            grids=[_grid(t) for t in told],
        )
    )


def _is_shown(name: str, told: Told) -> bool:
    figure = told.figures.get(name)
    return figure is not None and figure["metric"] in _SHOWN_FIGURES


def _grid(told: Told) -> str:
    path: Path = told.folder / SAMPLES
    data = path.read_bytes() if path.is_file() else b""
    return inline(data)
