"""Noise schedulers in numpy, for sampling where torch is not installed.

Those of the diffusers library as ``ssmdiff_schedulers`` sets them up, with the same options and
"trailing" timesteps; whole trajectories agree to 1e-5. Symbols, as in ``diffusion.process``:

    alpha_bar_t    product of 1 - beta_s for s <= t
    alpha, sigma   sqrt(alpha_bar_t), sqrt(1 - alpha_bar_t): x_t = alpha x_0 + sigma eps
    s_t            sigma / alpha, the noise level of Karras et al.
    e, x_0         the noise and the image that the network's output stands for
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ssmdiff import ConfigError, Prediction, did_you_mean

Array = NDArray[Any]
"""(B, C, H, W) float32; numpy's types lose that beside Python's numbers."""
Floats = NDArray[np.float64]


class Scheduler(ABC):
    """One sampling run: where it calls the network, and what it makes of the answers.

    Args:
        betas: (T,) of the forward process.
        prediction: What the network predicts.
        steps: Sampling steps.

    Attributes:
        timesteps: At which the network is called, in the order of the calls.
        initial_scale: What the first noise is multiplied by.
        random: Whether :meth:`step` uses its noise.
    """

    random = False
    initial_scale = 1.0

    def __init__(self, betas: Floats, prediction: Prediction, steps: int) -> None:
        self.T, self.prediction, self.steps = len(betas), prediction, steps
        # As diffusers holds it: float32 factors, a product in float64, rounded to float32.
        factors = (np.float32(1) - betas.astype(np.float32)).astype(np.float64)
        self.alpha_bar = np.cumprod(factors).astype(np.float32).astype(np.float64)
        self.timesteps: Floats = np.arange(self.T, 0, -self.T / steps).round() - 1

    def scaled(self, x: Array, i: int) -> Array:
        """What the network sees of x at call i."""
        return x

    @abstractmethod
    def step(self, output: Array, i: int, x: Array, noise: Array | None) -> Array:
        """The sample after call i.

        Args:
            output: What the network gave, (B, C, H, W).
            i: Which call, from 0.
            x: The sample before it.
            noise: Standard normal, for a random scheduler.
        """

    def image_and_noise(self, output: Array, x: Array, alpha: float) -> tuple[Array, Array]:
        """x_0 and e at x = alpha x_0 + sigma e."""
        sigma = math.sqrt(1 - alpha**2)
        if self.prediction == "epsilon":
            return (x - sigma * output) / alpha, output
        if self.prediction == "sample":
            return output, (x - alpha * output) / sigma
        return alpha * x - sigma * output, alpha * output + sigma * x


class _Whole(Scheduler):
    """A scheduler that walks on whole timesteps of the training process."""

    def __init__(
        self, betas: Floats, prediction: Prediction, steps: int, clip_sample: bool
    ) -> None:
        super().__init__(betas, prediction, steps)
        if steps > self.T:
            raise ConfigError(f"{steps} steps are more than the {self.T} timesteps of the model")
        self.clip_sample = clip_sample

    def alpha_bar_at(self, t: float) -> float:
        """alpha_bar_t, 1 before the first timestep."""
        return float(self.alpha_bar[int(t)]) if t >= 0 else 1.0

    def clipped(self, x_0: Array) -> Array:
        return np.clip(x_0, -1, 1) if self.clip_sample else x_0


class DDPM(_Whole):
    """x_{t-1} = mean of q(x_{t-1} | x_t, x_0) + sqrt(variance) noise: Ho et al., eq. 6 and 7."""

    random = True

    def __init__(
        self,
        betas: Floats,
        prediction: Prediction,
        steps: int,
        variance: str = "fixed_small",
        clip_sample: bool = True,
    ) -> None:
        super().__init__(betas, prediction, steps, clip_sample)
        if variance not in ("fixed_small", "fixed_large"):
            raise ConfigError(f"variance {variance!r} of ddpm: expected fixed_small or fixed_large")
        self.variance = variance

    def step(self, output: Array, i: int, x: Array, noise: Array | None) -> Array:
        assert noise is not None
        places = [*self.timesteps, -1]
        # In float32 as in the library: near t = 0, beta keeps three digits of what 1 - alpha loses.
        now, then = (np.float32(self.alpha_bar_at(t)) for t in places[i : i + 2])
        alpha = now / then
        beta, sigma2, sigma2_then = 1 - alpha, 1 - now, 1 - then
        x_0 = self.clipped(self.image_and_noise(output, x, math.sqrt(now))[0])
        of_x_0, of_x = np.sqrt(then) * beta / sigma2, np.sqrt(alpha) * sigma2_then / sigma2
        mean: Array = of_x_0 * x_0 + of_x * x
        if places[i] == 0:
            return mean
        small = max(sigma2_then / sigma2 * beta, np.float32(1e-20))
        mean += np.sqrt(small if self.variance == "fixed_small" else beta) * noise
        return mean


class DDIM(_Whole):
    """x_s = alpha_s x_0 + sigma_s e: Song et al., eq. 12 with eta = 0."""

    def __init__(
        self, betas: Floats, prediction: Prediction, steps: int, clip_sample: bool = True
    ) -> None:
        super().__init__(betas, prediction, steps, clip_sample)

    def step(self, output: Array, i: int, x: Array, noise: Array | None) -> Array:
        # The library goes T // steps back, also where the timesteps lie a little closer or farther.
        then = self.alpha_bar_at(self.timesteps[i] - self.T // self.steps)
        alpha = math.sqrt(self.alpha_bar_at(self.timesteps[i]))
        x_0, e = self.image_and_noise(output, x, alpha)
        return math.sqrt(then) * self.clipped(x_0) + math.sqrt(1 - then) * e


class _Levels(Scheduler):
    """A scheduler that walks on noise levels s, from large to 0.

    ``karras`` spaces them as Karras et al., eq. 5, with rho = 7.
    """

    def __init__(
        self, betas: Floats, prediction: Prediction, steps: int, karras: bool, whole_range: bool
    ) -> None:
        super().__init__(betas, prediction, steps)
        trained = np.sqrt((1 - self.alpha_bar) / self.alpha_bar)
        levels = np.interp(self.timesteps, np.arange(self.T), trained)
        if karras:
            first, last = (trained[-1], trained[0]) if whole_range else (levels[0], levels[-1])
            ends = first ** (1 / 7), last ** (1 / 7)
            levels = (ends[0] + np.linspace(0, 1, steps) * (ends[1] - ends[0])) ** 7
            # Between two timesteps the logarithm of the level is linear in t.
            self.timesteps = np.interp(np.log(levels), np.log(trained), np.arange(self.T))
        self.levels = np.append(levels, 0.0)


class DPMpp(_Levels):
    """DPM-Solver++ (multistep), Lu et al., arXiv:2211.01095, orders 1 to 3.

    With h = log(s_t / s_u) from level s_t to s_u, x_0 extrapolated by differences D1, D2 of the
    last calls:

        x_u = sigma_u / sigma_t x - alpha_u (exp(-h) - 1) D0 - alpha_u (exp(-h) - 1) / 2 D1
    """

    def __init__(
        self,
        betas: Floats,
        prediction: Prediction,
        steps: int,
        order: int = 2,
        karras: bool = False,
    ) -> None:
        super().__init__(betas, prediction, steps, karras, whole_range=True)
        if order not in (1, 2, 3):
            raise ConfigError(f"order {order!r} of dpmpp: expected 1, 2 or 3")
        self.timesteps = self.timesteps.round()
        self.order = order
        self.images: list[Array] = []

    def step(self, output: Array, i: int, x: Array, noise: Array | None) -> Array:
        here, there = (float(s) for s in self.levels[i : i + 2])
        alpha, alpha_then = 1 / math.sqrt(here**2 + 1), 1 / math.sqrt(there**2 + 1)
        self.images = [self.image_and_noise(output, x, alpha)[0], *self.images[: self.order - 1]]
        if there == 0:
            return self.images[0]
        shrink = there / here  # exp(-h)
        h = -math.log(shrink)
        x = (there * alpha_then) / (here * alpha) * x - alpha_then * (shrink - 1) * self.images[0]
        order = min(self._order_left(i), len(self.images))
        if order == 1:
            return x
        slope, r_0 = self._slope(i, 0, h)
        if order == 2:
            return x - 0.5 * alpha_then * (shrink - 1) * slope
        before, r_1 = self._slope(i, 1, h)
        bend = (slope - before) / (r_0 + r_1)
        x = x + alpha_then * ((shrink - 1) / h + 1) * (slope + r_0 * bend)
        return x - alpha_then * ((shrink - 1 + h) / h**2 - 0.5) * bend

    def _slope(self, i: int, back: int, h: float) -> tuple[Array, float]:
        """The difference of the images ``back`` and ``back + 1`` calls ago over r, and r."""
        r = math.log(self.levels[i - back - 1] / self.levels[i - back]) / h
        return (self.images[back] - self.images[back + 1]) / r, r

    def _order_left(self, i: int) -> int:
        """Short runs end with lower orders, for stability."""
        left = len(self.timesteps) - i
        return min(self.order, left) if len(self.timesteps) < 15 else self.order


class Euler(_Levels):
    """x += (s_u - s_t) (x - x_0) / s_t: Karras et al., algorithm 1 without churn."""

    def __init__(
        self, betas: Floats, prediction: Prediction, steps: int, karras: bool = False
    ) -> None:
        super().__init__(betas, prediction, steps, karras, whole_range=False)
        self.initial_scale = float(self.levels.max())

    def scaled(self, x: Array, i: int) -> Array:
        return x / math.sqrt(float(self.levels[i]) ** 2 + 1)

    def direction(self, output: Array, x: Array, level: float) -> Array:
        """dx / ds at noise level s, where x is scaled so that alpha is 1."""
        alpha = 1 / math.sqrt(level**2 + 1)
        if self.prediction == "epsilon":
            return output
        return (x - self.image_and_noise(output, x * alpha, alpha)[0]) / level

    def step(self, output: Array, i: int, x: Array, noise: Array | None) -> Array:
        here, there = (float(s) for s in self.levels[i : i + 2])
        return x + (there - here) * self.direction(output, x, here)


class Heun(Euler):
    """Euler, then again with the mean of the directions at both ends: Karras, algorithm 2."""

    def __init__(
        self, betas: Floats, prediction: Prediction, steps: int, karras: bool = False
    ) -> None:
        super().__init__(betas, prediction, steps, karras)
        # Every step but the last calls the network at its start and at its end.
        self.timesteps = np.repeat(self.timesteps, 2)[1:]
        self.levels = np.append(np.repeat(self.levels[:-1], 2)[1:], 0.0)

    def step(self, output: Array, i: int, x: Array, noise: Array | None) -> Array:
        if i % 2 == 0:
            self.start, self.first = x, self.direction(output, x, float(self.levels[i]))
            return x + float(self.levels[i + 1] - self.levels[i]) * self.first
        here, there = (float(s) for s in self.levels[i - 1 : i + 1])
        mean = (self.first + self.direction(output, x, there)) / 2
        return self.start + (there - here) * mean


SCHEDULERS: dict[str, type[Scheduler]] = {
    "ddpm": DDPM,
    "ddim": DDIM,
    "dpmpp": DPMpp,
    "euler": Euler,
    "heun": Heun,
}


def build_scheduler(
    table: Mapping[str, Any], betas: Floats, prediction: Prediction, steps: int
) -> Scheduler:
    """The numpy form of a noise scheduler.

    Args:
        table: ``{"name": ..., option: value}``.
        betas: (T,) of the forward process.
        prediction: What the network predicts.
        steps: Sampling steps, at least 1.

    Raises:
        ConfigError: There is no numpy form of it, or it has no such option.
    """
    options = dict(table)
    name = options.pop("name", None)
    if name not in SCHEDULERS:
        raise ConfigError(
            f"scheduler {name!r} has no numpy form; expected one of {', '.join(SCHEDULERS)}. Every "
            "scheduler runs where torch and diffusers are installed: ssmdiff sample FILE.onnx"
        )
    if type(steps) is not int or steps < 1:
        raise ConfigError(f"steps is {steps!r}; expected a whole number from 1")
    cls = SCHEDULERS[name]
    known = [p for p in inspect.signature(cls).parameters if p not in _WIRED]
    for key in options:
        if key not in known:
            raise ConfigError(
                f"scheduler {name!r} has no option {key!r}; {did_you_mean(key, known)}"
            )
    return cls(betas, prediction, steps, **options)


_WIRED = ("betas", "prediction", "steps")
