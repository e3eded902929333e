"""How likely images are under a flow, by the instantaneous change of variables.

    dx / dt = v(x, t)              leads from an image, t = 0, to noise, t = 1
    d log p_t(x_t) / dt = - div v  Chen et al., arXiv:1806.07366, theorem 1
    log p(x_0) = log N(x_1; 0, I) + the integral of div v from t = 0 to 1

The divergence is exact, by as many backward passes as an image has numbers, or estimated without
bias by z . (dv / dx) z for random signs z (Hutchinson; Grathwohl et al., arXiv:1810.01367), one z
for a whole way. Backward passes are what every block has that can be trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from ssmdiff import stream
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""``(x, t) -> v``: (B, ...) and (B,) in 0 to 1 to the shape of ``x``."""

LEVEL = 2 / 255
"""Between two levels of an 8-bit image in -1 to 1."""
STEPS, PROBES = 32, 1


def log_density(
    velocity: Velocity, x_0: Tensor, signs: Sequence[Tensor] | None = None, steps: int = STEPS
) -> Tensor:
    """log p(x_0) in nats, (B,) float64, by Runge and Kutta's four-stage steps.

    Steps end at t = (i / steps)^3: next to the image the velocity changes most, where uniform noise
    within a level of 8 bits has a spread of 0.0023.

    Args:
        velocity: Of the flow.
        x_0: (B, ...) points.
        signs: Random signs in their shape, over which the estimate of the divergence is averaged;
            None for the divergence itself.
        steps: Of the way from image to noise; each calls the velocity four times.
    """
    x, gained = x_0.double(), torch.zeros(len(x_0), dtype=torch.float64, device=x_0.device)
    for i in range(steps):
        t, u = (i / steps) ** 3, ((i + 1) / steps) ** 3
        h = u - t
        v1, d1 = _slopes(velocity, x, t, x_0.dtype, signs)
        v2, d2 = _slopes(velocity, x + h / 2 * v1, t + h / 2, x_0.dtype, signs)
        v3, d3 = _slopes(velocity, x + h / 2 * v2, t + h / 2, x_0.dtype, signs)
        v4, d4 = _slopes(velocity, x + h * v3, u, x_0.dtype, signs)
        x = x + h / 6 * (v1 + 2 * v2 + 2 * v3 + v4)
        gained = gained + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
    noise = x.flatten(1)
    normal = -0.5 * (noise.square().sum(1) + noise.shape[1] * math.log(2 * math.pi))
    return normal + gained


def bits_per_dim(
    velocity: Velocity,
    images: Tensor,
    *,
    seed: int = 0,
    steps: int = STEPS,
    probes: int | None = PROBES,
) -> Tensor:
    """-log2 of the probability of 8-bit images over their numbers, at most, (B,) float64.

    A level stands for all values nearest to it: an image is moved within its level by uniform
    noise, and log p there, plus the logarithm of a level's width for each number, is on average at
    most the log probability of the levels (Theis et al., arXiv:1511.01844, section 3.1). So the
    figure is a bound from above, in the units of ``Diffusion.bits_per_dim``.

    Args:
        velocity: Of the flow.
        images: (B, C, *image_size) in -1 to 1, on a grid of 256 levels.
        seed: Of the noise within levels and the signs, a function of (seed, place of the image).
        steps: See :func:`log_density`.
        probes: Random signs of an image for the divergence; None for the divergence itself, which
            takes as many backward passes as an image has numbers.
    """
    shape = tuple(images.shape[1:])

    def drawn(purpose: str, *counters: int) -> Tensor:
        rows = [stream(seed, purpose, i, *counters).random(shape) for i in range(len(images))]
        return torch.from_numpy(np.stack(rows)).to(images)

    within = images + LEVEL * (drawn("dequantisation") - 0.5)
    signs = None
    if probes is not None:
        signs = [(drawn("divergence", k) < 0.5).to(images) * 2 - 1 for k in range(probes)]
    each = log_density(velocity, within, signs, steps) / math.prod(shape)
    return -(each + math.log(LEVEL)) / math.log(2)


def _slopes(
    velocity: Velocity, x: Tensor, t: float, dtype: torch.dtype, signs: Sequence[Tensor] | None
) -> tuple[Tensor, Tensor]:
    """v and its divergence (B,) at x, float64."""
    at = x.to(dtype).detach().requires_grad_()
    with torch.enable_grad():
        v = velocity(at, torch.full((len(x),), t, dtype=dtype, device=x.device))
        if signs is None:
            divergence = _exact(v, at)
        else:
            products = [
                (z * torch.autograd.grad(v, at, z, retain_graph=True)[0]).double().flatten(1).sum(1)
                for z in signs
            ]
            divergence = torch.stack(products).mean(0)
    return v.detach().double(), divergence.detach()


def _exact(v: Tensor, x: Tensor) -> Tensor:
    """The sum of dv_j / dx_j, a backward pass for each j."""
    rows, total = v.flatten(1), torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for j in range(rows.shape[1]):
        (gradient,) = torch.autograd.grad(rows[:, j].sum(), x, retain_graph=True)
        total = total + gradient.flatten(1)[:, j].double()
    return total
