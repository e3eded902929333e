"""The method ``diffusion``: a backbone that predicts the noise of an image, by L_simple (eq. 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ssmdiff.networks.backbone import order_tensors
from ssmdiff.orders.seeds import stream
from ssmdiff.runs import compose
from ssmdiff.runs.backbone_method import BackboneMethod
from ssmdiff.runs.method import Batch
from ssmdiff.runs.sections import Config

BOUND_TIMESTEPS = 32


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


class DiffusionMethod(BackboneMethod):
    """A backbone of blocks along a scan, its forward process and its loss.

    Attributes:
        diffusion: The forward process.
    """

    def __init__(self, config: Config, channels: int, classes: int) -> None:
        self.diffusion = compose.build_diffusion(config)
        super().__init__(config, channels, classes)
        self.draws = DiffusionDraws(self.diffusion.timesteps)
        self.noisiest = self.diffusion.timesteps - 1
        self.gamma = config.diffusion.min_snr_gamma

    def losses(self, network: nn.Module, batch: Batch, orders: Sequence[Tensor]) -> Tensor:
        """(B,) losses of some images."""
        return self._losses(network, batch, orders, [self.gamma])[0]

    def held_out(
        self, network: nn.Module, batch: Batch, orders: Sequence[Tensor]
    ) -> Mapping[str, Tensor]:
        """The loss, and L_simple, of a weight of 1 (eq. 4), where that is another."""
        gammas = {"loss": self.gamma} | ({} if self.gamma is None else {"l_simple": None})
        found = self._losses(network, batch, orders, gammas.values())
        return dict(zip(gammas, found, strict=True))

    def _losses(
        self,
        network: nn.Module,
        batch: Batch,
        orders: Sequence[Tensor],
        gammas: Iterable[float | None],
    ) -> list[Tensor]:
        """By several weights, of one prediction."""
        x_0, noise, t = batch["x_0"], batch["noise"], batch["timestep"]
        x_t = self.diffusion.add_noise(x_0, noise, t)
        prediction = self.predicted(network, x_t, t, batch, orders)
        return [self.diffusion.losses(prediction, x_0, noise, t, gamma) for gamma in gammas]

    def spread(self, parts: NDArray[np.float64], count: int) -> dict[str, Tensor]:
        """Timesteps."""
        timesteps = (parts * self.diffusion.timesteps / count).astype(np.int64)
        return {"timestep": torch.from_numpy(timesteps)}

    def bits_per_dim(self, network: nn.Module, images: Batch, seed: int) -> Tensor:
        """L_vb (eq. 3), its sum over t estimated from evenly spaced timesteps."""
        x_0 = images["x_0"]

        def predict(x_t: Tensor, t: Tensor) -> Tensor:
            orders = order_tensors(self.plan.draw(int(t[0])), x_0.device)
            return self.predicted(network, x_t, t, images, orders)

        def noise(t: int) -> Tensor:
            values = stream(seed, "bound", t).standard_normal(tuple(x_0.shape))
            return torch.from_numpy(values).to(x_0)

        timesteps = _spread(self.diffusion.timesteps - 1, BOUND_TIMESTEPS)
        return self.diffusion.bits_per_dim(predict, x_0, noise, timesteps)

    def wired(self) -> dict[str, Any]:
        """Betas and what is predicted."""
        return {"betas": self.diffusion.betas, "prediction_type": self.diffusion.prediction}


def _spread(last: int, count: int) -> list[int]:
    """``count`` of the timesteps 1 .. last, in the middle of equal parts; at most all."""
    count = min(count, last)
    return [1 + int(last * (i + 0.5) / count) for i in range(count)]
