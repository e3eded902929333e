"""What a method is: what is trained, and how an image comes out of it.

A method owns its networks by name, how each is optimised, one training step as a function of
(images, draws), and what images are drawn with. The job ``train`` has one loop for all of them, a
:class:`ssmdiff.Run` draws from any.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ssmdiff.diffusion.conditions import Condition, Conditions
from ssmdiff.diffusion.denoisers import TensorDenoiser
from ssmdiff.diffusion.interfaces import NoiseScheduler
from ssmdiff.diffusion.schedulers import DIFFUSION
from ssmdiff.orders.scan import OrderPlan
from ssmdiff.orders.seeds import Noise

Batch = Mapping[str, Tensor]
"""Images of a step with what was drawn for each, (B, ...) by name: ``x_0`` (B, C, *image_size), -1
to 1, ``label`` (B,) int64, what the method's :class:`Draws` gave, what :func:`told_in` finds."""

CONTEXT, PLACE = "told_context", "told_place"


def told_in(batch: Batch) -> tuple[Tensor, ...]:
    """What the model is told of the images, as its denoiser takes it: (B, M) numbers, (B, P,
    *image_size) planes, either or nothing; what is left out at random is left out here already."""
    return tuple(batch[name] for name in (CONTEXT, PLACE) if name in batch)


def told_entries(
    conditions: Conditions,
    known: Sequence[Mapping[str, Any]],
    image_size: Sequence[int],
    held_out: bool = False,
) -> dict[str, Tensor]:
    """The entries of a batch that :func:`told_in` finds, of what is known of each image.

    Args:
        conditions: What the model is told. More may be known.
        known: Of each image.
        image_size: (H, W).
        held_out: The images are none of those trained on, so that a number of theirs may lie beyond
            those of training, and the nearest of these is told.

    Raises:
        ConfigError: It cannot be told.
    """
    counts = {CONTEXT: conditions.width, PLACE: conditions.planes}
    told = [
        {
            one.name: _within(one, image[one.name]) if held_out else image[one.name]
            for one in conditions
            if one.name in image
        }
        for image in known
    ]
    arrays = conditions.encoded(told, image_size)
    keys = [key for key, count in counts.items() if count]
    return {key: torch.from_numpy(one) for key, one in zip(keys, arrays, strict=True)}


def _within(one: Condition, value: Any) -> Any:
    known = one.kind == "number" and value is not None
    return min(max(value, one.low), one.high) if known else value


class Draws(Protocol):
    """What is drawn for an image of a training step. It is sent to the processes that read images,
    so it holds no network."""

    def __call__(
        self, draws: np.random.Generator, image: Tensor, mirrored: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """``x_0``, and whatever the losses need, by name.

        Args:
            draws: The random stream of this image of the run, and of nothing else.
            image: (C, *image_size), -1 to 1.
            mirrored: Mirrors every other image if the run does so, by a draw of its own. When it is
                called is the method's choice, and part of what its runs are.
        """
        ...


@dataclass(frozen=True)
class Adam:
    """How a network is optimised, beside what the configuration says for all.

    Args:
        rate: Of ``train.learning_rate``.
        betas: Decays of the two moments.
        eps: Added to the root of the second.
    """

    rate: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8


@dataclass(frozen=True)
class Update:
    """One step of one optimiser; a training step is one or several of them.

    Args:
        network: The one that moves. The others have no gradients meanwhile.
        losses: Of images, the scan orders of the step as tensors, and the share of the run's steps
            that is done: ``loss`` (B,), which is minimised, and further figures (B,), which are
            told.
    """

    network: str
    losses: Callable[[Batch, Sequence[Tensor], float], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Look:
    """What there is to see after a step.

    Args:
        step: Steps done.
        figures: Of the step, as ``metrics.jsonl`` has them.
        drawn: ``drawn(n)``: (n, C, *image_size) from the averaged weights, the first of the seed.
        real: ``real(n)``: as many training images.
    """

    step: int
    figures: Mapping[str, float]
    drawn: Callable[[int], Tensor]
    real: Callable[[int], Tensor]


@dataclass(frozen=True)
class Seen:
    """What a method made of a look: figures to report by name, and doubts in sentences."""

    figures: Mapping[str, float]
    doubts: Sequence[str] = ()


class Method(ABC):
    """A way of training, and of drawing images from what was trained.

    A factory is called as ``factory(config=..., channels=..., conditions=..., **options)``: a
    :class:`ssmdiff.Config`, C of the images, and what the model is told of each, a
    :class:`ssmdiff.Conditions`; a method that tells it nothing may leave that out. Its random
    numbers come from torch's global generator, which the caller seeds.
    """

    reads: ClassVar[frozenset[str]] = frozenset()
    """Which of :data:`ssmdiff.runs.sections.OF_SOME_METHODS` the method reads; the others are no
    keys of its runs."""
    process: ClassVar[str] = DIFFUSION
    """Which noise schedulers walk back what is trained: those that say the same of themselves."""
    defaults: ClassVar[Mapping[str, Any]] = {}
    """Tables of a configuration of this method, where neither a preset nor a user has others."""
    networks: Mapping[str, nn.Module]
    """By the names that their weights have in a checkpoint."""
    drawing: str
    """The network that images are drawn with; of it an average is kept."""
    plan: OrderPlan = OrderPlan(None, (), 0)  # type: ignore[arg-type]  # of no scan
    """The scan orders of every step."""
    draws: Draws
    """What is drawn for each image of a training step."""
    noise: Noise
    """What an image is made from."""

    def adam(self, network: str) -> Adam:
        """How a network is optimised."""
        return Adam()

    @abstractmethod
    def updates(self, networks: Mapping[str, nn.Module]) -> Sequence[Update]:
        """The optimiser steps of a training step, in order.

        Args:
            networks: As the loop has wrapped them; one that moves is called by these, so that its
                gradients meet those of other processes.
        """

    def settle(self, network: nn.Module) -> None:  # noqa: B027  most have nothing to do
        """Make the averaged network ready to draw, where it is more than an average of weights.

        Called before a checkpoint and before images; buffers of the average are copies of those of
        the network that moves, until then. It changes no parameter and moves no random state, and
        does the same again when it is called again.
        """

    @abstractmethod
    def denoiser(self, network: nn.Module) -> TensorDenoiser:
        """``(x, timesteps, orders, *told) -> prediction`` of the network that draws."""

    @abstractmethod
    def new_scheduler(self, table: Mapping[str, Any]) -> NoiseScheduler:
        """What turns predictions into images, by ``sample.scheduler``; empty if that is not read,
        and then there is one step."""

    def bits_per_dim(self, network: nn.Module, images: Batch, seed: int) -> Tensor | None:
        """-log2 of the probability of images of 8 bits, or a bound of it, over their numbers, (B,).

        Args:
            network: The one that draws.
            images: ``x_0`` on a grid of 256 levels, and ``label``.
            seed: Of whatever is drawn for it.

        Returns:
            None of a method that has none.
        """
        return None

    def told(self) -> Sequence[str]:
        """Lines for whoever watches, before the first step."""
        return ()

    def look(self, seen: Look) -> Seen:
        """What is to be told after a step; called on the main process, it moves no random state."""
        return Seen({})
