"""Courses of a sampling run: from noise, from an image (SDEdit), around an image (RePaint).

The loop asks a course three things: which calls of the scheduler are done in which order, where the
sample begins, and what becomes of it after each call. Where a scheduler may be entered or gone back
to are its *marks*: before call ``mark.call`` the sample is alpha x_0 + sigma e.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ssmdiff.diffusion.interfaces import Array, Mark, NoiseScheduler
from ssmdiff.errors import ConfigError
from ssmdiff.orders.seeds import stream

Given = Sequence[Any] | NDArray[Any]
"""An array for each image."""


class Start(NamedTuple):
    """The images of a batch, as they begin."""

    seed: int
    indices: Sequence[int]
    """Which images of the seed."""
    noise: NDArray[np.float32]
    """(B, C, *image_size) standard normal, of (seed, index)."""
    asarray: Callable[[Any], Array]
    """Makes an array of the denoiser's."""


class Course(Protocol):
    """How a sampling run goes; used for one batch after the other."""

    def calls(self, scheduler: NoiseScheduler) -> Sequence[int]:
        """The calls of a scheduler whose timesteps are set, in the order in which they are done.

        Raises:
            ConfigError: The scheduler cannot go so.
        """
        ...

    def begin(self, scheduler: NoiseScheduler, batch: Start) -> Array:
        """The sample before the first of these calls; what an earlier batch left is forgotten."""
        ...

    def after(self, x: Array, number: int) -> Array:
        """What becomes of the sample after the ``number``-th of them, counted from 0."""
        ...


class FromNoise:
    """Every call, from pure noise on."""

    def calls(self, scheduler: NoiseScheduler) -> Sequence[int]:
        return range(len(scheduler.timesteps))

    def begin(self, scheduler: NoiseScheduler, batch: Start) -> Array:
        return batch.asarray(batch.noise) * scheduler.initial_scale

    def after(self, x: Array, number: int) -> Array:
        return x


class FromImage:
    """From an image with noise on it: SDEdit, Meng et al., arXiv:2108.01073, algorithm 1.

    Args:
        images: (C, *image_size) from -1 to 1 each; image i of a seed is begun from that of number
            i, modulo how many there are.
        strength: Above 0 to 1: the share of the steps that is walked, at least one. 1 walks all of
            them, from what is left of the image at the first timestep.

    Raises:
        ConfigError: The strength is out of range.
    """

    def __init__(self, images: Given, strength: float) -> None:
        if not 0 < strength <= 1:
            raise ConfigError(f"strength is {strength!r}; expected more than 0, and at most 1")
        self.images, self.strength = images, strength

    def calls(self, scheduler: NoiseScheduler) -> Sequence[int]:
        return range(self._first(scheduler).call, len(scheduler.timesteps))

    def begin(self, scheduler: NoiseScheduler, batch: Start) -> Array:
        first = self._first(scheduler)
        known = _of(self.images, batch, batch.noise.shape[1:], np.float32)
        return first.alpha * batch.asarray(known) + first.sigma * batch.asarray(batch.noise)

    def after(self, x: Array, number: int) -> Array:
        return x

    def _first(self, scheduler: NoiseScheduler) -> Mark:
        *marks, _ = marks_of(scheduler)
        return marks[-max(1, math.floor(self.strength * len(marks) + 0.5))]


