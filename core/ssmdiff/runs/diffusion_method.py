"""The method ``diffusion``: a backbone that predicts the noise of an image, by L_simple (eq. 4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ssmdiff.diffusion.conditions import Conditions
from ssmdiff.diffusion.denoisers import TensorDenoiser, module_denoiser
from ssmdiff.diffusion.interfaces import NoiseScheduler
from ssmdiff.orders.seeds import Noise
from ssmdiff.registry.registry import create
from ssmdiff.runs import compose
from ssmdiff.runs.method import Batch, Method, Update, told_in
from ssmdiff.runs.sections import OF_SOME_METHODS, Config

NETWORK = "model"


@dataclass(frozen=True)
class DiffusionDraws:
    """A timestep, uniform over 0 .. T - 1, and noise."""

    timesteps: int

    def __call__(
        self, draws: np.random.Generator, image: Tensor, mirrored: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        timestep = int(draws.integers(self.timesteps))
        x_0 = mirrored(image)
        noise = draws.standard_normal(tuple(x_0.shape), dtype=np.float32)
        return {"x_0": x_0, "noise": torch.from_numpy(noise), "timestep": torch.tensor(timestep)}


class DiffusionMethod(Method):
    """A backbone of blocks along a scan, its forward process and its loss.

    Attributes:
        diffusion: The forward process.
        model: The backbone.
    """

    reads: ClassVar[frozenset[str]] = frozenset(OF_SOME_METHODS)
    drawing = NETWORK

    def __init__(self, config: Config, channels: int, conditions: Conditions) -> None:
        self.diffusion = compose.build_diffusion(config)
        self.model = compose.build_backbone(config, channels, conditions)
        self.networks = {NETWORK: self.model}
        self.plan = compose.order_plan(self.model, config)
        self.draws = DiffusionDraws(self.diffusion.timesteps)
        self.noise = Noise((channels, *config.data.image_size))
        self.gamma = config.diffusion.min_snr_gamma

    def updates(self, networks: Mapping[str, nn.Module]) -> Sequence[Update]:
        """The backbone alone."""
        network = networks[NETWORK]
        return [Update(NETWORK, lambda *given: {"loss": self.losses(network, *given[:2])})]

    def losses(self, network: nn.Module, batch: Batch, orders: Sequence[Tensor]) -> Tensor:
        """(B,) losses of some images."""
        x_0, noise, t = batch["x_0"], batch["noise"], batch["timestep"]
        x_t = self.diffusion.add_noise(x_0, noise, t)
        prediction = self.denoiser(network)(x_t, t, orders, *told_in(batch))
        return self.diffusion.losses(prediction, x_0, noise, t, self.gamma)

    def denoiser(self, network: nn.Module) -> TensorDenoiser:
        """The backbone, with what it is told."""
        return module_denoiser(network)

    def new_scheduler(self, table: Mapping[str, Any]) -> NoiseScheduler:
        """A noise scheduler over the process that was trained."""
        process = {"betas": self.diffusion.betas, "prediction_type": self.diffusion.prediction}
        scheduler: NoiseScheduler = create("scheduler", table, **process)
        return scheduler
