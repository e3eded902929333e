"""A noise scheduler of ours by its table, where there is no registry; which process it walks back.

A scheduler says by its attribute ``process`` which way from images to noise it walks back: that of
betas, or the straight one of a rectified flow. One that says nothing is of betas.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from ssmdiff.diffusion.flow_schedulers import FLOW, FLOW_SCHEDULERS, FlowScheduler
from ssmdiff.diffusion.interfaces import Floats
from ssmdiff.diffusion.schedulers import DIFFUSION, SCHEDULERS, Scheduler
from ssmdiff.errors import ConfigError, did_you_mean


def make_scheduler(table: Mapping[str, Any], betas: Floats, prediction_type: str) -> Scheduler:
    """One of ours by its table, ``{"name": ..., option: value}``, over a process of betas.

    Raises:
        ConfigError: It is none of ours, is of another process, or has no such option.
    """
    process = {"betas": betas, "prediction_type": prediction_type}
    scheduler: Scheduler = _made(table, DIFFUSION, process)
    return scheduler


def make_flow_scheduler(table: Mapping[str, Any], trained_shift: float) -> FlowScheduler:
    """The same along a rectified flow whose times were shifted so in training."""
    scheduler: FlowScheduler = _made(table, FLOW, {"trained_shift": trained_shift})
    return scheduler


_OURS: dict[str, Mapping[str, type[Any]]] = {DIFFUSION: SCHEDULERS, FLOW: FLOW_SCHEDULERS}


def _made(table: Mapping[str, Any], process: str, wired: Mapping[str, Any]) -> Any:
    options = dict(table)
    name = options.pop("name", None)
    known = _OURS[process]
    found = next((of for of, those in _OURS.items() if name in those), process)
    refuse_another(str(name), found, process, known)
    if name not in known:
        raise ConfigError(
            f"scheduler {name!r} is not one of {', '.join(known)}, which need numpy alone; "
            "those of plugins run where torch and the plugin are installed: ssmdiff sample FILE"
        )
    taken = [key for key in inspect.signature(known[name]).parameters if key not in wired]
    for key in options.keys() - set(taken):
        raise ConfigError(f"scheduler {name!r} has no option {key!r}; {did_you_mean(key, taken)}")
    return known[name](**wired, **options)


def refuse_another(name: str, found: str, process: str, fitting: Iterable[str]) -> None:
    """Check that a scheduler walks back the process that was trained.

    Args:
        name: Of the scheduler.
        found: The process that it is of.
        process: The one that was trained.
        fitting: Names of those of that process.

    Raises:
        ConfigError: It walks back another.
    """
    if found != process:
        raise ConfigError(
            f"scheduler {name!r} walks back the process {found!r}, and the model is trained on "
            f"{process!r}; expected one of {', '.join(fitting)}"
        )