class FillIn:
    """The unknown pixels of an image, the known ones given: RePaint, Lugmayr et al., 2201.09865.

    After every step the known pixels are those of the image with as much noise as the others have
    (eq. 8), and at the end those of the image. Every ``jump`` steps the walk goes back as many and
    down again, ``repeats`` times in all, so that the parts come to fit each other (section 4.2):
    about ``repeats`` times the calls.

    Args:
        images: (C, *image_size) from -1 to 1 each; image i of a seed fills that of number i, modulo
            how many there are.
        unknown: (1 or C, *image_size) likewise: true where pixels are drawn.
        repeats: How often each stretch of the walk is gone; 1 goes straight down.
        jump: Steps that are gone back; None for a tenth of the walk.

    Raises:
        ConfigError: A number is out of range.
    """

    def __init__(
        self,
        images: Given,
        unknown: Given,
        repeats: int = 5,
        jump: int | None = None,
    ) -> None:
        for name, number in (("repeats", repeats), ("jump", jump)):
            if number is not None and number < 1:
                raise ConfigError(f"{name} is {number}; expected at least 1")
        self.images, self.unknown, self.repeats, self.jump = images, unknown, repeats, jump

    def calls(self, scheduler: NoiseScheduler) -> Sequence[int]:
        return self._planned(scheduler)[0]

    def begin(self, scheduler: NoiseScheduler, batch: Start) -> Array:
        self._batch, self._reached = batch, self._planned(scheduler)[1]
        shape = batch.noise.shape[1:]
        drawn = _of(self.unknown, batch, shape, bool)
        self._known = batch.asarray(_of(self.images, batch, shape, np.float32))
        self._drawn, self._kept = (batch.asarray(x.astype(np.float32)) for x in (drawn, ~drawn))
        return batch.asarray(batch.noise) * scheduler.initial_scale

    def after(self, x: Array, number: int) -> Array:
        if number not in self._reached:  # within a step of several calls
            return x
        mark, back = self._reached[number]
        known = self._known
        if mark.sigma:
            known = mark.alpha * known + mark.sigma * self._noise("known", number)
        x = self._drawn * x + self._kept * known
        if back is not None:
            ratio = back.alpha / mark.alpha
            spread = math.sqrt(max(0.0, back.sigma**2 - (ratio * mark.sigma) ** 2))
            x = ratio * x + spread * self._noise("back", number)
        return x

    def _planned(
        self, scheduler: NoiseScheduler
    ) -> tuple[list[int], dict[int, tuple[Mark, Mark | None]]]:
        """The calls; and by the number of a call the mark that it reaches, and the one to go back
        to from there."""
        marks = marks_of(scheduler)
        steps = len(marks) - 1
        path = there_and_back(steps, self.repeats, self.jump or max(1, steps // 10))
        calls: list[int] = []
        reached: dict[int, tuple[Mark, Mark | None]] = {}
        for before, now, then in zip(path, path[1:], [*path[2:], len(marks)], strict=False):
            if now > before:
                calls += range(marks[before].call, marks[now].call)
                reached[len(calls) - 1] = (marks[now], marks[then] if then < now else None)
        return calls, reached

    def _noise(self, what: str, number: int) -> Array:
        seed, indices, noise, asarray = self._batch
        streams = [stream(seed, f"fill in: {what}", i, number) for i in indices]
        return asarray(np.stack([s.standard_normal(noise.shape[1:], np.float32) for s in streams]))


def _of(values: Given, batch: Start, shape: tuple[int, ...], kind: Any) -> NDArray[Any]:
    """(B, *shape) of what is given for each image."""
    try:
        found = [np.asarray(values[i % len(values)], kind) for i in batch.indices]
        return np.stack([np.broadcast_to(one, shape) for one in found])
    except ValueError:
        raise ConfigError(
            f"an image or mask of shape {found[0].shape} is given; expected {shape}"
        ) from None


def there_and_back(steps: int, repeats: int, jump: int) -> list[int]:
    """The marks that RePaint passes, 0 to ``steps``, each of its jumps back among them.

    Down to a mark that lies a multiple of ``jump`` steps before the end, ``repeats - 1`` times back
    from there; not from the first stretch, as in the authors' ``get_schedule_jump``.
    """
    left = dict.fromkeys(range(0, steps - jump, jump), repeats - 1)  # by the steps that are to go
    togo, path = steps, [0]
    while togo > 0:
        togo -= 1
        path.append(steps - togo)
        if left.get(togo, 0) > 0:
            left[togo] -= 1
            togo += jump
            path.append(steps - togo)
    return path


def marks_of(scheduler: NoiseScheduler) -> Sequence[Mark]:
    """Where a scheduler may be entered; the last mark is its end.

    Raises:
        ConfigError: It does not say.
    """
    marks: Callable[[], Sequence[Mark]] | None = getattr(scheduler, "marks", None)
    if marks is None:
        raise ConfigError(
            f"scheduler {type(scheduler).__name__} does not say where a walk may begin, so it can "
            "neither begin from an image nor fill one in. Try: ddim, dpmpp, unipc, euler or heun"
        )
    return marks()
