"""The sampling loop and the noise schedulers behind it, with denoisers whose answer is known."""

import pytest
import ssmdiff
import torch
from ssmdiff.diffusion.process import Diffusion, make_betas
from ssmdiff.diffusion.sampling import sample
from ssmdiff.orders.scan import OrderPlan, ScanSlot

SCHEDULERS = ["ddpm", "ddim", "dpmpp", "unipc", "euler", "heun"]
MEAN, SPREAD = 0.1, 0.25


@pytest.fixture
def plan():
    scan = ssmdiff.create("scan", "regenerate")
    return OrderPlan(scan, (ScanSlot((4, 4)),), seed=7)


def gaussian_denoiser(diffusion):
    """The exact denoiser of data N(MEAN, SPREAD^2), whatever is predicted."""

    def denoise(x, timesteps, orders):
        t = timesteps.long()
        alpha_bar = diffusion.alpha_bar[t].float().view(-1, *(1,) * (x.dim() - 1))
        gain = alpha_bar.sqrt() * SPREAD**2 / (alpha_bar * SPREAD**2 + 1 - alpha_bar)
        x_0 = MEAN + gain * (x - alpha_bar.sqrt() * MEAN)
        noise = (x - alpha_bar.sqrt() * x_0) / (1 - alpha_bar).sqrt()
        return diffusion.target(x_0, noise, t)

    return denoise


def make(name, diffusion, **options):
    return ssmdiff.create(
        "scheduler", name, betas=diffusion.betas, prediction_type=diffusion.prediction, **options
    )


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_draws_the_known_distribution(name, prediction, plan):
    diffusion = Diffusion(make_betas("linear", 1000), prediction)
    steps = 50 if name in ("dpmpp", "unipc", "heun") else 250  # the others are of first order
    images = sample(
        gaussian_denoiser(diffusion), make(name, diffusion), plan, (1, 16, 16), range(8), steps
    )
    assert images.shape == (8, 1, 16, 16)
    assert images.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert images.std().item() == pytest.approx(SPREAD, rel=0.06)


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "cosine", "sigmoid"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_walk_the_trained_process(name, schedule):
    """The betas that a scheduler holds are the ones that were trained with."""
    diffusion = Diffusion(make_betas(schedule, 300))
    scheduler = make(name, diffusion)
    torch.testing.assert_close(
        scheduler.alphas_cumprod.double(), diffusion.alpha_bar, rtol=2e-3, atol=1e-6
    )


@pytest.mark.parametrize("name", SCHEDULERS)
def test_an_image_depends_on_seed_and_index_alone(name, plan):
    diffusion = Diffusion(make_betas("linear", 1000))
    denoiser = gaussian_denoiser(diffusion)

    def draw(indices):
        return sample(denoiser, make(name, diffusion), plan, (1, 4, 4), indices, 10)

    together = draw([0, 1, 2, 3])
    torch.testing.assert_close(draw([2]), together[2:3])
    torch.testing.assert_close(draw([3, 1]), together[[3, 1]])
    assert (together[0] - together[1]).abs().max() > 0.01


def test_ddim_of_diffusers_gives_the_same_image(plan):
    """Our loop against the library's own step, driven by hand."""
    from diffusers import DDIMScheduler
    from ssmdiff.diffusion.sampling import first_noise

    diffusion = Diffusion(make_betas("linear", 1000))
    denoiser = gaussian_denoiser(diffusion)
    peer = DDIMScheduler(1000, timestep_spacing="trailing")
    peer.set_timesteps(20)
    x = torch.from_numpy(first_noise(7, 0, (1, 4, 4)))[None]
    for t in peer.timesteps:
        x = peer.step(denoiser(x, t.expand(1), ()), t, x).prev_sample
    ours = sample(denoiser, make("ddim", diffusion), plan, (1, 4, 4), [0], 20)
    torch.testing.assert_close(ours, x.clamp(-1, 1), rtol=1e-4, atol=1e-5)


def test_orders_change_with_the_step_and_not_with_the_batch(plan):
    seen = []

    def denoiser(x, timesteps, orders):
        seen.append(orders[0].clone())
        return torch.zeros_like(x)

    diffusion = Diffusion(make_betas("linear", 1000))
    sample(denoiser, make("ddim", diffusion), plan, (1, 4, 4), [0, 1], 3)
    sample(denoiser, make("ddim", diffusion), plan, (1, 4, 4), [5], 3)
    assert not torch.equal(seen[0], seen[1])
    assert all(torch.equal(a, b) for a, b in zip(seen[:3], seen[3:], strict=True))


def test_a_misspelt_option_of_a_scheduler_is_told():
    diffusion = Diffusion(make_betas("linear", 10))
    with pytest.raises(ssmdiff.SsmdiffError, match="did you mean 'karras'"):
        make("euler", diffusion, karas=True)
