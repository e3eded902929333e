"""Noise schedulers over plain arrays, numpy or torch alike, each one its equation.

Symbols, as in ``diffusion.process``:

    alpha_bar_t    product of 1 - beta_s for s <= t
    alpha, sigma   sqrt(alpha_bar_t), sqrt(1 - alpha_bar_t): x_t = alpha_t x_0 + sigma_t e
    s_t            sigma_t / alpha_t, the noise level of Karras et al.
    e, x_0         the noise and the image that the network's output stands for
    t, u           the timestep of a call and that of the next; after the last call alpha_bar_u = 1

Timesteps are spaced "trailing": the first is T - 1, where training saw pure noise (Lin et al.,
arXiv:2305.08891). Coefficients are Python's numbers, which leave an array its dtype and device.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import numpy as np

from ssmdiff.diffusion.interfaces import Array, Floats, Mark
from ssmdiff.errors import ConfigError

SMALLEST = float(np.finfo(np.float32).tiny)  # of alpha_bar: images are divided by it
DIFFUSION = "diffusion"
"""The process of these schedulers, and of those that name none."""


class Scheduler(ABC):
    """One sampling run after another over a process; the protocol is ``NoiseScheduler``.

    Args:
        betas: (T,) of the forward process, eq. 1.
        prediction_type: What the network predicts: ``epsilon``, ``sample`` or ``v_prediction``.

    Raises:
        ConfigError: alpha_bar does not fall at every timestep, or falls to nothing.
    """

    process = DIFFUSION
    random = clip_sample = False
    initial_scale = 1.0

    def __init__(self, betas: Floats, prediction_type: str) -> None:
        self.T, self.prediction = len(betas), prediction_type
        # In float32, as images were drawn before 0.2: Heun subtracts levels of 20,000 under cosine
        # betas, and tells the difference.
        factors = (1 - np.asarray(betas, np.float32)).astype(np.float64)
        self.alpha_bar = np.cumprod(factors).astype(np.float32).astype(np.float64)
        falls = np.diff(self.alpha_bar, prepend=1.0) < 0
        wrong = np.flatnonzero(~(falls & (self.alpha_bar >= SMALLEST)))
        if wrong.size:
            raise ConfigError(
                f"the process cannot be walked back: alpha_bar is {self.alpha_bar[wrong[0]]:.3g} "
                f"at timestep {wrong[0]} of {self.T}; expected it to fall at each, from below 1 to "
                f"{SMALLEST:.2g} or more. Try: other diffusion.timesteps, beta_start, beta_end"
            )
        self.timesteps: Floats = np.empty(0)

    def set_timesteps(self, steps: int) -> None:
        """Begin a run of ``steps`` steps, 1 to T."""
        if type(steps) is not int or not 1 <= steps <= self.T:
            raise ConfigError(f"steps is {steps!r}; expected a whole number from 1 to {self.T} (T)")
        self.timesteps = np.round(self.T * np.arange(steps, 0, -1) / steps) - 1

    def scaled(self, x: Array, i: int) -> Array:
        """What the network sees of ``x``: x_t itself, unless a scheduler scales it."""
        return x

    @abstractmethod
    def step(self, output: Array, i: int, x: Array, noise: Array) -> Array:
        """x_u from x_t and what the network gave there."""

    def image(self, output: Array, x: Array, alpha_bar: float) -> Array:
        """x_0 that the network's output stands for at x = alpha x_0 + sigma e."""
        alpha, sigma = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
        if self.prediction == "epsilon":
            x_0 = (x - sigma * output) / alpha
        else:
            x_0 = output if self.prediction == "sample" else alpha * x - sigma * output
        return x_0.clip(-1, 1) if self.clip_sample else x_0


class _Whole(Scheduler):
    """A scheduler that walks on the alpha_bar of whole timesteps, of those it tells the network."""

    def __init__(self, betas: Floats, prediction_type: str, clip_sample: bool) -> None:
        super().__init__(betas, prediction_type)
        self.clip_sample = clip_sample

    def set_timesteps(self, steps: int) -> None:
        super().set_timesteps(steps)
        self.path = [*self.alpha_bar[self.timesteps.astype(int)].tolist(), 1.0]

    def marks(self) -> list[Mark]:
        """Before every call."""
        return [Mark(i, math.sqrt(a), math.sqrt(1 - a)) for i, a in enumerate(self.path)]


