"""The forward process, the objective and the bound, against diffusers and closed forms."""

import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from ssmdiff.diffusion.process import Diffusion, make_betas


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("linear", "linear"), ("scaled_linear", "scaled_linear"), ("cosine", "squaredcos_cap_v2"),
     ("sigmoid", "sigmoid")],
)  # fmt: skip
def test_betas_are_those_of_diffusers(ours, theirs):
    peer = DDPMScheduler(200, beta_start=1e-4, beta_end=0.02, beta_schedule=theirs)
    np.testing.assert_allclose(make_betas(ours, 200), peer.betas.numpy(), rtol=2e-4, atol=1e-7)


@pytest.fixture
def draws():
    g = torch.Generator().manual_seed(0)
    x_0 = torch.rand(6, 1, 5, 4, generator=g) * 2 - 1
    return x_0, torch.randn(x_0.shape, generator=g), torch.tensor([0, 1, 10, 100, 500, 999])


def test_add_noise_is_that_of_diffusers(draws):
    peer = DDPMScheduler(1000)
    ours = Diffusion(make_betas("linear", 1000)).add_noise(*draws)
    torch.testing.assert_close(ours, peer.add_noise(*draws), rtol=1e-5, atol=1e-5)


def test_add_noise_agrees_with_the_chain_of_eq_1():
    """Composing q(x_t | x_{t-1}) step by step gives the closed form's mean and variance."""
    betas = make_betas("linear", 50, 1e-3, 0.1)
    mean, variance = 1.0, 0.0
    for beta in betas:
        mean, variance = math.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
    diffusion = Diffusion(betas)
    one, zero, last = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1), torch.tensor([49])
    assert diffusion.add_noise(one, zero, last).item() == pytest.approx(mean)
    noise_part = diffusion.add_noise(0 * one, torch.ones(1, 1), last)
    assert noise_part.item() ** 2 == pytest.approx(variance)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_a_perfect_prediction_has_no_loss_and_gives_back_x_0(draws, prediction):
    x_0, noise, t = draws
    diffusion = Diffusion(make_betas("linear", 1000), prediction)
    target = diffusion.target(x_0, noise, t)
    x_t = diffusion.add_noise(x_0, noise, t)
    assert diffusion.losses(target, x_0, noise, t).abs().max() == 0
    torch.testing.assert_close(
        diffusion.predicted_x_0(target.double(), x_t.double(), t).float(), x_0, rtol=0, atol=1e-3
    )


def test_v_is_that_of_diffusers(draws):
    ours = Diffusion(make_betas("linear", 1000), "v_prediction").target(*draws)
    torch.testing.assert_close(ours, DDPMScheduler(1000).get_velocity(*draws), rtol=1e-4, atol=1e-5)


def test_min_snr_weights_the_same_x_0_error_whatever_is_predicted(draws):
    """An error of the network is an error of x_0; its weight must be min(snr, gamma) in all."""
    x_0, noise, t = (d.double() if d.is_floating_point() else d for d in draws)
    betas, gamma = make_betas("linear", 1000), 5.0
    wrong_x_0 = x_0 + 0.1
    snr = Diffusion(betas).alpha_bar[t] / (1 - Diffusion(betas).alpha_bar[t])
    expected = 0.01 * snr.clamp(max=gamma)
    for prediction in ("epsilon", "sample", "v_prediction"):
        diffusion = Diffusion(betas, prediction)
        x_t = diffusion.add_noise(x_0, noise, t)
        alpha_bar = diffusion.alpha_bar[t][:, None, None, None]
        wrong_noise = (x_t - alpha_bar.sqrt() * wrong_x_0) / (1 - alpha_bar).sqrt()
        guess = diffusion.target(wrong_x_0, wrong_noise, t)
        losses = diffusion.losses(guess, x_0, noise, t, gamma).double()
        torch.testing.assert_close(losses, expected, rtol=1e-3, atol=1e-5)


# The variational bound


def bound(diffusion, x_0, predict, timesteps=None):
    def noise(t):
        return torch.randn(x_0.shape, generator=torch.Generator().manual_seed(t))

    return diffusion.bits_per_dim(predict, x_0, noise, timesteps)


