"""An exported model on torch tensors, so that every noise scheduler of the registry draws from it.

Where torch is not installed, :class:`ssmdiff_export.runtime.OnnxSampler` draws the same images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ssmdiff import (
    NoiseScheduler,
    SamplingSettings,
    TorchDenoiser,
    create,
    registry,
)
from torch import Tensor

from ssmdiff_export.runtime.card import ModelCard
from ssmdiff_export.runtime.sampler import CardModel, OnnxSampler

Predict = Callable[[Mapping[str, Tensor]], Tensor]
"""The graph's inputs by name to the prediction."""


class FileModel(CardModel[Tensor]):
    """A trained model in a file; draws as :class:`ssmdiff.Run` does.

    Args:
        card: What the file says about itself.
        predict: Calls the network.
        origin: What the file is, for the record beside the images.
        device: Where its tensors live; the CPU by default.
    """

    def __init__(
        self,
        card: ModelCard,
        predict: Predict,
        origin: Mapping[str, Any],
        device: torch.device | None = None,
    ) -> None:
        self.card, self.predict, self.device = card, predict, device
        self._origin = dict(origin)

    def origin(self) -> dict[str, Any]:
        """The file and its agreement with torch, as JSON."""
        return {**self._origin, **super().origin()}

    def sampling(
        self,
        scheduler: str | Mapping[str, Any] | None = None,
        steps: int | None = None,
        seed: int = 0,
        label: int | None = None,
    ) -> SamplingSettings:
        """What was asked for, over the model's own; any scheduler of the registry, all its options.

        Raises:
            ConfigError: There is no such scheduler, or it has no such option.
        """
        asked = super().sampling(scheduler, steps, seed, label)
        table = registry().options("scheduler", asked.scheduler)
        return dataclasses.replace(asked, scheduler=table)

    def new_scheduler(self, table: Mapping[str, Any]) -> NoiseScheduler:
        """A noise scheduler over the process that was trained."""
        betas, predicted = self.card.betas(), self.card.diffusion.prediction
        scheduler: NoiseScheduler = create(
            "scheduler", table, betas=betas, prediction_type=predicted
        )
        return scheduler

    def joined(self, batches: Sequence[Tensor]) -> Tensor:
        """On the CPU."""
        return torch.cat([images.cpu() for images in batches])

    def denoiser(self, label: int | None = None) -> TorchDenoiser:
        """The network of the file, with the class bound."""
        names = [slot.order for slot in self.card.slots if slot.order is not None]
        index = self.card.class_index(label)

        def denoise(x: Tensor, timesteps: Tensor, orders: Sequence[Tensor]) -> Tensor:
            inputs = {"x": x, "timesteps": timesteps}
            if index is not None:
                inputs["context"] = torch.full((len(x),), index, device=x.device)
            inputs |= dict(zip(names, orders, strict=True))
            return self.predict(inputs)

        return TorchDenoiser(denoise, self.device)


def open_onnx(path: Path, provider: str = "cpu", library: Path | None = None) -> FileModel:
    """An ONNX file of ours, ready to sample.

    Args:
        path: Written by ``ssmdiff export``.
        provider: Of ONNX Runtime: ``cpu``, ``cuda`` or ``tensorrt``.
        library: Our operator as a shared library for ONNX Runtime.

    Raises:
        ConfigError: What the file needs is not installed here.
        ExportError: The file is damaged, foreign, or not one that may be opened.
    """
    sampler = OnnxSampler(path, provider, library)

    def predict(inputs: Mapping[str, Tensor]) -> Tensor:
        return torch.from_numpy(sampler.run({k: v.numpy() for k, v in inputs.items()}))

    origin = {
        "file": path.name,
        "file_sha256": sampler.report.sha256(),
        "provider": provider,
        "library": library is not None,
    }
    return FileModel(sampler.card, predict, origin)
