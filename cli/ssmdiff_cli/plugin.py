"""The command line's own commands: they take the road that everyone's take."""

from collections.abc import Iterable

from ssmdiff import Command, hookimpl


@hookimpl
def ssmdiff_commands() -> Iterable[Command]:
    yield Command(
        "sample",
        "ssmdiff_cli.sample:sample",
        "draw images from a run or an exported file",
    )
    yield Command("plugins", "ssmdiff_cli.plugins:app", "the plugins of this environment")
    yield Command(
        "checkpoint", "ssmdiff_cli.checkpoint:app", "whether the checkpoints of a run are whole"
    )
    yield Command("scans", "ssmdiff_cli.scans:app", "scan orderings: list, show, check")
    yield Command("config", "ssmdiff_cli.config:app", "configurations, every option shown")
    yield Command("doctor", "ssmdiff_cli.doctor:doctor", "check this machine and its kernels")
    yield Command("cite", "ssmdiff_cli.cite:cite", "BibTeX for components or for a run")
