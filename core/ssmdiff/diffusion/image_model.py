"""What a trained model is to whoever draws from it: a run on disk, an exported file; in numpy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ssmdiff.diffusion.interfaces import Array, Denoiser, NoiseScheduler, Plan
from ssmdiff.diffusion.sampling import sample
from ssmdiff.errors import ConfigError, did_you_mean
from ssmdiff.orders.seeds import Noise

Images = TypeVar("Images")


@dataclass(frozen=True)
class SamplingSettings:
    """What decides the images of a model, besides its weights."""

    scheduler: Mapping[str, Any]
    """Name and options; empty where images are made in one call."""
    steps: int
    seed: int = 0
    label: int | None = None
    """The class to draw; None takes those of a conditional model in turn."""


class ImageModel(ABC, Generic[Images]):
    """Something trained that images are drawn from: a run, an exported file.

    It gives a denoiser and what was trained; the loop over steps and batches is here.
    """

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """(C, *image_size)."""

    @property
    def noise(self) -> Noise:
        """What an image is made from."""
        return Noise(self.shape)

    @property
    def class_names(self) -> Sequence[str]:
        """The classes of a conditional model; none of any other."""
        return ()

    @abstractmethod
    def denoiser(self) -> Denoiser:
        """The network, for batches of any size; a conditional one takes labels."""

    @abstractmethod
    def plan(self) -> Plan:
        """The scan orders of every step."""

    @abstractmethod
    def sampling(
        self,
        scheduler: str | Mapping[str, Any] | None = None,
        steps: int | None = None,
        seed: int = 0,
        label: int | str | None = None,
    ) -> SamplingSettings:
        """What was asked for, over the model's own scheduler and steps.

        Raises:
            ConfigError: An option, a number or the label does not fit the model.
        """

    @abstractmethod
    def new_scheduler(self, table: Mapping[str, Any]) -> NoiseScheduler:
        """A noise scheduler over the process that was trained."""

    @abstractmethod
    def origin(self) -> dict[str, Any]:
        """What the weights are, as JSON, for the record beside the images."""

    @abstractmethod
    def joined(self, batches: Sequence[Array]) -> Images:
        """Batches of the denoiser's arrays as the images that a user is given."""

    def class_index(self, label: int | str | None) -> int | None:
        """The number of a class that is given by its name, or by its number.

        Raises:
            ConfigError: There is no such class, or the model is unconditional.
        """
        if label is None:
            return None
        names = list(self.class_names)
        if not names:
            raise ConfigError(
                f"label {label!r} was asked for, and the model is unconditional; train with "
                "--set model.class_conditional=true"
            )
        if label in names:
            return names.index(str(label))
        if isinstance(label, str) and not label.isdecimal():
            raise ConfigError(f"there is no class {label!r}; {did_you_mean(label, names)}")
        if not 0 <= int(label) < len(names):
            raise ConfigError(f"label {label} is out of range; the classes are {names}")
        return int(label)

    def labels(self, sampling: SamplingSettings, indices: Sequence[int]) -> list[int] | None:
        """The class of each image, which depends on its index alone; None if unconditional."""
        if not self.class_names:
            return None
        one, count = sampling.label, len(self.class_names)
        return [i % count if one is None else one for i in indices]

    def calls(self, sampling: SamplingSettings) -> int:
        """How often the network is called for a batch: Heun does it twice a step."""
        scheduler = self.new_scheduler(sampling.scheduler)
        scheduler.set_timesteps(sampling.steps)
        return len(scheduler.timesteps)

    def draw(
        self,
        sampling: SamplingSettings,
        indices: Sequence[int],
        batch_size: int = 16,
        on_step: Callable[[], None] | None = None,
    ) -> Iterator[tuple[Sequence[int], Images]]:
        """The images of these indices, ``batch_size`` at a time; no batch is kept.

        Args:
            sampling: From :meth:`sampling`.
            indices: Which images of the seed, in any order.
            batch_size: Images drawn at once.
            on_step: Called after each call of the network.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; expected at least 1")
        scheduler, plan = self.new_scheduler(sampling.scheduler), self.plan()
        denoiser = self.denoiser()
        for start in range(0, len(indices), batch_size):
            batch = indices[start : start + batch_size]
            images = sample(
                denoiser,
                scheduler,
                plan,
                seed=sampling.seed,
                shape=self.noise.shape,
                indices=batch,
                steps=sampling.steps,
                labels=self.labels(sampling, batch),
                on_step=on_step,
                distribution=self.noise.distribution,
            )
            yield batch, self.joined([images])

    def sample(
        self,
        n: int = 16,
        *,
        seed: int = 0,
        steps: int | None = None,
        scheduler: str | Mapping[str, Any] | None = None,
        label: int | str | None = None,
        batch_size: int = 16,
        indices: Iterable[int] | None = None,
        on_step: Callable[[], None] | None = None,
    ) -> Images:
        """Draw images 0 to n - 1 of a seed.

        Args:
            n: How many.
            seed: Image i depends on (seed, i) alone, not on n or ``batch_size``.
            steps: Sampling steps; by default the model's.
            scheduler: A noise scheduler by name, or a table with options; by default the model's.
            label: The class to draw, by name or number; a conditional model draws its classes in
                turn by default, image i that of i modulo their number.
            batch_size: Images drawn at once.
            indices: Draw these images instead of 0 to n - 1.
            on_step: Called after each call of the network.

        Returns:
            (n, C, *image_size) float32, -1 to 1.

        Raises:
            ConfigError: An option, a number or the label does not fit the model.
        """
        chosen = list(range(n) if indices is None else indices)
        if not chosen:
            raise ConfigError(f"n is {n} and indices {indices}; expected at least one image")
        sampling = self.sampling(scheduler, steps, seed, label)
        drawn = self.draw(sampling, chosen, batch_size, on_step)
        return self.joined([images for _, images in drawn])
