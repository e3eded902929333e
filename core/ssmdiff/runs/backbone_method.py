"""What methods share that train a backbone along a scan to predict something of noisy images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ssmdiff.diffusion.denoisers import TensorDenoiser, module_denoiser
from ssmdiff.diffusion.interfaces import NoiseScheduler
from ssmdiff.orders.seeds import Noise
from ssmdiff.runs import compose
from ssmdiff.runs.method import Batch, Method, Update
from ssmdiff.runs.scheduling import create_scheduler
from ssmdiff.runs.sections import OF_SOME_METHODS, Config

NETWORK = "model"


class BackboneMethod(Method):
    """A backbone of blocks along a scan. A subclass has the way from images to noise, what the
    network is told of it, and what it loses.

    Attributes:
        model: The backbone.
        conditional: Whether it is told the class of an image.
        noisiest: The timestep that it is told where all is noise; 0 is next to the image.
    """

    reads: ClassVar[frozenset[str]] = frozenset(OF_SOME_METHODS)
    drawing = NETWORK
    noisiest: float

    def __init__(self, config: Config, channels: int, classes: int) -> None:
        self.model = compose.build_backbone(config, channels, classes)
        self.networks = {NETWORK: self.model}
        self.plan = compose.order_plan(self.model, config)
        self.noise = Noise((channels, *config.data.image_size))
        self.conditional = bool(classes)

    def updates(self, networks: Mapping[str, nn.Module]) -> Sequence[Update]:
        """The backbone alone."""
        network = networks[NETWORK]
        return [Update(NETWORK, lambda *given: {"loss": self.losses(network, *given[:2])})]

    def predicted(
        self,
        network: nn.Module,
        x_t: Tensor,
        timesteps: Tensor,
        batch: Batch,
        orders: Sequence[Tensor],
    ) -> Tensor:
        """What the network makes of noisy images, which are told it as those of the batch are."""
        context = batch["label"] if self.conditional else None
        prediction: Tensor = network(x=x_t, timesteps=timesteps, context=context, orders=orders)
        return prediction

    @abstractmethod
    def losses(self, network: nn.Module, batch: Batch, orders: Sequence[Tensor]) -> Tensor:
        """(B,) losses of some images."""

    @abstractmethod
    def spread(self, parts: NDArray[np.float64], count: int) -> dict[str, Tensor]:
        """Places on the way to noise for held-out images, (count,): what the draws have for them.

        Args:
            parts: From 0 to ``count``, one in each unit: of as many equal parts of what training
                draws.
            count: How many.
        """

    def held_out(
        self, network: nn.Module, batch: Batch, orders: Sequence[Tensor]
    ) -> Mapping[str, Tensor]:
        """(B,) losses of held-out images by name: ``loss``, and what is told beside it."""
        return {"loss": self.losses(network, batch, orders)}

    @abstractmethod
    def wired(self) -> dict[str, Any]:
        """What a noise scheduler is told of the process: see :class:`ssmdiff.NoiseScheduler`."""

    def new_scheduler(self, table: Mapping[str, Any]) -> NoiseScheduler:
        """A noise scheduler over the process that is trained."""
        return create_scheduler(table, self.process, **self.wired())

    def denoiser(self, network: nn.Module) -> TensorDenoiser:
        """The backbone, with labels as its context."""
        return module_denoiser(network)
