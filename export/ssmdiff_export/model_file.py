"""An exported model behind torch's sampling loop, so that every noise scheduler draws from it.

Where torch is not installed, :class:`ssmdiff_export.runtime.OnnxSampler` draws the same images.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ssmdiff import ConfigError, Denoiser, Sampling, create, registry, sample_batches
from torch import Tensor

from ssmdiff_export.runtime.card import ModelCard
from ssmdiff_export.runtime.orders import FilePlan
from ssmdiff_export.runtime.sampler import OnnxSampler

Predict = Callable[[Mapping[str, Tensor]], Tensor]
"""The graph's inputs by name to the prediction."""


class FileModel:
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
        self.channels, self.image_size = card.channels, card.image_size
        self._origin = dict(origin)

    def origin(self) -> dict[str, Any]:
        """The file and its agreement with torch, as JSON."""
        parity = self.card.parity
        return {
            **self._origin,
            "checkpoint": self.card.checkpoint,
            "weights_sha256": self.card.weights_sha256,
            "parity": None if parity is None else vars(parity),
        }

    def sampling(
        self, scheduler: str | Mapping[str, Any] | None = None, steps: int | None = None
    ) -> Sampling:
        """What :meth:`sample` would do with these arguments.

        Raises:
            ConfigError: There is no such scheduler, or it has no such option.
        """
        steps = self.card.steps if steps is None else steps
        if steps < 1:
            raise ConfigError(f"steps is {steps}; expected at least 1")
        table = registry().options("scheduler", self.card.scheduler_table(scheduler))
        arguments = {
            "betas": self.card.betas(),
            "prediction_type": self.card.diffusion.prediction,
        }
        new = functools.partial(create, "scheduler", table, **arguments)
        return Sampling(table, steps, new)

    def sample(
        self,
        n: int = 16,
        *,
        seed: int = 0,
        steps: int | None = None,
        scheduler: str | Mapping[str, Any] | None = None,
        label: int | None = None,
        batch_size: int = 16,
        indices: Iterable[int] | None = None,
        on_batch: Callable[[list[int], Tensor], None] | None = None,
        on_step: Callable[[], None] | None = None,
    ) -> Tensor:
        """Draw images 0 to n - 1 of a seed, (n, C, H, W) float32, -1 to 1; see ``Run.sample``."""
        sampling = self.sampling(scheduler, steps)
        return sample_batches(
            functools.partial(self._denoiser, self.card.class_index(label)),
            sampling.new_scheduler,
            FilePlan(self.card, seed),
            self.card.shape,
            list(range(n) if indices is None else indices),
            sampling.steps,
            batch_size,
            self.device,
            on_batch,
            on_step,
        )

    def _denoiser(self, index: int | None, n: int) -> Denoiser:
        names = [slot.order for slot in self.card.slots if slot.order is not None]

        def denoise(x: Tensor, timesteps: Tensor, orders: Sequence[Tensor]) -> Tensor:
            inputs = {"x": x, "timesteps": timesteps.to(torch.float32)}
            if index is not None:
                inputs["context"] = torch.full((n,), index, device=x.device)
            inputs |= dict(zip(names, orders, strict=True))
            return self.predict(inputs)

        return denoise


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