class DDPM(_Whole):
    """Ancestral sampling: algorithm 2, eq. 6 and 7 of Ho et al., arXiv:2006.11239.

    With a = alpha_bar_t / alpha_bar_u, the variance of the forward step from u to t is 1 - a and

        x_u = alpha_u (1 - a) / sigma_t^2 x_0 + sqrt(a) sigma_u^2 / sigma_t^2 x_t + sqrt(v) noise

    Args:
        variance: v = (1 - a) sigma_u^2 / sigma_t^2 (``fixed_small``, beta_tilde) or 1 - a
            (``fixed_large``); none in the last step.
        clip_sample: Clip x_0 to -1 .. 1.
    """

    random = True

    def __init__(
        self,
        betas: Floats,
        prediction_type: str,
        variance: Literal["fixed_small", "fixed_large"] = "fixed_small",
        clip_sample: bool = True,
    ) -> None:
        super().__init__(betas, prediction_type, clip_sample)
        if variance not in ("fixed_small", "fixed_large"):
            raise ConfigError(f"variance is {variance!r}; expected fixed_small or fixed_large")
        self.variance = variance

    def step(self, output: Array, i: int, x: Array, noise: Array) -> Array:
        now, then = self.path[i : i + 2]
        a, left = now / then, (1 - then) / (1 - now)
        x_0 = self.image(output, x, now)
        mean = math.sqrt(then) * (1 - a) / (1 - now) * x_0 + math.sqrt(a) * left * x
        if i + 1 == len(self.timesteps):
            return mean
        return mean + math.sqrt((1 - a) * (left if self.variance == "fixed_small" else 1)) * noise


class DDIM(_Whole):
    """Eq. 12 and 16 of Song et al., arXiv:2010.02502: deterministic given the first noise at eta 0.

        x_u = alpha_u x_0 + sqrt(sigma_u^2 - v) e + sqrt(v) noise,
        v = eta^2 (1 - alpha_bar_t / alpha_bar_u) sigma_u^2 / sigma_t^2

    Where x_0 is clipped, e is the noise that leads from it to x_t: the two belong together, or
    every clipped step shifts the image.

    Args:
        eta: 0 to 1, where it is DDPM with ``fixed_small``.
        clip_sample: Clip x_0 to -1 .. 1.
    """

    def __init__(
        self, betas: Floats, prediction_type: str, eta: float = 0.0, clip_sample: bool = True
    ) -> None:
        super().__init__(betas, prediction_type, clip_sample)
        if not 0 <= eta <= 1:
            raise ConfigError(f"eta is {eta!r}; expected a number from 0 to 1")
        self.eta, self.random = float(eta), eta > 0

    def step(self, output: Array, i: int, x: Array, noise: Array) -> Array:
        now, then = self.path[i : i + 2]
        x_0 = self.image(output, x, now)
        e = (x - math.sqrt(now) * x_0) / math.sqrt(1 - now)
        v = self.eta**2 * (1 - now / then) * (1 - then) / (1 - now)
        x = math.sqrt(then) * x_0 + math.sqrt(1 - then - v) * e
        return x + math.sqrt(v) * noise if v else x


class _Levels(Scheduler):
    """A scheduler that walks on noise levels s, from large to 0.

    ``karras`` spaces them as Karras et al., arXiv:2206.00364, eq. 5, with rho = 7: over the whole
    process, or from the first to the last timestep.
    """

    whole_range = True

    def __init__(self, betas: Floats, prediction_type: str, karras: bool = False) -> None:
        super().__init__(betas, prediction_type)
        self.karras = karras
        self.trained = np.sqrt((1 - self.alpha_bar) / self.alpha_bar)

    def set_timesteps(self, steps: int) -> None:
        super().set_timesteps(steps)
        levels = self.trained[self.timesteps.astype(int)]
        if self.karras:
            ends = self.trained[[-1, 0]] if self.whole_range else levels[[0, -1]]
            first, last = ends ** (1 / 7)
            levels = (first + np.linspace(0, 1, steps) * (last - first)) ** 7
            # Between two timesteps the logarithm of the level is linear in t.
            self.timesteps = np.interp(np.log(levels), np.log(self.trained), np.arange(self.T))
        self.levels = [*levels.tolist(), 0.0]

    def marks(self) -> list[Mark]:
        """Before every call, where alpha x_0 + sigma e has s_t = sigma / alpha."""
        alphas = [1 / math.sqrt(s**2 + 1) for s in self.levels]
        pairs = zip(self.levels, alphas, strict=True)
        return [Mark(i, alpha, s * alpha) for i, (s, alpha) in enumerate(pairs)]


