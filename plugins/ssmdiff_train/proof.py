"""What a run does long after its first step, tried before it: sampling as it is configured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from ssmdiff import (
    Config,
    ConfigError,
    NoiseScheduler,
    PluginBrokenError,
    SsmdiffError,
    name_of,
    sample,
)
from torch import Tensor

SIDE = 2  # pixels of the image that is drawn for trial


class _Nothing:
    """A denoiser that finds nothing, and a plan without orders."""

    asarray = staticmethod(torch.as_tensor)

    def __call__(self, x: Tensor, timesteps: Tensor, orders: Sequence[Any]) -> Tensor:
        return torch.zeros_like(x)

    def draw(self, step: int, seed: int | None = None) -> Sequence[Any]:
        return ()


def prove_sampling(
    config: Config, new_scheduler: Callable[[Mapping[str, Any]], NoiseScheduler], channels: int
) -> None:
    """Walk all steps of the sampling of this run, without the network.

    Args:
        config: Of the run.
        new_scheduler: The method's: makes a scheduler of its table.
        channels: C of the images.

    Raises:
        ConfigError: The scheduler cannot walk this process, or not in so many steps.
        PluginBrokenError: The scheduler raised something of its own.
    """
    table, steps = config.sample.scheduler, config.sample.steps
    where = f"sample.scheduler {table['name']!r} in sample.steps = {steps}"
    nothing, shape = _Nothing(), (channels, *(SIDE for _ in config.data.image_size))
    try:
        images: Tensor = sample(
            nothing,
            new_scheduler(table),
            nothing,
            seed=config.seed,
            shape=shape,
            indices=[0],
            steps=steps,
        )
    except SsmdiffError as error:
        raise type(error)(f"{where}: {error}") from error
    except Exception as error:  # whatever a stranger's scheduler raises
        raise PluginBrokenError(f"{where} raised {name_of(error)}") from error
    if images.shape != (1, *shape) or not images.isfinite().all():
        raise ConfigError(
            f"{where}: a walk without a network ended in {tuple(images.shape)} values that are "
            f"{'' if images.isfinite().all() else 'not '}finite; expected {(1, *shape)}, finite. "
            "Try: fewer steps, or another scheduler"
        )
