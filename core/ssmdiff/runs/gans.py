"""What a GAN is made of: a generator with its discriminator, and the losses between them.

The discriminator judges; what it gives for an image is its verdict, above 0 for real. It may judge
in several ways at once, as a whole and pixel by pixel, say: then its verdicts are several tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from ssmdiff.runs.method import Adam

Verdicts = Sequence[Tensor]
"""(B, ...) logits, one tensor for each way of judging."""


class AdversarialLoss(Protocol):
    """Losses of verdicts, element by element: ``factory(**options)`` gives one."""

    def real(self, verdict: Tensor) -> Tensor:
        """What the discriminator loses by its verdicts on real images, in their shape."""
        ...

    def fake(self, verdict: Tensor) -> Tensor:
        """What it loses by its verdicts on generated images."""
        ...

    def generator(self, verdict: Tensor) -> Tensor:
        """What the generator loses by them."""
        ...


class Discriminate(Protocol):
    """The discriminator of a step, as its gradients want it called, after the augmentation of the
    run if there is one."""

    def __call__(self, images: Tensor) -> Verdicts: ...


class Gan:
    """A generator and its discriminator, as a component of kind ``gan``.

    A factory is called as ``factory(channels=..., image_size=..., latent_size=..., **options)``.

    Args:
        generator: (B, latent_size) -> (B, channels, *image_size) in -1 to 1.
        discriminator: (B, channels, *image_size) -> (B, ...) verdicts, or a tuple of such tensors;
            the first of them is that of the image as a whole.
    """

    adam: ClassVar[Mapping[str, Adam]] = {"generator": Adam(), "discriminator": Adam()}
    """How each is optimised, as its paper has it."""
    uniforms: int = 0
    """Numbers from 0 to 1 that :meth:`regularisation` is given for each image."""

    def __init__(self, generator: nn.Module, discriminator: nn.Module) -> None:
        self.generator, self.discriminator = generator, discriminator

    def regularisation(
        self,
        discriminate: Discriminate,
        loss: AdversarialLoss,
        real: Tensor,
        fake: Tensor,
        verdicts: tuple[Verdicts, Verdicts],
        uniforms: Tensor,
        progress: float,
    ) -> Tensor:
        """(B,) that the discriminator loses besides; nothing, unless a subclass has something.

        Args:
            discriminate: Judges other images. It is called as often whatever ``uniforms`` are:
                the processes of a run wait for each other there.
            loss: Of the run.
            real: (B, C, *image_size).
            fake: As many generated ones, without gradients.
            verdicts: On the real and on the generated ones.
            uniforms: (B, uniforms), drawn for each image of the run.
            progress: Share of the run's steps that are done.
        """
        return torch.zeros(len(real), device=real.device)


def verdicts_of(given: Tensor | Sequence[Tensor]) -> Verdicts:
    """What a discriminator gave, as a sequence."""
    return [given] if isinstance(given, Tensor) else list(given)
