"""Runs to begin with: written in a moment, every weight of them matters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from ssmdiff import Condition, Conditions, Config, Method, RunFolder, build_method
from ssmdiff_train import init_from
from torch import Tensor

SHORT = {
    "callbacks": [], "steps": 1, "warmup_steps": 0, "learning_rate": 1e-3, "held_out_every": 0,
}  # fmt: skip
"""Of a run that takes one step of known length."""
STILL = {"backbone": {"dropout": 0.0}}


def written(
    folder: Path,
    config: Config,
    channels: int = 1,
    classes: tuple[str, ...] = (),
    conditions: Conditions | None = None,
    **provenance: Any,
) -> dict[str, dict[str, Tensor]]:
    """A run's folder with one checkpoint, whose averages are other weights than its networks have.

    No weight is zero, so that no part of a network is without effect.

    Returns:
        The tensors of the checkpoint, by file.
    """
    torch.manual_seed(11)
    told = conditions or told_classes(config, classes)
    method = build_method(config, channels, told)
    found = {name: _moved(network.state_dict()) for name, network in method.networks.items()}
    found["ema"] = _moved(found[method.drawing])
    run = RunFolder(folder)
    run.create(config)
    state = {
        "channels": channels, "class_names": list(classes), "conditions": told.record(),
        "provenance": provenance,
    }  # fmt: skip
    run.save_checkpoint(7, found, state)
    return found


def _moved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: value + 0.05 * torch.randn(value.shape) if value.is_floating_point() else value
        for name, value in tensors.items()
    }


def told_classes(config: Config, classes: tuple[str, ...]) -> Conditions:
    """What a conditional model of these classes is told."""
    named = classes if config.model.class_conditional else ()
    return Conditions([Condition("label", "label", named)] if named else [])


def begun(
    config: Config,
    out: Path,
    channels: int = 1,
    classes: tuple[str, ...] = (),
    conditions: Conditions | None = None,
) -> tuple[Method, init_from.Begun]:
    """The networks of a new run with what they begin with, and what is told of it."""
    torch.manual_seed(12)
    told = conditions or told_classes(config, classes)
    method = build_method(config, channels, told)
    found = init_from.begin(config, RunFolder(out), method, channels, told)
    assert found is not None
    return method, found
