"""The method ``gan``: in each step the discriminator moves, then the generator.

    L_D = mean of loss.real(D(x)) + loss.fake(D(G(z)))
    L_G = mean of loss.generator(D(G(z')))

z and z' are drawn for each image of the run. The generator's weights are averaged, and the average
makes the images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from ssmdiff import (
    Adam,
    AdversarialLoss,
    Batch,
    Config,
    Distribution,
    Gan,
    Look,
    Method,
    Noise,
    NoiseScheduler,
    OneCall,
    Seen,
    TensorDenoiser,
    Update,
    Verdicts,
    create,
    stream,
    verdicts_of,
)
from torch import Tensor, nn

from ssmdiff_gans import augment
from ssmdiff_gans.augment import Change
from ssmdiff_gans.standing import IMAGES, stand
from ssmdiff_gans.telling import RIGHT, Telling

GENERATOR, DISCRIMINATOR = "generator", "discriminator"
NETWORK, LOSS = {"name": "dcgan"}, {"name": "bce"}
SIDES = 3  # of a step: real images, generated ones for the discriminator, others for the generator
Rate = Annotated[float, Field(gt=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class GanDraws:
    """z for either update, and numbers from 0 to 1."""

    noise: Noise
    uniforms: int

    def __call__(
        self, draws: np.random.Generator, image: Tensor, mirrored: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        x_0 = mirrored(image)
        latents = np.stack([self.noise.draw(draws) for _ in range(2)])
        uniforms = draws.random(self.uniforms, dtype=np.float32)
        return {
            "x_0": x_0, "latents": torch.from_numpy(latents), "uniforms": torch.from_numpy(uniforms)
        }  # fmt: skip


class GanMethod(Method):
    """A generator and a discriminator of kind ``gan``, and a loss between them.

    Args:
        config: Of the run.
        channels: C of the images.
        network: A component of kind ``gan``.
        loss: One of kind ``loss``.
        latent: How z is drawn.
        latent_size: Numbers of z.
        augment: Changes to every image that the discriminator sees, for small sets.
        discriminator_rate: Its learning rate in units of ``train.learning_rate``, which is the
            generator's; None for that of the networks' paper.
        betas: Of Adam; None for those of the networks' paper.
        collapse_every: Steps between two looks at how alike samples are; 0 for none.
    """

    reads: ClassVar[frozenset[str]] = frozenset()
    drawing = GENERATOR

    def __init__(
        self,
        config: Config,
        channels: int,
        network: dict[str, Any] = NETWORK,
        loss: dict[str, Any] = LOSS,
        latent: Distribution = "uniform",
        latent_size: Annotated[int, Field(ge=1, le=65536)] = 1000,
        augment: tuple[Change, ...] = (),
        discriminator_rate: Rate | None = None,
        betas: tuple[Beta, Beta] | None = None,
        collapse_every: Annotated[int, Field(ge=0)] = 500,
    ) -> None:
        self.gan: Gan = create(
            "gan",
            network,
            channels=channels,
            image_size=config.data.image_size,
            latent_size=latent_size,
        )
        self.loss: AdversarialLoss = create("loss", loss)
        self.networks = {GENERATOR: self.gan.generator, DISCRIMINATOR: self.gan.discriminator}
        self.noise = Noise((latent_size,), latent)
        self.seed = config.seed
        self.augment, self.rate, self.betas = augment, discriminator_rate, betas
        self.draws = GanDraws(self.noise, self.gan.uniforms + self._uniforms * SIDES)
        self.telling = Telling(collapse_every)

    @property
    def _uniforms(self) -> int:
        """Numbers that the augmentation of one side of an image takes."""
        return augment.UNIFORMS if self.augment else 0

    def adam(self, network: str) -> Adam:
        """As the paper of the networks has it, unless the options say otherwise."""
        found = self.gan.adam[network]
        if self.rate is not None and network == DISCRIMINATOR:
            found = dataclasses.replace(found, rate=self.rate)
        return found if self.betas is None else dataclasses.replace(found, betas=self.betas)

    # One training step

    def updates(self, networks: Mapping[str, nn.Module]) -> Sequence[Update]:
        """The discriminator's, then the generator's."""

        def judge(batch: Batch, orders: Any, progress: float) -> Mapping[str, Tensor]:
            return self._discriminator(networks[DISCRIMINATOR], batch, progress)

        def make(batch: Batch, orders: Any, progress: float) -> Mapping[str, Tensor]:
            return self._generator(networks[GENERATOR], batch)

        return [Update(DISCRIMINATOR, judge), Update(GENERATOR, make)]

    def _discriminator(
        self, network: nn.Module, batch: Batch, progress: float
    ) -> Mapping[str, Tensor]:
        """Its loss, and the share of its verdicts on each pair of images that are right."""

        def discriminate(images: Tensor) -> Verdicts:
            return verdicts_of(network(images))

        with torch.no_grad():
            made = self.gan.generator(batch["latents"][:, 0]).float()
        real, fake = self._changed(batch["x_0"], batch, 0), self._changed(made, batch, 1)
        on_real, on_fake = discriminate(real), discriminate(fake)
        losses = mean_loss(on_real, self.loss.real) + mean_loss(on_fake, self.loss.fake)
        uniforms = batch["uniforms"][:, : self.gan.uniforms]
        losses = losses + self.gan.regularisation(
            discriminate, self.loss, real, fake, (on_real, on_fake), uniforms, progress
        )
        right = (_share(on_real[0] > 0) + _share(on_fake[0] <= 0)) / 2
        return {"loss": losses, RIGHT: right}

    def _generator(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """What it loses by the verdicts on new images."""
        made = self._changed(network(batch["latents"][:, 1]), batch, 2)
        verdicts = verdicts_of(self.gan.discriminator(made))
        return {"loss": mean_loss(verdicts, self.loss.generator)}

    def _changed(self, images: Tensor, batch: Batch, side: int) -> Tensor:
        """The images of one side of the step, after the augmentation."""
        first = self.gan.uniforms + side * self._uniforms
        return augment.changed(
            images, self.augment, batch["uniforms"][:, first : first + self._uniforms]
        )

    # Images

    def settle(self, network: nn.Module) -> None:
        """Batch norms get means and variances of the averaged generator, from 256 z of the run."""
        device = next(network.parameters()).device
        z = np.stack([self.noise.draw(stream(self.seed, "standing", i)) for i in range(IMAGES)])
        stand(network, torch.from_numpy(z).to(device))

    def denoiser(self, network: nn.Module) -> TensorDenoiser:
        """The generator, which makes of z what others make of noisy images."""

        def make(x: Tensor, timesteps: Tensor, orders: Any, *told: Tensor) -> Tensor:
            images: Tensor = network(x)
            return images

        return make

    def new_scheduler(self, table: Mapping[str, Any]) -> NoiseScheduler:
        """One call."""
        return OneCall()

    # What is told

    def told(self) -> Sequence[str]:
        """How the two are optimised, and what is not measured."""
        adams = ((name, self.adam(name)) for name in self.networks)
        each = "; ".join(
            f"{name} at {adam.rate:g} of the learning rate, betas {adam.betas[0]:g} and "
            f"{adam.betas[1]:g}"
            for name, adam in adams
        )
        missing = self.telling.collapse.begin()
        return [each, NO_LOSS, *([missing] if missing else [])]

    def look(self, seen: Look) -> Seen:
        """Whether the discriminator has won, or the generator makes one image."""
        return self.telling.after(seen)


NO_LOSS = (
    "held-out loss: none; the losses of a GAN are of two networks against each other, and say "
    "nothing of its images. Judge those: --set train.evaluate_every=N, or ssmdiff evaluate"
)


def mean_loss(verdicts: Verdicts, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """(B,) of an image: the mean over its verdicts of one way of judging, and over the ways."""
    each = [loss(verdict.float()).reshape(len(verdict), -1).mean(1) for verdict in verdicts]
    return torch.stack(each).mean(0)


def _share(verdicts: Tensor) -> Tensor:
    """(B,) of the verdicts of an image that hold."""
    return verdicts.reshape(len(verdicts), -1).float().mean(1)
