"""Measures ways of doing the same thing beside each other, in one run: time, memory, ratios.

``timing`` and ``memory`` hold what is measured, ``worker`` one way in a process of its own,
``compare`` all ways in turn over all sizes, ``record`` and ``plot`` the result. ``scan`` and
``step`` know what is compared; peers are third-party packages that are found by importing them.
Nothing here imports torch before it is used.
"""

from collections.abc import Iterable

from ssmdiff import Command, hookimpl


@hookimpl
def ssmdiff_commands() -> Iterable[Command]:
    yield Command(
        "bench",
        "ssmdiff_bench.command:app",
        "time and memory beside what others have, in one run",
        job="ssmdiff_bench.job:bench",
        examples=(
            "ssmdiff bench scan --tokens 256,1024 --directions 4",
            "ssmdiff bench step --pixels 64,128 --json step.json --plot step.png",
            "ssmdiff bench sample runs/mine --n 4 --steps 10",
        ),
    )
