"""Networks whose answers are known, for the tests of the schedulers."""

from __future__ import annotations

import numpy as np
import ssmdiff
from ssmdiff.diffusion.betas import make_betas

T = 1000


class Gaussian:
    """Data N(mean, spread^2) under a process, and the network that predicts it exactly."""

    def __init__(self, mean=0.1, spread=0.25, prediction="epsilon", schedule="linear"):
        self.mean, self.spread, self.prediction = mean, spread, prediction
        self.betas = make_betas(schedule, T)
        factors = (1 - self.betas.astype(np.float32)).astype(np.float64)
        self.alpha_bar = np.cumprod(factors).astype(np.float32).astype(np.float64)

    def at(self, t):
        """alpha_bar; between whole timesteps the logarithm of the noise level is linear."""
        level = np.log(1 / self.alpha_bar - 1)
        return 1 / (1 + np.exp(np.interp(t, np.arange(T), level)))

    def __call__(self, x, t, orders=()):
        a = self.at(t)
        a = a.reshape(-1, *(1,) * (x.ndim - 1)) if np.ndim(a) else a
        alpha, sigma = np.sqrt(a), np.sqrt(1 - a)
        gain = alpha * self.spread**2 / (a * self.spread**2 + sigma**2)
        x_0 = self.mean + gain * (x - alpha * self.mean)
        eps = (x - alpha * x_0) / sigma
        known = {"epsilon": eps, "sample": x_0, "v_prediction": alpha * eps - sigma * x_0}
        return known[self.prediction]

    def scheduler(self, table):
        return ssmdiff.make_scheduler(table, self.betas, self.prediction)

    def walk(self, table, steps, x=None, seed=0):
        """What comes out, in float64, of one run with noise of its own."""
        scheduler, rng = self.scheduler(table), np.random.default_rng(seed)
        scheduler.set_timesteps(steps)
        x = rng.standard_normal(20_000) if x is None else x
        x = x * scheduler.initial_scale
        for i, t in enumerate(scheduler.timesteps):
            noise = rng.standard_normal(x.shape) if scheduler.random else None
            x = scheduler.step(self(scheduler.scaled(x, i), t), i, x, noise)
        return x


def bold_then_blind(scheduler, steps):
    """The mean grey drawn with a network that is sure of more than black down to t = 80.

    From there on it knows nothing and reads the image off x. 25, 50 and 100 steps all call it at
    t = 79; it takes a scheduler with ``clip_sample`` that was told to expect ``epsilon``.
    """
    alpha_bar = np.cumprod(1 - make_betas("linear", T))
    scheduler.set_timesteps(steps)
    x = np.random.default_rng(0).standard_normal((4, 1, 16, 16))
    for i, t in enumerate(scheduler.timesteps):
        now = alpha_bar[int(t)]
        x_0 = x / np.sqrt(now) if t < 80 else -1.05 + 0 * x
        x = scheduler.step((x - np.sqrt(now) * x_0) / np.sqrt(1 - now), i, x, 0 * x)
    return float(x.mean())
