"""What a trained model is to whoever draws from it: a run on disk, an exported file; in numpy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from ssmdiff.diffusion.conditions import LABEL, Condition, Conditions, Told
from ssmdiff.diffusion.courses import Course, FromNoise
from ssmdiff.diffusion.guidance import NO_GUIDANCE, Guidance, GuidedDenoiser, timesteps_inside
from ssmdiff.diffusion.interfaces import Array, Denoiser, NoiseScheduler, Plan
from ssmdiff.diffusion.sampling import sample
from ssmdiff.errors import ConfigError
from ssmdiff.orders.seeds import Noise

Images = TypeVar("Images")


@dataclass(frozen=True)
class SamplingSettings:
    """What decides the images of a model, besides its weights."""

    scheduler: Mapping[str, Any]
    """Name and options; empty where images are made in one call."""
    steps: int
    seed: int = 0
    told: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """What the images are told, from :meth:`ImageModel.asked`: of each name values in turn."""
    guidance: Guidance = NO_GUIDANCE
    """From :meth:`ImageModel.guided`."""


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
    def conditions(self) -> Conditions:
        """What the model is told of each image."""
        return Conditions()

    @property
    def class_names(self) -> Sequence[str]:
        """The classes, of a model that is told a label; none of any other."""
        return next((one.names for one in self.conditions if one.name == LABEL), ())

    @abstractmethod
    def denoiser(self) -> Denoiser:
        """The network, for batches of any size."""

    @abstractmethod
    def plan(self) -> Plan:
        """The scan orders of every step."""

    @abstractmethod
    def sampling(
        self,
        scheduler: str | Mapping[str, Any] | None = None,
        steps: int | None = None,
        seed: int = 0,
        label: Any = None,
        told: Mapping[str, Any] | None = None,
    ) -> SamplingSettings:
        """What was asked for, over the model's own scheduler and steps.

        Raises:
            ConfigError: An option, a number or what is told does not fit the model.
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

    def asked(
        self, label: Any = None, told: Mapping[str, Any] | None = None
    ) -> Mapping[str, Sequence[Any]]:
        """What the images of a set are told, for :attr:`SamplingSettings.told`.

        Raises:
            ConfigError: The model is told no such thing, or cannot be without what is missing.
        """
        given = dict(told or {})
        if label is not None:
            if LABEL in given:
                raise ConfigError(f"label is {label!r} and {given[LABEL]!r} at once; give one")
            given[LABEL] = label
        if LABEL in given and LABEL not in self.conditions.names:
            raise ConfigError(
                f"label {given[LABEL]!r} was asked for, and the model is told none; train with "
                "--set model.class_conditional=true"
            )
        found = self.conditions.asked(given)
        lacking = [one.name for one in self.conditions if one.planes and one.name not in found]
        return found | self.own_told(lacking) if lacking else found

    def own_told(self, names: Sequence[str]) -> dict[str, Sequence[Any]]:
        """Masks and images of the model's own data, for those that nothing was given for.

        Raises:
            ConfigError: It has none at hand.
        """
        raise ConfigError(
            f"{names[0]} is not given, and an exported file has none of its own; give it, such as "
            f"--tell {names[0]}=FILE, or told={{{names[0]!r}: array}}"
        )

    def told(self, sampling: SamplingSettings, indices: Sequence[int]) -> list[Told]:
        """What each image is told, which depends on its index alone."""
        return [self.conditions.told(sampling.told, i) for i in indices]

    def encoded(self, told: Sequence[Told]) -> tuple[Array, ...]:
        """The same as the denoiser takes it, in numpy."""
        return self.conditions.encoded(told, self.shape[1:])

    def labels(self, sampling: SamplingSettings, indices: Sequence[int]) -> list[int] | None:
        """The class of each image; None where the model is told none, or left without it."""
        if not self.class_names:
            return None
        label = self.conditions.named(LABEL)
        asked = {name: values for name, values in sampling.told.items() if name == LABEL}
        given = [self.conditions.told(asked, i)[LABEL] for i in indices]
        return None if None in given else [label.index(one) for one in given]

    def guided(
        self, sampling: SamplingSettings, guidance: Guidance | float | None
    ) -> SamplingSettings:
        """The same, led towards what the images are told.

        Raises:
            ConfigError: The model is told nothing, or nothing may be left out; or no step is led.
        """
        chosen = guidance if isinstance(guidance, Guidance) else Guidance(guidance or 0.0)
        if guidance is None or chosen.is_none:
            return sampling
        asked = f"guidance {chosen.scale:g} was asked for, and"
        if not sampling.scheduler:
            raise ConfigError(f"{asked} the model makes an image in one call, which is not led")
        if not self.conditions:
            raise ConfigError(
                f"{asked} the model is told nothing; train one that is, such as with "
                "--set 'model.conditions=[\"label\"]'"
            )
        if not chosen.negative and not any(one.optional for one in self.conditions):
            raise ConfigError(
                f"{asked} nothing that the model is told may be left out; train with "
                "model.conditions and train.condition_dropout above 0, or say what to lead away "
                "from: --negative NAME=VALUE"
            )
        away = self.conditions.recorded_asked(self.conditions.asked(chosen.negative))
        if not any(self._leads(one, sampling.told.get(one.name), away) for one in self.conditions):
            raise ConfigError(
                f"{asked} what the images are told is what they are led away from, so nothing "
                "leads; tell them something else, or give another --negative"
            )
        scheduler = self.new_scheduler(sampling.scheduler)
        scheduler.set_timesteps(sampling.steps)
        timesteps_inside(scheduler.timesteps, chosen.interval)
        return replace(sampling, guidance=chosen)

    def _leads(self, one: Condition, told: Sequence[Any] | None, away: Mapping[str, Any]) -> bool:
        """Whether a condition may differ between the branches."""
        if one.name in away:
            found = self.conditions.recorded_asked({} if told is None else {one.name: told})
            return bool(found.get(one.name) != away[one.name])
        return one.optional and (told is None or any(value is not None for value in told))

    def away(self, sampling: SamplingSettings, indices: Sequence[int]) -> list[Told]:
        """What each image is led away from: what may not be left out, and what is negative."""
        negative = self.conditions.asked(sampling.guidance.negative)
        needed = {one.name for one in self.conditions if not one.optional}
        told = zip(indices, self.told(sampling, indices), strict=True)
        return [
            {name: value for name, value in image.items() if name in needed}
            | {name: values[i % len(values)] for name, values in negative.items()}
            for i, image in told
        ]

    def calls(self, sampling: SamplingSettings, course: Course | None = None) -> int:
        """How often the network is asked for a batch: Heun does it twice a step.

        Raises:
            ConfigError: The walk cannot go so.
        """
        if course and not sampling.scheduler:
            raise ConfigError(
                "the model makes an image in one call, so none is begun from another or filled in"
            )
        scheduler = self.new_scheduler(sampling.scheduler)
        scheduler.set_timesteps(sampling.steps)
        return len((course or FromNoise()).calls(scheduler))

    def draw(
        self,
        sampling: SamplingSettings,
        indices: Sequence[int],
        batch_size: int = 16,
        on_step: Callable[[], None] | None = None,
        course: Course | None = None,
    ) -> Iterator[tuple[Sequence[int], Images]]:
        """The images of these indices, ``batch_size`` at a time; no batch is kept.

        Args:
            sampling: From :meth:`sampling`.
            indices: Which images of the seed, in any order.
            batch_size: Images drawn at once.
            on_step: Called after each call of the network.
            course: Where images begin, and what happens on the way; from noise by default.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; expected at least 1")
        if course:
            self.calls(sampling, course)  # refused before the network is asked for
        scheduler, plan = self.new_scheduler(sampling.scheduler), self.plan()
        network = denoiser = self.denoiser()
        for start in range(0, len(indices), batch_size):
            batch = indices[start : start + batch_size]
            if not sampling.guidance.is_none:
                scheduler.set_timesteps(sampling.steps)
                away = self.encoded(self.away(sampling, batch))
                denoiser = GuidedDenoiser(network, sampling.guidance, away, scheduler.timesteps)
            images = sample(
                denoiser,
                scheduler,
                plan,
                seed=sampling.seed,
                shape=self.noise.shape,
                indices=batch,
                steps=sampling.steps,
                told=self.encoded(self.told(sampling, batch)),
                on_step=on_step,
                distribution=self.noise.distribution,
                course=course,
            )
            yield batch, self.joined([images])

    def sample(
        self,
        n: int = 16,
        *,
        seed: int = 0,
        steps: int | None = None,
        scheduler: str | Mapping[str, Any] | None = None,
        label: Any = None,
        told: Mapping[str, Any] | None = None,
        batch_size: int = 16,
        indices: Iterable[int] | None = None,
        on_step: Callable[[], None] | None = None,
        guidance: Guidance | float | None = None,
        course: Course | None = None,
    ) -> Images:
        """Draw images 0 to n - 1 of a seed.

        Args:
            n: How many.
            seed: Image i depends on (seed, i) alone, not on n or ``batch_size``.
            steps: Sampling steps; by default the model's.
            scheduler: A noise scheduler by name, or a table with options; by default the model's.
            label: The class to draw, by name or number; by default a model that is told one draws
                its classes in turn, image i that of i modulo their number.
            told: What the images are told, by the names of :attr:`conditions`; a list has a value
                for each image, in turn, and None leaves it out. By default names in turn, numbers
                all over their range, and of a run masks and images of its held-out data.
            batch_size: Images drawn at once.
            indices: Draw these images instead of 0 to n - 1.
            on_step: Called after each call of the network.
            guidance: How strongly images are led towards what they are told: 1 is not at all.
            course: Where images begin, and what happens on the way: a ``FromImage``, a ``FillIn``;
                from noise by default.

        Returns:
            (n, C, *image_size) float32, -1 to 1.

        Raises:
            ConfigError: An option, a number or what is told does not fit the model.
        """
        chosen = list(range(n) if indices is None else indices)
        if not chosen:
            raise ConfigError(f"n is {n} and indices {indices}; expected at least one image")
        sampling = self.guided(self.sampling(scheduler, steps, seed, label, told), guidance)
        drawn = self.draw(sampling, chosen, batch_size, on_step, course)
        return self.joined([images for _, images in drawn])
