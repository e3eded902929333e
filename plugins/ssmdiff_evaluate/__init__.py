"""Evaluation: how good the images of a model are, how varied and how new, on one page.

``sets`` turns a run, a file, a folder or a data set into images as 8-bit levels, ``features`` looks
at them through a feature network and keeps what it saw, ``evaluation`` asks the metrics and stamps
their figures, ``page`` and ``compare`` show them. Nothing here imports torch before it is used.
"""

from collections.abc import Iterable

from ssmdiff import Command, hookimpl


@hookimpl
def ssmdiff_commands() -> Iterable[Command]:
    yield Command(
        "evaluate",
        "ssmdiff_evaluate.command:evaluate",
        "how good, how varied and how new the images of a model are",
        job="ssmdiff_evaluate.job:evaluate",
        examples=(
            "ssmdiff evaluate runs/mine",
            "ssmdiff evaluate runs/mine --n 1000 --features texture --set frechet.infinite=false",
            "ssmdiff evaluate samples --against runs/mine --json",
            "ssmdiff evaluate translated --targets t2_images",
        ),
    )
    yield Command(
        "compare",
        "ssmdiff_evaluate.command:compare",
        "evaluations beside each other, in one table and on one page",
        job="ssmdiff_evaluate.compare:compare",
        examples=(
            "ssmdiff compare runs/a runs/b",
            "ssmdiff compare runs/a runs/b runs/c --format latex --out compared",
        ),
    )
