"""Classifier-free guidance, outside of the network: a denoiser around a denoiser.

Ho and Salimans, arXiv:2207.12598, in the convention of most libraries:

    eps = uncond + s (cond - uncond)                 s = 1 is no guidance, s = 0 is unconditional

Their own w is s - 1. eps, x_0, v and a flow's velocity are affine in each other at one x_t, so the
same sum of any of them is the same guidance. With ``rescale`` = phi, Lin et al., arXiv:2305.08891,
section 3.4, std being that of an image,

    eps <- phi eps std(cond) / std(eps) + (1 - phi) eps

which does depend on what is predicted. Arrays are numpy's or torch's, and stay where they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ssmdiff.diffusion.conditions import Conditions
from ssmdiff.diffusion.interfaces import Array, Denoiser, Floats
from ssmdiff.errors import ConfigError
from ssmdiff.orders.scan import ScanOrder

SMALLEST = 1e-12  # of a standard deviation that is divided by: an untrained network predicts 0


@dataclass(frozen=True)
class Guidance:
    """How strongly images are led towards what they are told.

    Args:
        scale: s: 1 is none, 0 leaves everything out that may be, more than 1 leads.
        rescale: phi, 0 to 1: how far the spread of the prediction is put back to what it was.
        interval: Where it leads, as shares of the schedule: from the first included, 0 being the
            noisiest step, to the second excluded (Kynkaanniemi et al., arXiv:2404.07724). Outside
            of it there is one call, told everything.
        calls: 1: both branches in one batch of 2 B images; 2: two calls of B.
        negative: What the other branch is told instead of nothing, by the names of conditions.

    Raises:
        ConfigError: A number is out of its range.
    """

    scale: float = 1.0
    rescale: float = 0.0
    interval: tuple[float, float] = (0.0, 1.0)
    calls: int = 1
    negative: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale >= 0):
            raise ConfigError(f"guidance is {self.scale!r}; expected 0 or more, 1 being none")
        if not 0 <= self.rescale <= 1:
            raise ConfigError(f"guidance rescale is {self.rescale!r}; expected 0 to 1")
        start, stop = self.interval
        if not 0 <= start < stop <= 1:
            raise ConfigError(
                f"guidance interval is {start:g}:{stop:g}; expected shares of the schedule with "
                "0 <= first < second <= 1, such as 0.2:0.8"
            )
        if self.calls not in (1, 2):
            raise ConfigError(f"guidance calls is {self.calls!r}; expected 1 or 2")

    @property
    def is_none(self) -> bool:
        """Whether the denoiser is left as it is."""
        return self.scale == 1

    def doubled(self, walk: Floats) -> int:
        """How many calls of a walk ask for both branches."""
        if self.is_none or (self.scale == 0 and not self.rescale):
            return 0
        inside = timesteps_inside(walk, self.interval)
        each = np.asarray(walk, np.float32).tolist()
        return len(each) if inside is None else sum(t in inside for t in each)

    def record(self, conditions: Conditions) -> dict[str, Any] | None:
        """As JSON, for the record of samples; None where nothing is led."""
        if self.is_none:
            return None
        negative = conditions.recorded_asked(conditions.asked(self.negative))
        return {**asdict(self), "interval": list(self.interval), "negative": negative}


NO_GUIDANCE = Guidance()


class GuidedDenoiser:
    """A denoiser that leads away from what ``without`` tells.

    Args:
        denoiser: Told something; any, of numpy arrays or tensors.
        guidance: How strongly, and where.
        without: What the other branch is told, in the form of ``told``, for as many images.
        walk: The timesteps of the schedule, in the order of the calls.

    Raises:
        ConfigError: No step of the walk lies in the interval.
    """

    def __init__(
        self, denoiser: Denoiser, guidance: Guidance, without: Sequence[Array], walk: Floats
    ) -> None:
        self.denoiser, self.guidance = denoiser, guidance
        self.asarray: Callable[[Any], Array] = getattr(denoiser, "asarray", np.asarray)
        self._without = [self.asarray(values) for values in without]
        self._inside = timesteps_inside(walk, guidance.interval)

    def __call__(
        self, x: Array, timesteps: Array, orders: Sequence[ScanOrder], *told: Array
    ) -> Array:
        """The guided prediction. The images of a call share their timestep."""
        chosen = self.guidance
        # A GPU is waited for, to read the timestep, only where an interval was asked for.
        if self._inside is not None and float(timesteps[0]) not in self._inside:
            return self.denoiser(x, timesteps, orders, *told)
        if chosen.scale == 0 and not chosen.rescale:
            return self.denoiser(x, timesteps, orders, *self._without)
        if chosen.calls == 2:
            cond = self.denoiser(x, timesteps, orders, *told)
            uncond = self.denoiser(x, timesteps, orders, *self._without)
        else:
            n = len(x)
            twice = self.asarray(np.tile(np.arange(n, dtype=np.int64), 2))
            both = [_joined(a, b, twice) for a, b in zip(told, self._without, strict=True)]
            found = self.denoiser(x[twice], timesteps[twice], orders, *both)
            cond, uncond = found[:n], found[n:]
        return combined(cond, uncond, chosen.scale, chosen.rescale)


def combined(cond: Array, uncond: Array, scale: float, rescale: float = 0.0) -> Array:
    """What is predicted, of two predictions (B, ...): the equations above."""
    eps = uncond + scale * (cond - uncond)
    if rescale:
        ratio = _spread(cond) / _spread(eps).clip(SMALLEST, None)
        factor = (rescale * ratio + (1 - rescale)).reshape(-1, *[1] * (len(eps.shape) - 1))
        eps = factor * eps
    return eps


def timesteps_inside(walk: Floats, interval: tuple[float, float]) -> frozenset[float] | None:
    """Those of a walk that lie in an interval of shares; None if all do.

    The k-th of n timesteps that differ lies at k / n, counted from 0: two calls at one timestep, as
    Heun's, are inside or outside together.

    Raises:
        ConfigError: None does.
    """
    places = np.unique(np.asarray(walk, np.float32))[::-1]
    shares = np.arange(len(places)) / len(places)
    inside = places[(interval[0] <= shares) & (shares < interval[1])]
    if not len(inside):
        raise ConfigError(
            f"guidance interval {interval[0]:g}:{interval[1]:g} holds none of {len(places)} steps, "
            "so nothing would be guided. Try: a wider one, or more steps"
        )
    return None if len(inside) == len(places) else frozenset(inside.tolist())


def _joined(first: Array, second: Array, twice: Array) -> Array:
    """(2 B, ...): numpy and torch have no function of one name for it."""
    both = first[twice]
    both[len(first) :] = second
    return both


def _spread(x: Array) -> Array:
    """(B,) the standard deviation within each image."""
    flat = x.reshape(len(x), -1)
    centred = flat - flat.mean(1)[:, None]
    return (centred * centred).mean(1) ** 0.5
