"""The forward process, the training objective and the variational bound.

Symbols of Ho et al. (DDPM) and of VM-DDPM, section III-A, with t counted from 0 to T - 1:

    beta_t        variance of the t-th forward step                        eq. 1
    alpha_bar_t   product of 1 - beta_s for s <= t
    x_t           sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise
    v_t           sqrt(alpha_bar_t) noise - sqrt(1 - alpha_bar_t) x_0      Salimans and Ho
    snr_t         alpha_bar_t / (1 - alpha_bar_t)
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssmdiff.diffusion.betas import Prediction
from ssmdiff.diffusion.betas import make_betas as make_betas


@dataclass(frozen=True, eq=False)
class Diffusion:
    """The process that is trained and sampled: its betas, and what the network predicts."""

    betas: NDArray[np.float64]
    prediction: Prediction = "epsilon"

    @property
    def timesteps(self) -> int:
        """T."""
        return len(self.betas)

    @functools.cached_property
    def alpha_bar(self) -> Tensor:
        """(T,) float64."""
        return torch.from_numpy(np.cumprod(1 - self.betas))

    def _at(self, values: Tensor, t: Tensor, like: Tensor) -> Tensor:
        """``values[t]`` as float32 or wider, shaped to multiply ``like`` (B, ...)."""
        dtype = torch.promote_types(like.dtype, torch.float32)
        picked = values.to(t.device)[t].to(dtype)
        return picked.reshape(-1, *(1,) * (like.dim() - 1))

    def add_noise(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t ~ q(x_t | x_0), the closed form of eq. 1. ``t`` is (B,) integer."""
        alpha_bar = self._at(self.alpha_bar, t, x_0)
        return alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * noise

    def target(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network should predict at x_t."""
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "sample":
            return x_0
        alpha_bar = self._at(self.alpha_bar, t, x_0)
        return alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * x_0

    def predicted_x_0(self, prediction: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """x_0 that the network's prediction stands for."""
        alpha_bar = self._at(self.alpha_bar, t, x_t)
        if self.prediction == "epsilon":
            return (x_t - (1 - alpha_bar).sqrt() * prediction) / alpha_bar.sqrt()
        if self.prediction == "sample":
            return prediction
        return alpha_bar.sqrt() * x_t - (1 - alpha_bar).sqrt() * prediction

    def loss_weight(self, t: Tensor, min_snr_gamma: float | None) -> Tensor:
        """(B,) weights of the squared error.

        1 for L_simple (eq. 4); min(snr, gamma) in units of the x_0 error for min-SNR (Hang et al.,
        arXiv:2303.09556, section 3.4), which is divided by snr for ``epsilon`` and by snr + 1 for
        ``v_prediction``.
        """
        if min_snr_gamma is None:
            return torch.ones(t.shape, device=t.device)
        alpha_bar = self.alpha_bar.to(t.device)[t]
        snr = alpha_bar / (1 - alpha_bar)
        weight = snr.clamp(max=min_snr_gamma)
        if self.prediction == "epsilon":
            weight = weight / snr
        elif self.prediction == "v_prediction":
            weight = weight / (snr + 1)
        return weight.float()

    def losses(
        self,
        prediction: Tensor,
        x_0: Tensor,
        noise: Tensor,
        t: Tensor,
        min_snr_gamma: float | None = None,
    ) -> Tensor:
        """(B,) float32: the mean squared error of each image, weighted (eq. 4)."""
        error = (prediction.float() - self.target(x_0, noise, t).float()) ** 2
        return error.flatten(1).mean(1) * self.loss_weight(t, min_snr_gamma)

    # The variational bound, eq. 3

    def bits_per_dim(
        self,
        predict: Callable[[Tensor, Tensor], Tensor],
        x_0: Tensor,
        noise: Callable[[int], Tensor],
        timesteps: Sequence[int] | None = None,
    ) -> Tensor:
        """L_vb of eq. 3 per image, in bits per dimension, for 8-bit images.

        L_vb = L_T + sum of L_{t-1} + L_0, as in section 3 of Ho et al. with the reverse variance
        beta_tilde (its clipped form at t = 0, Nichol and Dhariwal).

        Args:
            predict: ``(x_t, t) -> prediction`` with t (B,).
            x_0: (B, C, *image_size) in -1 .. 1, on a grid of 256 levels.
            noise: The noise of timestep t, in the shape of ``x_0``.
            timesteps: The t >= 1 to evaluate; the sum over all is estimated from them. None
                for all T - 1 of them, an exact sum over t.

        Returns:
            (B,) float64.
        """
        chosen = list(range(1, self.timesteps) if timesteps is None else timesteps)
        bound = self._prior_kl(x_0) + self._decoder_nll(predict, x_0, noise(0))
        for t in chosen:
            share = (self.timesteps - 1) / len(chosen)
            bound = bound + share * self._posterior_kl(predict, x_0, noise(t), t)
        return bound / math.log(2)

    def _posterior(self, x_0: Tensor, x_t: Tensor, t: int) -> Tensor:
        """Mean of q(x_{t-1} | x_t, x_0), eq. 7 of Ho et al."""
        before, now, beta = self._alpha_bar(t - 1), self._alpha_bar(t), float(self.betas[t])
        of_x_0 = math.sqrt(before) * beta / (1 - now)
        of_x_t = math.sqrt(1 - beta) * (1 - before) / (1 - now)
        return of_x_0 * x_0 + of_x_t * x_t

    def _posterior_variance(self, t: int) -> float:
        t = max(t, 1)  # beta_tilde_0 = 0, so the decoder borrows the next one
        return float(self.betas[t]) * (1 - self._alpha_bar(t - 1)) / (1 - self._alpha_bar(t))

    def _alpha_bar(self, t: int) -> float:
        """alpha_bar_t, 1 before the first step."""
        return float(self.alpha_bar[t]) if t >= 0 else 1.0

    def _reverse_mean(
        self, predict: Callable[[Tensor, Tensor], Tensor], x_0: Tensor, noise: Tensor, t: int
    ) -> tuple[Tensor, Tensor]:
        """x_t drawn from x_0, and the mean of p(x_{t-1} | x_t) that the network gives, float64."""
        steps = torch.full((len(x_0),), t, device=x_0.device)
        x_t = self.add_noise(x_0, noise, steps)
        guess = self.predicted_x_0(predict(x_t, steps).float(), x_t, steps).clamp(-1, 1)
        return x_t.double(), self._posterior(guess.double(), x_t.double(), t)

    def _posterior_kl(
        self, predict: Callable[[Tensor, Tensor], Tensor], x_0: Tensor, noise: Tensor, t: int
    ) -> Tensor:
        x_t, mean = self._reverse_mean(predict, x_0, noise, t)
        gap = self._posterior(x_0.double(), x_t, t) - mean
        return (gap**2).flatten(1).mean(1) / (2 * self._posterior_variance(t))

    def _decoder_nll(
        self, predict: Callable[[Tensor, Tensor], Tensor], x_0: Tensor, noise: Tensor
    ) -> Tensor:
        """-log p(x_0 | x_1), the discretised Gaussian of eq. 13 of Ho et al., 256 levels."""
        _, mean = self._reverse_mean(predict, x_0, noise, 0)
        scale = math.sqrt(self._posterior_variance(0))
        x, half = x_0.double(), 1 / 255
        upper = torch.special.ndtr((x + half - mean) / scale)
        lower = torch.special.ndtr((x - half - mean) / scale)
        upper = torch.where(x > 1 - half, torch.ones_like(upper), upper)
        lower = torch.where(x < -1 + half, torch.zeros_like(lower), lower)
        return -(upper - lower).clamp(min=1e-12).log().flatten(1).mean(1)

    def _prior_kl(self, x_0: Tensor) -> Tensor:
        """KL(q(x_T | x_0) || N(0, I))."""
        alpha_bar = float(self.alpha_bar[-1])
        mean_squared = alpha_bar * x_0.double() ** 2
        variance = 1 - alpha_bar
        kl = 0.5 * (variance + mean_squared - 1 - math.log(variance))
        return kl.flatten(1).mean(1)
