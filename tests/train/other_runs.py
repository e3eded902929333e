"""Runs to begin with: written in a moment, every weight of them matters."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from ssmdiff import Config, Method, RunFolder, build_method, told_conditions
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
    **provenance: Any,
) -> dict[str, dict[str, Tensor]]:
    """A run's folder with one checkpoint, whose averages are other weights than its networks have.

    No weight is zero, so that no part of a network is without effect.

    Returns:
        The tensors of the checkpoint, by file.
    """
    torch.manual_seed(11)
    method = build_method(config, channels, told_conditions(config, images(channels, classes)))
    found = {name: _moved(network.state_dict()) for name, network in method.networks.items()}
    found["ema"] = _moved(found[method.drawing])
    run = RunFolder(folder)
    run.create(config)
    state = {"channels": channels, "class_names": list(classes), "provenance": provenance}
    run.save_checkpoint(7, found, state)
    return found


def _moved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: value + 0.05 * torch.randn(value.shape) if value.is_floating_point() else value
        for name, value in tensors.items()
    }


def images(channels: int = 1, classes: tuple[str, ...] = ()) -> Any:
    """What a run is told of its images."""
    return SimpleNamespace(channels=channels, class_names=classes)


def begun(
    config: Config, out: Path, channels: int = 1, classes: tuple[str, ...] = ()
) -> tuple[Method, init_from.Begun]:
    """The networks of a new run with what they begin with, and what is told of it."""
    torch.manual_seed(12)
    method = build_method(config, channels, told_conditions(config, images(channels, classes)))
    found = init_from.begin(config, RunFolder(out), method, images(channels, classes))
    assert found is not None
    return method, found
