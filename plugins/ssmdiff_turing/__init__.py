"""The visual Turing test: readers judge real and synthetic images on one page, and are scored.

``images`` takes the two kinds, ``study`` shuffles them into a page and its key, ``answers`` reads
what readers send back, ``figures`` knows the statistics, ``score`` puts them together for each
reader and all, ``report`` writes them, ``plan`` says how many images a margin needs. Nothing here
imports torch before it is used.
"""

from collections.abc import Iterable

from ssmdiff import Command, hookimpl


@hookimpl
def ssmdiff_commands() -> Iterable[Command]:
    yield Command(
        "turing",
        "ssmdiff_turing.command:app",
        "whether doctors can tell the images of a model from real ones",
        job="ssmdiff_turing.job:turing",
        examples=(
            "ssmdiff turing plan --margin 0.15",
            "ssmdiff turing make runs/mine --real runs/mine --n 100 --out study",
            "ssmdiff turing make drawn --real images --n 50 --forced-choice --out pairs",
            "ssmdiff turing score answers-*.json --key study/key.json",
        ),
    )
