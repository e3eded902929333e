"""The change of variables against densities in closed form."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from ssmdiff_flow.likelihood import bits_per_dim, log_density
from torch import Tensor


def gaussian(mean: Tensor, covariance: Tensor) -> Any:
    """The velocity of the flow whose data are N(mean, covariance), on (B, d)."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        (s,) = set(t.tolist())
        eye = torch.eye(len(mean), dtype=x.dtype)
        inverse = torch.linalg.inv((1 - s) ** 2 * covariance + s**2 * eye)
        away = (x - (1 - s) * mean) @ inverse
        return s * away - (mean + (1 - s) * away @ covariance)

    return velocity


def case(d: int = 5, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, a covariance with correlations, and points of it."""
    rng = torch.Generator().manual_seed(seed)
    root = torch.randn(d, d, generator=rng, dtype=torch.float64) * 0.3
    covariance = root @ root.T + 0.01 * torch.eye(d, dtype=torch.float64)
    mean = torch.randn(d, generator=rng, dtype=torch.float64) * 0.2
    noise = torch.randn(8, d, generator=rng, dtype=torch.float64)
    return mean, covariance, mean + noise @ torch.linalg.cholesky(covariance).T


def test_the_likelihood_of_a_gaussian_is_its_density() -> None:
    """To 1e-2 bits per dimension, and in fact to 1e-4, with correlations and narrow directions."""
    mean, covariance, x = case()
    wanted = torch.distributions.MultivariateNormal(mean, covariance).log_prob(x)
    found = log_density(gaussian(mean, covariance), x)
    assert found.dtype == torch.float64
    apart = (found - wanted).abs().max() / len(mean) / math.log(2)
    assert apart < 1e-4


@pytest.mark.parametrize("spread", [2 / 255 / math.sqrt(12), 0.03, 0.3, 3.0])
def test_the_steps_are_enough_for_narrow_data(spread: float) -> None:
    """The first is what uniform noise within a level has."""
    mean, covariance = torch.zeros(1), torch.full((1, 1), spread**2)
    x = torch.tensor([[0.0], [spread], [-2 * spread]])
    wanted = torch.distributions.Normal(0, spread).log_prob(x.double())[:, 0]
    found = log_density(gaussian(mean, covariance), x)
    assert ((found - wanted).abs() / math.log(2)).max() < 1e-2


def test_the_error_falls_with_the_fourth_power_of_the_steps() -> None:
    mean, covariance, x = case()
    wanted = torch.distributions.MultivariateNormal(mean, covariance).log_prob(x)
    errors = [
        float((log_density(gaussian(mean, covariance), x, steps=n) - wanted).abs().max())
        for n in (40, 80)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.5)


def test_hutchinsons_estimate_is_the_divergence_on_average() -> None:
    """Signs over all corners of the cube are an exact mean, since z_i z_j cancels."""
    mean, covariance, x = case(d=3)
    corners = torch.tensor(np.array(np.meshgrid(*[[-1.0, 1.0]] * 3)).reshape(3, -1).T)
    signs = [corner.expand_as(x) for corner in corners.double()]
    exact = log_density(gaussian(mean, covariance), x)
    averaged = log_density(gaussian(mean, covariance), x, signs)
    torch.testing.assert_close(averaged, exact)
    one = log_density(gaussian(mean, covariance), x, signs[:1])
    assert (one - exact).abs().min() > 1e-3, "one sign is an estimate"


def test_a_velocity_that_is_not_linear() -> None:
    """dx / dt = a sin(x): its flow and the density that it carries are known.

    tan(x_t / 2) = exp(a t) tan(x_0 / 2), so with u = tan(x_0 / 2)
    dx_1 / dx_0 = exp(a) (1 + u^2) / (1 + exp(2 a) u^2).
    """
    a, x = 0.8, torch.tensor([[0.3, -1.1], [1.4, 0.0]], dtype=torch.float64)
    u = (x / 2).tan()
    end = 2 * (math.exp(a) * u).atan()
    stretch = (math.exp(a) * (1 + u**2) / (1 + math.exp(2 * a) * u**2)).log()
    wanted = (torch.distributions.Normal(0, 1).log_prob(end) + stretch).sum(1)
    found = log_density(lambda x, t: a * x.sin(), x)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)


def test_bits_per_dimension_are_those_of_levels() -> None:
    """8-bit pixels of a wide Gaussian: the probability of a level is its density times its width,
    and the bits are those of the discretised Gaussian to 1e-2."""
    spread = 0.25
    levels = torch.arange(64, 192).reshape(2, 1, 8, 8)
    images = levels / 127.5 - 1

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        (s,) = set(t.tolist())
        variance = ((1 - s) * spread) ** 2 + s**2
        return x * (s - (1 - s) * spread**2) / variance

    normal = torch.distributions.Normal(0, spread)
    x = images.double()
    mass = normal.cdf(x + 1 / 255) - normal.cdf(x - 1 / 255)
    wanted = -mass.log2().flatten(1).mean(1)
    for probes in (None, 1):
        found = bits_per_dim(velocity, images, seed=3, probes=probes)
        torch.testing.assert_close(found, wanted, atol=1e-2, rtol=0)
    again = bits_per_dim(velocity, images, seed=3)
    assert torch.equal(again, bits_per_dim(velocity, images, seed=3))
    assert not torch.equal(again, bits_per_dim(velocity, images, seed=4))


def test_white_images_of_no_structure_take_eight_bits_and_more() -> None:
    """Under N(0, 1) itself, whose flow stands still, a pixel of level 127.5 takes
    log2(sqrt(2 pi) 127.5) bits."""
    images = torch.full((1, 1, 4, 4), 1 / 255)
    found = bits_per_dim(lambda x, t: torch.zeros_like(x) * x, images)
    assert float(found) == pytest.approx(math.log2(math.sqrt(2 * math.pi) * 127.5), abs=1e-3)
