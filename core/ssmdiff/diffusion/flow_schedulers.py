"""Walks back along a rectified flow, over plain arrays, numpy or torch, each one its equation.

Symbols:

    t, u     the time of a call and that of the next, from 1, where all is noise, to 0, the image
    x_t      (1 - t) x_0 + t noise
    v        what the network predicts at x_t: noise - x_0 on average, so that dx / dt = v leads
             from noise to images (Liu et al., arXiv:2209.03003; Lipman et al., arXiv:2210.02747)

The network is told 1000 t, as its embedding of timesteps was made for a thousand of them. No call
lies at t = 0, where v of fine structure is least known. Coefficients are Python's numbers, which
leave an array its dtype and device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal

import numpy as np

from ssmdiff.diffusion.interfaces import Array, Floats, Mark
from ssmdiff.errors import ConfigError

FLOW = "rectified-flow"
"""The process of these schedulers."""
FLOW_TIMES = 1000.0
"""What the network is told at t = 1."""
MOST_STEPS = 100_000


def shifted_times(t: Any, shift: float) -> Any:
    """s t / (1 + (s - 1) t), eq. 23 of Esser et al., arXiv:2403.03206: times of 0 to 1, moved to
    the noisy end for s > 1. Written so that 0 and 1 stay where they are, to the bit."""
    return t / (t + (1 - t) / shift)


class FlowScheduler(ABC):
    """One sampling run after another along a flow; the protocol is ``NoiseScheduler``.

    Args:
        trained_shift: Of the times of training.
        shift: Of the equal steps of the walk; None for that of training.

    Raises:
        ConfigError: A shift is not above 0.
    """

    process = FLOW
    random = False
    initial_scale = 1.0

    def __init__(self, trained_shift: float = 1.0, shift: float | None = None) -> None:
        self.shift = float(trained_shift if shift is None else shift)
        if not 0 < self.shift < float("inf"):
            raise ConfigError(f"shift is {self.shift}; expected a number above 0")
        self.timesteps: Floats = np.empty(0)

    def set_timesteps(self, steps: int) -> None:
        """Begin a run of ``steps`` steps from t = 1 to t = 0."""
        if type(steps) is not int or not 1 <= steps <= MOST_STEPS:
            raise ConfigError(
                f"steps is {steps!r}; expected a whole number from 1 to {MOST_STEPS:,}"
            )
        times = shifted_times(np.arange(steps, -1, -1) / steps, self.shift)
        self.timesteps = FLOW_TIMES * times[:-1]
        self.times: list[float] = times.tolist()

    def marks(self) -> list[Mark]:
        """Before every call, where the sample is (1 - t) x_0 + t e."""
        return [Mark(i, 1 - t, t) for i, t in enumerate(self.times)]

    def scaled(self, x: Array, i: int) -> Array:
        """x_t itself."""
        return x

    @abstractmethod
    def step(self, output: Array, i: int, x: Array, noise: Array) -> Array:
        """x_u from x_t and v there."""


class FlowEuler(FlowScheduler):
    """Euler's steps: x_u = x_t + (u - t) v. For a flow it is DDIM as well."""

    def step(self, output: Array, i: int, x: Array, noise: Array) -> Array:
        here, there = self.times[i : i + 2]
        return x + (there - here) * output


class FlowHeun(FlowScheduler):
    """Euler, then again with the mean of v at both ends: x_u = x_t + (u - t) (v_t + v_u) / 2.

    Every step but the last calls the network twice; the last ends at t = 0 by Euler's step, which
    takes nothing from the second order.
    """

    def set_timesteps(self, steps: int) -> None:
        super().set_timesteps(steps)
        self.timesteps = np.repeat(self.timesteps, 2)[1:]
        self.times = [*np.repeat(self.times[:-1], 2)[1:].tolist(), 0.0]

    def marks(self) -> list[Mark]:
        """Before the first call of every step."""
        return [mark for mark in super().marks() if not mark.call % 2 or not mark.sigma]

    def step(self, output: Array, i: int, x: Array, noise: Array) -> Array:
        if i % 2 == 0:
            here, there = self.times[i : i + 2]
            self.start, self.first = x, output
            return x + (there - here) * output
        here, there = self.times[i - 1 : i + 1]
        return self.start + (there - here) / 2 * (self.first + output)


Answers = list[tuple[float, Array]]
"""Time of a call, and v there."""


class FlowAdams(FlowScheduler):
    """Adams' multistep method, predicted and corrected by one call a step (PEC).

    x_u = x_t + the integral from t to u of the polynomial through v of the last ``order`` calls
    (Adams-Bashforth). When the network has answered at u, the same integral is taken again with
    that answer among them (Adams-Moulton), and the walk goes on from there. Steps may differ in
    length. The corrector adds one: the error falls with the steps to the power ``order`` + 1, and
    of order 3 to one from 3 to 4, since the first step has but two answers.

    Args:
        trained_shift: Of the times of training.
        shift: Of the equal steps of the walk; None for that of training.
        order: Calls that the predictor uses, 1 to 3.
    """

    start: Array
    """The sample of the call before, corrected."""
    known: Answers
    """The last calls, newest first."""

    def __init__(
        self,
        trained_shift: float = 1.0,
        shift: float | None = None,
        order: Literal[1, 2, 3] = 2,
    ) -> None:
        super().__init__(trained_shift, shift)
        if order not in (1, 2, 3):
            raise ConfigError(f"order is {order!r}; expected 1, 2 or 3")
        self.order: int = order

    def set_timesteps(self, steps: int) -> None:
        super().set_timesteps(steps)
        self.known, self.next = [], 0

    def step(self, output: Array, i: int, x: Array, noise: Array) -> Array:
        known = self.known if i == self.next else []  # of the calls right before it
        answers = [(self.times[i], output), *known]
        if known:
            x = self._moved(self.start, i - 1, answers)
        self.start, self.known, self.next = x, answers[: self.order], i + 1
        return self._moved(x, i, self.known)

    def _moved(self, x: Array, i: int, answers: Answers) -> Array:
        """From the time of call i to the next, along the polynomial through some answers."""
        weights = _integral([t for t, _ in answers], *self.times[i : i + 2])
        for weight, (_, v) in zip(weights, answers, strict=True):
            x = x + weight * v
        return x


def _integral(places: list[float], a: float, b: float) -> list[float]:
    """Weights of values at some places: the integral of their polynomial from a to b."""
    r = (np.array(places) - a) / (b - a)
    powers = np.arange(len(r))
    weights: list[float] = np.linalg.solve(r ** powers[:, None], (b - a) / (powers + 1)).tolist()
    return weights


FLOW_SCHEDULERS: dict[str, type[FlowScheduler]] = {
    "flow-euler": FlowEuler,
    "flow-heun": FlowHeun,
    "flow-adams": FlowAdams,
}
