"""Runs on disk with small, untrained models whose every weight matters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ssmdiff import Condition, Conditions
from ssmdiff.runs import checkpoint, compose
from ssmdiff.runs.config import merge, resolve
from ssmdiff.runs.run import Run, RunFolder

UNET = {"name": "vmddpm", "channels": 8, "widths": [1], "layers": 1, "stem_stride": 1}
STACK = {"name": "isotropic", "channels": 16, "depth": 2, "patch": 2}
SMALLEST = {**STACK, "depth": 1}
SCAN_WEIGHTS = ("x_proj.weight", "x_weight", "out_proj.weight")


def tiny_run(
    folder: Path,
    classes: tuple[str, ...] = (),
    diffusion: Mapping[str, Any] = {"timesteps": 100},
    channels: int = 1,
    side: int = 8,
    conditions: Sequence[Condition] = (),
    **model: Any,
) -> Run:
    """A run of ``model`` (keys of the configuration's table) on images of 8 x 8, told a label if
    there are classes, or what else is given.

    Weights that start at zero are drawn, so that no part of the network is without effect, and the
    scan is made to weigh more, so that another order is another prediction.
    """
    changes = {
        "data": {"image_size": side},
        "model": {"backbone": UNET, "class_conditional": bool(classes), **model},
        "diffusion": diffusion,
        "sample": {"steps": 4},
    }
    config = resolve(merge({}, changes))
    torch.manual_seed(0)
    label = [Condition("label", "label", classes)] if classes else []
    told = Conditions(conditions or label)
    network = compose.build_backbone(config, channels, told)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
            if name.endswith(SCAN_WEIGHTS):
                parameter.mul_(4)
            if name.endswith("dt_bias"):
                parameter.add_(2)
    run = RunFolder(folder)
    run.create(config)
    weights = {"model": network.state_dict(), "ema": network.state_dict()}
    state = {"channels": channels, "class_names": list(classes), "conditions": told.record()}
    checkpoint.save(run.checkpoints, 1, weights, state)
    return Run(folder)