class _Multistep(_Levels):
    """Steps over h = log(s_t / s_u) that use the x_0 of the last ``order`` calls, 1 to 3."""

    def __init__(
        self, betas: Floats, prediction_type: str, order: Literal[1, 2, 3] = 2, karras: bool = False
    ) -> None:
        super().__init__(betas, prediction_type, karras)
        if order not in (1, 2, 3):
            raise ConfigError(f"order is {order!r}; expected 1, 2 or 3")
        self.order: int = order

    def set_timesteps(self, steps: int) -> None:
        super().set_timesteps(steps)
        self.timesteps = self.timesteps.round()
        self.images: list[Array] = []  # x_0 of the last calls, the newest first
        self.next = 0

    def remember(self, output: Array, i: int, x: Array) -> Array:
        """x_0 at call i, where the level is s_t; earlier ones are of the calls right before it."""
        if i != self.next:
            self.images = []
        self.next = i + 1
        x_0 = self.image(output, x, 1 / (self.levels[i] ** 2 + 1))
        self.images = [x_0, *self.images[: self.order - 1]]
        return x_0

    def first_order(self, i: int, x: Array, x_0: Array) -> tuple[Array, float, float]:
        """sigma_u / sigma_t x - alpha_u (exp(-h) - 1) x_0; alpha_u; h."""
        here, there = self.levels[i : i + 2]
        h, alpha = math.log(here / there), 1 / math.sqrt(there**2 + 1)
        ratio = there / here * alpha * math.sqrt(here**2 + 1)
        return ratio * x - alpha * math.expm1(-h) * x_0, alpha, h


class DPMpp(_Multistep):
    """DPM-Solver++ (multistep), Lu et al., arXiv:2211.01095, section 4.

    With D0 the newest x_0, D1 and D2 its first and second differences over earlier calls, and
    B = exp(-h) - 1,

        x_u = sigma_u / sigma_t x_t - alpha_u B (D0 + D1 / 2)                              order 2
        x_u = sigma_u / sigma_t x_t - alpha_u (B D0 - (B / h + 1) D1
                                               + ((B + h) / h^2 - 1 / 2) D2)               order 3
    """

    def step(self, output: Array, i: int, x: Array, noise: Array) -> Array:
        D0 = self.remember(output, i, x)
        if self.levels[i + 1] == 0:
            return D0
        x, alpha, h = self.first_order(i, x, D0)
        B, calls = math.expm1(-h), len(self.timesteps)
        order = min(len(self.images), calls - i if calls < 15 else self.order)
        if order == 1:
            return x
        r = math.log(self.levels[i - 1] / self.levels[i]) / h
        D1 = (D0 - self.images[1]) / r
        if order == 2:
            return x - alpha * B / 2 * D1
        r_before = math.log(self.levels[i - 2] / self.levels[i - 1]) / h
        D2 = (D1 - (self.images[1] - self.images[2]) / r_before) / (r + r_before)
        return x + alpha * (B / h + 1) * (D1 + r * D2) - alpha * ((B + h) / h**2 - 0.5) * D2


