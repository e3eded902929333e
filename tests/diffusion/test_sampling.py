"""The sampling loop: its streams, its orders, its arrays, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gaussian import Gaussian
from ssmdiff import Condition, Conditions
from ssmdiff.diffusion.denoisers import TorchDenoiser
from ssmdiff.diffusion.image_model import ImageModel, SamplingSettings
from ssmdiff.diffusion.sampling import sample
from ssmdiff.diffusion.schedulers import SCHEDULERS
from ssmdiff.errors import ConfigError, DivergedError
from ssmdiff.orders.seeds import first_noise, step_noise, stream

SHAPE = (1, 4, 4)
DATA = Gaussian()


def denoise(x, timesteps, orders):
    return DATA(x, timesteps).astype(np.float32)


def draw(plan, indices, name="ddim", denoiser=denoise, steps=10, seed=7, on_step=None):
    scheduler = DATA.scheduler({"name": name})
    return sample(
        denoiser, scheduler, plan, seed=seed, shape=SHAPE, indices=indices, steps=steps,
        on_step=on_step,
    )  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULERS)
def test_an_image_depends_on_seed_and_index_alone(name, plan):
    together = draw(plan, [0, 1, 2, 3], name)
    assert together.dtype == np.float32
    np.testing.assert_allclose(draw(plan, [2], name), together[2:3], atol=1e-6)
    np.testing.assert_allclose(draw(plan, [3, 1], name), together[[3, 1]], atol=1e-6)
    assert np.abs(together[0] - together[1]).max() > 0.01
    assert np.abs(draw(plan, [0], name, seed=8) - together[:1]).max() > 0.01


@pytest.mark.parametrize("name", SCHEDULERS)
def test_tensors_stay_tensors_and_give_the_same_images(name, plan):
    seen = []

    def on_tensors(x, timesteps, orders):
        seen.append((type(x), timesteps.dtype, orders[0].shape))
        return torch.from_numpy(denoise(x.numpy(), timesteps.numpy(), orders))

    images = draw(plan, [0, 5], name, TorchDenoiser(on_tensors))
    assert isinstance(images, torch.Tensor)
    assert set(seen) == {(torch.Tensor, torch.float32, seen[0][2])}
    np.testing.assert_allclose(images.numpy(), draw(plan, [0, 5], name), atol=1e-5)


def test_the_noise_of_a_step_is_a_stream_of_its_own():
    drawn = step_noise(7, 3, 5, SHAPE)
    expected = stream(7, "sample step", 3, 5).standard_normal(SHAPE, dtype=np.float32)
    assert drawn.dtype == np.float32
    np.testing.assert_array_equal(drawn, expected)
    assert (step_noise(7, 3, 6, SHAPE) != drawn).any()


class Listening:
    """A scheduler that writes down what it is given."""

    initial_scale, random = 3.0, True

    def __init__(self):
        self.given = []

    def set_timesteps(self, steps):
        self.timesteps = np.linspace(9, 4, steps)

    def scaled(self, x, i):
        return x / 2

    def step(self, output, i, x, noise):
        self.given.append((output, i, x, noise))
        return x


def test_a_scheduler_is_handed_the_noise_of_each_image_and_step(plan):
    scheduler, told = Listening(), []

    def halving(x, timesteps, orders):
        told.append(timesteps.tolist())
        return x / 2

    sample(halving, scheduler, plan, seed=7, shape=SHAPE, indices=[4, 2], steps=2)
    first = np.stack([first_noise(7, image, SHAPE) for image in (4, 2)])
    for step, (output, i, x, noise) in enumerate(scheduler.given):
        assert i == step
        np.testing.assert_array_equal(x, 3 * first)
        np.testing.assert_array_equal(output, x / 4)
        np.testing.assert_array_equal(noise, [step_noise(7, n, step, SHAPE) for n in (4, 2)])
    assert told == [[9, 9], [4, 4]]


def test_orders_change_with_the_step_and_the_seed_and_not_with_the_batch(plan):
    seen = []

    def watching(x, timesteps, orders):
        seen.append(orders[0].index.tobytes())
        return 0 * x

    for indices, seed in ([0, 1], 7), ([5], 7), ([5], 8):
        draw(plan, indices, denoiser=watching, steps=3, seed=seed)
    assert len(set(seen[:3])) == 3
    assert seen[:3] == seen[3:6]
    assert seen[6] != seen[3]
    assert seen[:3] == [plan.draw(i, 7)[0].index.tobytes() for i in range(3)]


def test_numbers_that_are_not_finite_are_told_with_their_call(plan):
    calls = []

    def breaking(x, timesteps, orders):
        calls.append(None)
        return x * (np.inf if len(calls) == 3 else 0.5)

    with pytest.raises(DivergedError, match="call 3 of 10 of the network, at timestep 799, gave"):
        draw(plan, [0], denoiser=breaking)


class Known(ImageModel):
    """The Gaussian as a model that images are drawn from."""

    shape = SHAPE

    def __init__(self, plan):
        self._plan = plan

    def denoiser(self):
        return denoise

    def plan(self):
        return self._plan

    def sampling(self, scheduler=None, steps=None, seed=0, label=None, told=None):
        return SamplingSettings(
            {"name": scheduler or "heun"}, steps or 4, seed, self.asked(label, told)
        )

    def new_scheduler(self, table):
        return DATA.scheduler(table)

    def origin(self):
        return {}

    def joined(self, batches):
        return np.concatenate(batches)


def test_a_model_draws_in_batches_and_tells_every_call(plan):
    model, steps = Known(plan), []
    sampling = model.sampling(seed=3)
    assert model.calls(sampling) == 7
    drawn = list(model.draw(sampling, [4, 1, 8], batch_size=2, on_step=lambda: steps.append(None)))
    assert [list(indices) for indices, _ in drawn] == [[4, 1], [8]]
    assert [images.shape for _, images in drawn] == [(2, *SHAPE), (1, *SHAPE)]
    assert len(steps) == 14
    whole = model.sample(9, seed=3)
    np.testing.assert_allclose(np.concatenate([i for _, i in drawn]), whole[[4, 1, 8]], atol=1e-6)
    np.testing.assert_allclose(model.sample(seed=3, indices=iter([8])), whole[[8]], atol=1e-6)


@pytest.mark.parametrize("bad", [{"n": 0}, {"batch_size": 0}, {"steps": -1}, {"seed": -1}])
def test_numbers_out_of_range_are_refused(bad, plan):
    with pytest.raises(ConfigError):
        Known(plan).sample(**{"n": 1, **bad})


def test_each_image_is_handed_its_class_which_depends_on_its_index_alone(plan):
    """Without a label the classes come in turn; the denoiser is told (B, n), one of it 1."""
    told = []

    class Conditional(Known):
        conditions = Conditions([Condition("label", "label", ("disc", "ring", "square"))])

        def denoiser(self):
            def known(x, timesteps, orders, context):
                assert context.dtype == np.float32
                assert sorted(context[0]) == [0, 0, 1]
                told.append(context.argmax(1).tolist())
                return denoise(x, timesteps, orders)

            return known

    model = Conditional(plan)
    list(model.draw(model.sampling(), [4, 1, 8], batch_size=2))
    assert told == 7 * [[1, 1]] + 7 * [[2]]
    told.clear()
    list(model.draw(model.sampling(label="ring"), [4, 2], batch_size=2))
    assert told == 7 * [[1, 1]]
    assert model.class_names == ("disc", "ring", "square")
    for label in (2, "2", "square"):
        assert model.labels(model.sampling(label=label), [0, 1]) == [2, 2]
    assert model.labels(model.sampling(), [0, 4]) == [0, 1]
    assert model.labels(model.sampling(label=[2, "disc"]), [0, 1, 2]) == [2, 0, 2]
    for wrong, message in (("rings", "did you mean 'ring'"), ("-1", "no label '-1'"),
                           (3, "label 3 is none of its numbers"), ("3", "label '3' is none of its"),
                           (-1, "label -1 is none of its numbers")):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            model.sampling(label=wrong)
    with pytest.raises(ConfigError, match="the model is told none"):
        Known(plan).sampling(label=0)


def test_a_name_comes_before_a_number():
    class Digits(Known):
        conditions = Conditions([Condition("label", "label", ("1", "0"))])

    model = Digits(None)
    settings = model.sampling(label=["0", "1", 0, 1])
    assert model.labels(settings, range(4)) == [1, 0, 0, 1]
