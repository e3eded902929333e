"""The method ``flow``: rectified flow over any backbone, block and scan.

    x_t = (1 - t) x_0 + t noise,  t from 0, the image, to 1, noise
    v = noise - x_0               what the network predicts at x_t: dx_t / dt

Liu et al., arXiv:2209.03003, and Lipman et al., arXiv:2210.02747, with the times of Esser et al.,
arXiv:2403.03206, whose direction of t this is; the first two count from noise to image. The mean of
v given x_t is the velocity of a flow whose density at every t is that of x_t, so walking it back
from noise gives images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from ssmdiff import (
    FLOW,
    FLOW_TIMES,
    OF_SOME_METHODS,
    BackboneMethod,
    Batch,
    Config,
    order_tensors,
)
from torch import Tensor, nn

from ssmdiff_flow.likelihood import Velocity, bits_per_dim
from ssmdiff_flow.times import Density, Times, shift_of_size

HUBER = 0.00054
"""c of the pseudo-Huber loss for an error of one number, Song and Dhariwal, arXiv:2310.14189."""
BY_SIZE: Literal["by-size"] = "by-size"
Above0 = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class FlowDraws:
    """A time and noise."""

    times: Times

    def __call__(
        self, draws: np.random.Generator, image: Tensor, mirrored: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        time = self.times.at(draws.random())
        x_0 = mirrored(image)
        noise = draws.standard_normal(tuple(x_0.shape), dtype=np.float32)
        return {"x_0": x_0, "noise": torch.from_numpy(noise), "time": torch.tensor(time)}


class FlowMethod(BackboneMethod):
    """A backbone of blocks along a scan that predicts the velocity from image to noise.

    Args:
        config: Of the run.
        channels: C of the images.
        classes: How many the model is conditioned on, 0 for none.
        times: How the time of an image is drawn.
        mean: Of logit-normal times; above 0 favours noise.
        std: Their spread.
        shift: Of times to the noisy end, above 1, in training and, unless the scheduler says
            otherwise, in sampling; ``by-size`` is the root of the pixels over those of an image of
            ``base_size``.
        base_size: Side of the square images whose shift is 1.
        error: What is lost by an error of v: ``squared``, whose best v is the mean, so that the
            flow has the data's density, or ``pseudo-huber``, which minds large errors less.
    """

    reads: ClassVar[frozenset[str]] = frozenset(OF_SOME_METHODS) - {"diffusion"}
    process = FLOW
    defaults: ClassVar[Mapping[str, Any]] = {
        "train": {"bound_images": 0},
        "sample": {"scheduler": {"name": "flow-adams"}},
    }

    def __init__(
        self,
        config: Config,
        channels: int,
        classes: int,
        times: Density = "logit-normal",
        mean: float = 0.0,
        std: Above0 = 1.0,
        shift: Above0 | Literal["by-size"] = 1.0,
        base_size: Annotated[int, Field(ge=1)] = 64,
        error: Literal["squared", "pseudo-huber"] = "squared",
    ) -> None:
        super().__init__(config, channels, classes)
        size = config.data.image_size
        self.shift = shift_of_size(size, base_size) if shift == BY_SIZE else float(shift)
        self.times = Times(times, mean, std, self.shift)
        self.draws = FlowDraws(self.times)
        self.noisiest, self.error = FLOW_TIMES, error

    # One training step

    def losses(self, network: nn.Module, batch: Batch, orders: Sequence[Tensor]) -> Tensor:
        """(B,) losses of some images."""
        squared = self._squared(network, batch, orders)
        return squared if self.error == "squared" else pseudo_huber(squared)

    def held_out(
        self, network: nn.Module, batch: Batch, orders: Sequence[Tensor]
    ) -> Mapping[str, Tensor]:
        """The loss, and the squared error where that is another."""
        squared = self._squared(network, batch, orders)
        if self.error == "squared":
            return {"loss": squared}
        return {"loss": pseudo_huber(squared), "squared": squared}

    def _squared(self, network: nn.Module, batch: Batch, orders: Sequence[Tensor]) -> Tensor:
        """(B,) float32: the mean squared error of v over each image."""
        x_0, noise, time = batch["x_0"], batch["noise"], batch["time"]
        t = time.reshape(-1, *(1,) * (x_0.dim() - 1))
        x_t = (1 - t) * x_0 + t * noise
        v = self.predicted(network, x_t, FLOW_TIMES * time, batch, orders)
        return (v.float() - (noise - x_0)).square().flatten(1).mean(1)

    def spread(self, parts: NDArray[np.float64], count: int) -> dict[str, Tensor]:
        """Times at evenly spread shares of what training draws."""
        times = [self.times.at(share) for share in (parts / count).tolist()]
        return {"time": torch.tensor(times)}

    # Images, and how likely they are

    def wired(self) -> dict[str, Any]:
        """The shift."""
        return {"trained_shift": self.shift}

    def velocity(
        self, network: nn.Module, images: Batch, orders: Sequence[Tensor] | None = None
    ) -> Velocity:
        """v of the network as a function of (x, t), under one draw of the scan orders.

        Args:
            network: The backbone.
            images: Whose classes it is told.
            orders: Those of step 0 by default.
        """
        if orders is None:
            orders = order_tensors(self.plan.draw(0), next(network.parameters()).device)
        return lambda x, t: self.predicted(network, x, FLOW_TIMES * t, images, orders)

    def bits_per_dim(self, network: nn.Module, images: Batch, seed: int) -> Tensor:
        """By the change of variables; see :func:`ssmdiff_flow.likelihood.bits_per_dim`."""
        return bits_per_dim(self.velocity(network, images), images["x_0"], seed=seed)

    def told(self) -> Sequence[str]:
        """How times are drawn."""
        return [f"flow: times {self.times}; {self.error} error of the velocity"]


def pseudo_huber(squared: Tensor) -> Tensor:
    """sqrt(mean squared error + c^2) - c, as Song and Dhariwal have it for d numbers, over the root
    of d."""
    return (squared + HUBER**2).sqrt() - HUBER
