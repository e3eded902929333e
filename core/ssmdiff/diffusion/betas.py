"""The words that a configuration may use for the diffusion process, and the betas they stand for.

Needs numpy alone: exported models are sampled where torch is not installed.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

BetaSchedule = Literal["linear", "scaled_linear", "cosine", "sigmoid"]
Prediction = Literal["epsilon", "sample", "v_prediction"]

MAX_BETA = 0.999


def make_betas(
    schedule: BetaSchedule, timesteps: int, start: float = 1e-4, end: float = 0.02
) -> NDArray[np.float64]:
    """beta_t for t = 0 .. T - 1, (T,) float64.

    Args:
        schedule: ``linear`` (Ho et al.), ``scaled_linear`` (linear in the square root, latent
            diffusion), ``cosine`` (Nichol and Dhariwal, eq. 17; ignores start and end) or
            ``sigmoid`` (GeoDiff, a logistic curve from -6 to 6).
        timesteps: T, at least 1.
        start: First beta.
        end: Last beta.
    """
    if schedule == "linear":
        return np.linspace(start, end, timesteps)
    if schedule == "scaled_linear":
        return np.square(np.linspace(math.sqrt(start), math.sqrt(end), timesteps))
    if schedule == "sigmoid":
        logistic: NDArray[np.float64] = 1 / (1 + np.exp(-np.linspace(-6, 6, timesteps)))
        return start + (end - start) * logistic
    s = 0.008
    time = np.arange(timesteps + 1) / timesteps
    alpha_bar = np.cos((time + s) / (1 + s) * math.pi / 2) ** 2
    betas: NDArray[np.float64] = np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], MAX_BETA)
    return betas
