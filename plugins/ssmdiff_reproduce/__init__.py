"""Tables and figures of papers, computed anew beside what was printed. ``papers`` holds what they
print, ``vm-ddpm.cpu.toml`` and ``vm-ddpm.paper.toml`` what a table is made from.

What is computed is computed by the jobs whose subject it is, which are reached by ``ssmdiff.job``.
"""

from collections.abc import Iterable

from ssmdiff import Command, hookimpl


@hookimpl
def ssmdiff_commands() -> Iterable[Command]:
    yield Command(
        "reproduce",
        "ssmdiff_reproduce.command:reproduce",
        "tables and figures of a paper, computed anew beside what it prints",
        job="ssmdiff_reproduce.job:reproduce",
        examples=(
            "ssmdiff reproduce vm-ddpm --table 5",
            "ssmdiff reproduce vm-ddpm --table 2 --scale cpu --out reproduced --plan --no-cost",
            "ssmdiff reproduce vm-ddpm --table 2 --scale cpu --out reproduced --write commands",
        ),
    )
