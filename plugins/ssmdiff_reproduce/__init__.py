"""Figures of papers, computed anew beside what was printed. ``papers`` holds what they print.

A table is computed by the job whose subject it is, which is reached by ``ssmdiff.job``.
"""

from collections.abc import Iterable

from ssmdiff import Command, hookimpl


@hookimpl
def ssmdiff_commands() -> Iterable[Command]:
    yield Command(
        "reproduce",
        "ssmdiff_reproduce.command:reproduce",
        "figures of a paper, computed anew beside what it prints",
        job="ssmdiff_reproduce.job:reproduce",
        examples=("ssmdiff reproduce vm-ddpm --table 5",),
    )
