"""The optimiser, its learning rate, and the average of the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from ssmdiff import Adam, CheckpointError, TrainConfig
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def build_optimizer(
    model: nn.Module, config: TrainConfig, adam: Adam | None = None
) -> torch.optim.Optimizer:
    """Adam (AdamW with weight decay); norms, biases and state-space parameters do not decay.

    The rate is that of the configuration; ``adam.rate`` is the loop's to multiply it by.
    """
    adam = adam or Adam()
    decayed: list[nn.Parameter] = []
    undecayed: list[nn.Parameter] = []
    for parameter in model.parameters():
        exempt = parameter.ndim < 2 or getattr(parameter, "_no_weight_decay", False)
        (undecayed if exempt else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": undecayed, "weight_decay": 0.0},
    ]
    # One pass over each parameter instead of ten. The loss scaler of fp16 decides inside a fused
    # optimiser whether a step is skipped, where Accelerate and the average would not see it.
    fused = config.precision != "fp16"
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=adam.betas, eps=adam.eps, fused=fused
    )


def learning_rate(config: TrainConfig, step: int) -> float:
    """The rate of the step that follows after ``step`` steps: a pure function of it.

    Linear warm-up over ``warmup_steps``; then constant, or half a cosine down to zero. The position
    is in steps done, so that a run that goes on with another batch size goes on where it was.
    """
    # In images of today's batch size: a run that never changed it has the bits that it always had.
    batch = config.batch_size
    done, warmup, total = (n * batch for n in (step, config.warmup_steps, config.steps))
    if done < warmup:
        return config.learning_rate * (done + batch) / (warmup + batch)
    if config.schedule == "constant":
        return config.learning_rate
    progress = (done - warmup) / max(total - warmup, 1)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def build_ema(model: nn.Module, decay: float) -> AveragedModel:
    """The exponential moving average of the weights, in float32.

    The decay warms up as (1 + n) / (10 + n) after n updates, so that a short run is not an average
    with its own initialisation.
    """

    @torch.no_grad()
    def update(averages: Sequence[Tensor], current: Sequence[Tensor], updates: Any) -> None:
        n = float(updates)
        weight = 1 - min(decay, (1 + n) / (10 + n))
        torch._foreach_lerp_(list(averages), list(current), weight)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=False)


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as flat tensors: ``parameter name / key``."""
    return {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]
) -> None:
    """The inverse of :func:`optimizer_tensors`.

    Raises:
        CheckpointError: A tensor belongs to no parameter of the model.
    """
    parameters = dict(model.named_parameters())
    for path, value in tensors.items():
        name, _, key = path.rpartition("/")
        if name not in parameters:
            raise CheckpointError(f"the checkpoint's optimiser has {path!r}; the model has no such")
        parameter = parameters[name]
        if value.shape == parameter.shape:
            # In the parameter's memory format too: a fused optimiser walks both as flat memory.
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        elif optimizer.defaults["fused"]:  # the step count, otherwise on the CPU
            value = value.to(parameter.device)
        optimizer.state[parameter][key] = value