class UniPC(_Multistep):
    """UniPC, Zhao et al., arXiv:2302.04867, algorithms 5 to 8, with x_0 and B = exp(-h) - 1.

    A step from t to u over the x_0 of other calls m, which lie r_m h from t,

        x_u = sigma_u / sigma_t x_t - alpha_u B (x_0(t) + sum of rho_m (x_0(m) - x_0(t)) / r_m)

    predicts with earlier calls (UniP). When the network has answered at u, the same step is done
    again with u among them (UniC). The rho solve eq. 11 of the paper, sum of rho_m r_m^(k - 1) =
    k! phi_{k + 1}(-h) (-h) / B; one alone is 1/2.
    """

    start: Array
    """The sample of the call before, corrected."""

    def step(self, output: Array, i: int, x: Array, noise: Array) -> Array:
        before = self.images if i == self.next else []
        x_0 = self.remember(output, i, x)
        if before:
            x = self._move(i - 1, self.start, before, x_0)
        self.start = x
        return x_0 if self.levels[i + 1] == 0 else self._move(i, x, self.images)

    def _move(self, i: int, x: Array, images: list[Array], answer: Array = None) -> Array:
        """x_u from x_t of call i; ``answer`` is x_0 at u, where it is known already."""
        x_0, *earlier = images
        x, alpha, h = self.first_order(i, x, x_0)
        order = min(len(images), len(self.timesteps) - i)
        r = [math.log(self.levels[i] / self.levels[i - k]) / h for k in range(1, order)]
        others = earlier[: order - 1]
        if answer is not None:
            r, others = [*r, 1.0], [*others, answer]
        for rho, r_m, m in zip(_weights(r, -h), r, others, strict=True):
            x = x - alpha * math.expm1(-h) * rho / r_m * (m - x_0)
        return x


def _weights(r: list[float], z: float) -> list[float]:
    """rho of eq. 11 of UniPC at the places ``r``."""
    if len(r) < 2:
        return [0.5] * len(r)
    phi, right = math.expm1(z) / z, []  # phi_1
    for k in range(1, len(r) + 1):
        phi = (phi - 1 / math.factorial(k)) / z  # phi_{k + 1}
        right.append(math.factorial(k) * phi * z / math.expm1(z))
    solved: list[float] = np.linalg.solve(np.vander(r, increasing=True).T, right).tolist()
    return solved


class Euler(_Levels):
    """Euler's steps of the probability flow: algorithm 1 of Karras et al. without churn.

    On samples scaled so that alpha is 1, x_u = x_t + (s_u - s_t) (x_t - x_0) / s_t.

    Args:
        karras: Space the levels as Karras et al. do.
    """

    whole_range = False

    def set_timesteps(self, steps: int) -> None:
        super().set_timesteps(steps)
        self.initial_scale = self.levels[0]

    def marks(self) -> list[Mark]:
        """Before every call; samples are x_0 + s e."""
        return [Mark(i, 1.0, s) for i, s in enumerate(self.levels)]

    def scaled(self, x: Array, i: int) -> Array:
        return x / math.sqrt(self.levels[i] ** 2 + 1)

    def direction(self, output: Array, x: Array, level: float) -> Array:
        """dx / ds = (x - x_0) / s, which is e."""
        if self.prediction == "epsilon":
            return output
        alpha_bar = 1 / (level**2 + 1)
        return (x - self.image(output, x * math.sqrt(alpha_bar), alpha_bar)) / level

    def step(self, output: Array, i: int, x: Array, noise: Array) -> Array:
        here, there = self.levels[i : i + 2]
        return x + (there - here) * self.direction(output, x, here)


class Heun(Euler):
    """Euler, then again with the mean of the directions at both ends: algorithm 2 of Karras et al.

    Every step but the last calls the network twice, at its start and at its end.
    """

    def set_timesteps(self, steps: int) -> None:
        super().set_timesteps(steps)
        self.timesteps = np.repeat(self.timesteps, 2)[1:]
        self.levels = [*np.repeat(self.levels[:-1], 2)[1:].tolist(), 0.0]

    def marks(self) -> list[Mark]:
        """Before the first call of every step."""
        calls = [*range(0, len(self.timesteps), 2), len(self.timesteps)]
        return [Mark(call, 1.0, self.levels[call]) for call in calls]

    def step(self, output: Array, i: int, x: Array, noise: Array) -> Array:
        if i % 2 == 0:
            here, there = self.levels[i : i + 2]
            self.start, self.first = x, self.direction(output, x, here)
            return x + (there - here) * self.first
        here, there = self.levels[i - 1 : i + 1]
        return self.start + (there - here) / 2 * (self.first + self.direction(output, x, there))


SCHEDULERS: dict[str, type[Scheduler]] = {
    cls.__name__.lower(): cls for cls in (DDPM, DDIM, DPMpp, UniPC, Euler, Heun)
}