def test_bound_of_a_perfect_denoiser_is_prior_and_decoder_alone():
    """If x_0 is known, every posterior KL is 0; the rest is computed here with torch's own."""
    diffusion = Diffusion(make_betas("linear", 100, 1e-4, 0.2), "sample")
    x_0 = torch.tensor([0.0, 51.0, 102.0, 204.0]).reshape(1, 1, 2, 2) / 127.5 - 1
    bits = bound(diffusion, x_0, lambda x_t, t: x_0)
    alpha_bar = diffusion.alpha_bar[-1]
    q = torch.distributions.Normal(alpha_bar.sqrt() * x_0.double(), (1 - alpha_bar).sqrt())
    prior = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).mean()
    a, b = 1 - diffusion.betas[0], 1 - diffusion.betas[1]
    scale = math.sqrt(diffusion.betas[1] * (1 - a) / (1 - a * b))
    density = torch.distributions.Normal(x_0.double(), scale)
    inside = density.cdf(x_0.double() + 1 / 255) - density.cdf(x_0.double() - 1 / 255)
    inside[0, 0, 0, 0] = density.cdf(x_0.double() + 1 / 255)[0, 0, 0, 0]  # -1 takes the whole tail
    expected = (prior - inside.log().mean()) / math.log(2)
    assert bits.item() == pytest.approx(expected.item(), rel=1e-6)


def test_bound_adds_the_posterior_kl_of_a_wrong_mean():
    diffusion = Diffusion(make_betas("linear", 20, 1e-3, 0.3), "sample")
    x_0 = torch.zeros(1, 1, 2, 2)
    right = bound(diffusion, x_0, lambda x_t, t: x_0)
    wrong = bound(diffusion, x_0, lambda x_t, t: x_0 + 0.25 * (t > 0).view(-1, 1, 1, 1))
    total = 0.0
    for t in range(1, 20):
        before, now, beta = diffusion.alpha_bar[t - 1], diffusion.alpha_bar[t], diffusion.betas[t]
        variance = beta * (1 - before) / (1 - now)
        shift = before.sqrt() * beta / (1 - now) * 0.25
        p = torch.distributions.Normal(shift, variance.sqrt())
        q = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), variance.sqrt())
        total += torch.distributions.kl_divergence(q, p).item()
    assert (wrong - right).item() == pytest.approx(total / math.log(2), rel=1e-5)


def test_bound_of_gaussian_data_under_its_optimal_denoiser_is_the_closed_form():
    """Pixels N(0, s^2): each KL is c_t^2 Var(x_0 | x_t) / (2 beta_tilde_t), summed here by hand.

    And no model can be below the entropy of the data in its 256 levels.
    """
    s = 0.2
    diffusion = Diffusion(make_betas("linear", 1000))
    g = torch.Generator().manual_seed(3)
    x_0 = ((torch.randn(64, 1, 8, 8, generator=g) * s + 1) * 127.5).round().clamp(0, 255)
    x_0 = x_0 / 127.5 - 1

    def optimal(x_t, t):
        alpha_bar = diffusion.alpha_bar[t].float()[:, None, None, None]
        mean = alpha_bar.sqrt() * s**2 * x_t / (alpha_bar * s**2 + 1 - alpha_bar)
        return (x_t - alpha_bar.sqrt() * mean) / (1 - alpha_bar).sqrt()

    def knows_x_0_after_the_first_step(x_t, t):
        alpha_bar = diffusion.alpha_bar[t].float()[:, None, None, None]
        noise = (x_t - alpha_bar.sqrt() * x_0) / (1 - alpha_bar).sqrt()
        return torch.where(t[0] == 0, optimal(x_t, t), noise)

    bits = bound(diffusion, x_0, optimal).mean().item()
    rest = bound(diffusion, x_0, knows_x_0_after_the_first_step).mean().item()
    now, before = diffusion.alpha_bar[1:], diffusion.alpha_bar[:-1]
    beta = torch.from_numpy(diffusion.betas)[1:]
    uncertain = s**2 * (1 - now) / (now * s**2 + 1 - now)
    gain = before.sqrt() * beta / (1 - now)
    expected = (gain**2 * uncertain / (2 * beta * (1 - before) / (1 - now))).sum() / math.log(2)
    assert bits - rest == pytest.approx(expected.item(), rel=0.03)

    normal = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), s)
    levels = normal.cdf((torch.arange(257).double() - 0.5) / 127.5 - 1).diff().clamp(min=1e-300)
    assert bits > -(levels * levels.log2()).sum().item()
