"""Noise schedulers of the registry by the process that they walk back. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ssmdiff.diffusion.interfaces import NoiseScheduler
from ssmdiff.diffusion.making import refuse_another
from ssmdiff.diffusion.schedulers import DIFFUSION
from ssmdiff.errors import SsmdiffError
from ssmdiff.registry.registry import registry


def _process_of(scheduler: str) -> str:
    """The process that a scheduler walks back; none of one that is missing or broken, which is told
    where it is built."""
    with suppress(SsmdiffError):
        found = registry().find("scheduler", scheduler).factory()
        return str(getattr(found, "process", DIFFUSION))
    return ""


def refuse_other_process(scheduler: str, process: str) -> None:
    """Check that a scheduler, if there is one of the name, walks back a process.

    Raises:
        ConfigError: It walks back another; those that fit are named.
    """
    found = _process_of(scheduler)
    if found and found != process:
        names = registry().names("scheduler")
        refuse_another(scheduler, found, process, [n for n in names if _process_of(n) == process])


def create_scheduler(table: Mapping[str, Any], process: str, **wired: Any) -> NoiseScheduler:
    """A noise scheduler over the process that was trained.

    Args:
        table: Its name and options.
        process: Which it has to walk back.
        **wired: What the process is: see :class:`ssmdiff.NoiseScheduler`.

    Raises:
        ConfigError: It walks back another process, or an option does not fit.
    """
    refuse_other_process(table["name"], process)
    scheduler: NoiseScheduler = registry().create("scheduler", table, **wired)
    return scheduler
