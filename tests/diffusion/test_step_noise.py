"""The noise of random samplers: numpy streams of (seed, image, step), added as DDPM does."""

import numpy as np
import pytest
import ssmdiff
import torch
from diffusers import DDPMScheduler
from diffusers.utils.torch_utils import randn_tensor
from ssmdiff.diffusion.process import Diffusion, make_betas
from ssmdiff.diffusion.sampling import sample
from ssmdiff.orders.scan import OrderPlan, ScanSlot
from ssmdiff.orders.seeds import step_noise, stream

SHAPE = (1, 4, 4)


@pytest.fixture
def plan():
    return OrderPlan(ssmdiff.create("scan", "cross"), (ScanSlot((4, 4)),), seed=7)


def halving(x, timesteps, orders):
    return x / 2


def test_the_noise_of_a_step_is_a_stream_of_its_own():
    drawn = step_noise(7, 3, 5, SHAPE)
    expected = stream(7, "sample step", 3, 5).standard_normal(SHAPE, dtype=np.float32)
    assert drawn.dtype == np.float32
    np.testing.assert_array_equal(drawn, expected)
    assert (step_noise(7, 3, 6, SHAPE) != drawn).any()


@pytest.mark.parametrize("steps", [1, 3, 20, 300])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_ddpm_with_given_noise_steps_as_the_librarys_own(steps, variance, clip, prediction):
    betas = make_betas("linear", 300)
    options = {"variance": variance, "clip_sample": clip}
    ours = ssmdiff.create("scheduler", "ddpm", betas=betas, prediction_type=prediction, **options)
    theirs = DDPMScheduler(
        300, trained_betas=betas.tolist(), timestep_spacing="trailing", variance_type=variance,
        clip_sample=clip, prediction_type=prediction,
    )  # fmt: skip
    ours.set_timesteps(steps)
    theirs.set_timesteps(steps)
    assert torch.equal(ours.timesteps, theirs.timesteps)
    x = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    prediction = 0.3 * x
    for t in ours.timesteps[::7]:
        noise = randn_tensor(x.shape, generator=torch.Generator().manual_seed(1))
        expected = theirs.step(prediction, t, x, generator=torch.Generator().manual_seed(1))
        got = ours.step(prediction, t, x, noise=noise)
        torch.testing.assert_close(got.prev_sample, expected.prev_sample, rtol=2e-6, atol=2e-6)


def test_sampling_hands_a_scheduler_the_noise_of_each_image_and_step(plan):
    given = []

    class Listening:
        timesteps = torch.tensor([9, 4])

        def set_timesteps(self, steps):
            pass

        def scale_model_input(self, x, t):
            return x

        def step(self, model_output, timestep, sample, noise):
            given.append(noise)
            return (sample,)

    sample(halving, Listening(), plan, SHAPE, [4, 2], 2)
    expected = [[step_noise(7, image, step, SHAPE) for image in (4, 2)] for step in (0, 1)]
    assert [n.tolist() for n in given] == [np.stack(e).tolist() for e in expected]


def test_a_scheduler_of_the_library_itself_still_gets_a_generator_for_each_image(plan):
    def draw(indices):
        scheduler = DDPMScheduler(300, timestep_spacing="trailing")
        return sample(halving, scheduler, plan, SHAPE, indices, 10)

    together = draw([0, 1, 2])
    torch.testing.assert_close(draw([2]), together[2:])
    assert (together[0] - together[1]).abs().max() > 0.01


def test_ddpm_draws_another_image_for_another_seed(plan):
    diffusion = Diffusion(make_betas("linear", 300))
    images = [
        sample(
            halving,
            ssmdiff.create("scheduler", "ddpm", betas=diffusion.betas, prediction_type="epsilon"),
            OrderPlan(plan.scan, plan.slots, seed),
            SHAPE,
            [0],
            5,
        )
        for seed in (1, 2, 1)
    ]
    assert torch.equal(images[0], images[2])
    assert not torch.equal(images[0], images[1])
