"""The networks of a method while they are trained: optimisers, average, what a checkpoint has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from accelerate import Accelerator
from ssmdiff import Config, Method, compile_backbone, load_state
from ssmdiff.nn import recompute_activations
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ssmdiff_train.optimizer import (
    build_ema,
    build_optimizer,
    load_optimizer_tensors,
    optimizer_tensors,
)

EMA, OPTIMIZER = "ema", "optimizer"


class Networks:
    """The networks of a method on their device.

    Args:
        method: Whose they are.
        config: Of the run.
        accelerator: Wraps them.

    Attributes:
        modules: By name, as the method has them.
        wrapped: As a training step calls one that moves.
        steppers: Its optimiser, by the same names.
        ema: The average of the network that draws.
    """

    def __init__(self, method: Method, config: Config, accelerator: Accelerator) -> None:
        self.drawing, train = method.drawing, config.train
        self.modules: dict[str, nn.Module] = dict(method.networks)
        for module in self.modules.values():
            module.to(accelerator.device)
        self.ema: AveragedModel = build_ema(self.modules[self.drawing], train.ema_decay)
        self.optimizers = {
            name: build_optimizer(module, train, method.adam(name))
            for name, module in self.modules.items()
        }
        self.wrapped: dict[str, nn.Module] = {}
        self.steppers: dict[str, Any] = {}
        for name, module in self.modules.items():
            if train.activation_checkpointing:
                recompute_activations(module)
            self.wrapped[name], self.steppers[name] = accelerator.prepare(
                module, self.optimizers[name]
            )
            if train.compile:
                compile_backbone(module)

    @property
    def parameters(self) -> int:
        """Of all networks."""
        return sum(p.numel() for module in self.modules.values() for p in module.parameters())

    def train(self) -> None:
        """Into training mode."""
        for module in self.wrapped.values():
            module.train()

    @contextmanager
    def moving(self, name: str) -> Iterator[nn.Module]:
        """One network, wrapped; the others keep no gradients inside."""
        others = [m for other, m in self.modules.items() if other != name]
        held = [p for module in others for p in module.parameters() if p.requires_grad]
        for parameter in held:
            parameter.requires_grad_(False)
        try:
            yield self.wrapped[name]
        finally:
            for parameter in held:
                parameter.requires_grad_(True)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint holds: a file for each network, the average, and each optimiser."""
        found: dict[str, dict[str, Tensor]] = {n: m.state_dict() for n, m in self.modules.items()}
        found[EMA] = self.ema.module.state_dict()
        for name, module in self.modules.items():
            found[self._file_of(name)] = optimizer_tensors(module, self.optimizers[name])
        return found

    def load(self, checkpoint: Any, updates: int) -> None:
        """The inverse of :meth:`tensors`.

        Args:
            checkpoint: An ``ssmdiff`` checkpoint.
            updates: Of the average.

        Raises:
            CheckpointError: It is of other networks.
        """
        modules: Mapping[str, nn.Module] = {**self.modules, EMA: self.ema.module}
        for name, module in modules.items():
            load_state(module, checkpoint.tensors(name), checkpoint.path)
        self.ema.n_averaged.fill_(updates)
        for name, module in self.modules.items():
            tensors = checkpoint.tensors(self._file_of(name))
            load_optimizer_tensors(module, self.optimizers[name], tensors)

    def _file_of(self, name: str) -> str:
        """Where an optimiser's state is kept: the only one has no other's name."""
        return OPTIMIZER if len(self.modules) == 1 else f"{name}-{OPTIMIZER}"
