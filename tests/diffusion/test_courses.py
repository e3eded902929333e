"""Walks that begin at an image or fill one in: what is known to the bit, known distributions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from gaussian import Gaussian
from ssmdiff.diffusion.courses import FillIn, FromImage, FromNoise, there_and_back
from ssmdiff.diffusion.denoisers import TorchDenoiser
from ssmdiff.diffusion.sampling import sample
from ssmdiff.diffusion.schedulers import SCHEDULERS
from ssmdiff.errors import ConfigError

SHAPE = (1, 6, 4)
DATA = Gaussian()
IMAGES = np.random.default_rng(5).uniform(-1, 1, (3, *SHAPE)).astype(np.float32)
UNKNOWN = np.zeros((3, *SHAPE), bool)
UNKNOWN[:, :, :3] = True


def denoise(x, timesteps, orders):
    return DATA(x, timesteps).astype(np.float32)


def draw(plan, course, name="ddim", denoiser=denoise, steps=10, seed=7, indices=(0, 1, 2), **more):
    scheduler = DATA.scheduler({"name": name})
    return sample(
        denoiser, scheduler, plan, seed=seed, shape=SHAPE, indices=indices, steps=steps,
        course=course, **more,
    )  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_course_from_noise_is_the_loop_as_it_always_was(name, plan):
    np.testing.assert_array_equal(draw(plan, FromNoise(), name), draw(plan, None, name))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_marks_say_what_the_sample_is_there(name):
    """With the noise of a known image as its answer, every scheduler is at alpha x_0 + sigma e."""
    scheduler = DATA.scheduler({"name": name})
    scheduler.random = False
    scheduler.set_timesteps(7)
    *marks, end = scheduler.marks()
    assert end == (len(scheduler.timesteps), 1.0, 0.0)
    assert len(marks) == 7
    x_0, e = 0.3, np.random.default_rng(0).standard_normal(50)
    x, reached = marks[0].alpha * x_0 + marks[0].sigma * e, 0
    for i, t in enumerate(scheduler.timesteps):
        if marks[reached].call == i:
            mark, reached = marks[reached], min(reached + 1, len(marks) - 1)
            if name == "ddpm":  # which draws noise of its own, and is at the mark in distribution
                x = mark.alpha * x_0 + mark.sigma * e
            np.testing.assert_allclose(x, mark.alpha * x_0 + mark.sigma * e, atol=1e-5 * mark.sigma)
            seen = scheduler.scaled(x, i)  # an x_t of the forward process
            a = DATA.at(t)
            np.testing.assert_allclose(seen, np.sqrt(a) * x_0 + np.sqrt(1 - a) * e, atol=1e-5)
        x = scheduler.step(e, i, x, 0 * e)
    np.testing.assert_allclose(x, x_0, atol=1e-5)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_what_was_before_a_mark_is_forgotten(name):
    """Gone back to, a mark is as in a run that begins there, as long as calls are remembered."""
    rng = np.random.default_rng(2)
    used, fresh = (DATA.scheduler({"name": name}) for _ in range(2))
    for scheduler in (used, fresh):
        scheduler.set_timesteps(8)
    for i in range(7):
        used.step(*rng.standard_normal((1, 5)), i, *rng.standard_normal((2, 5)))
    start = used.marks()[3].call
    x = [rng.standard_normal(5)] * 2
    for i in range(start, start + 4):
        output, noise = rng.standard_normal((2, 5))
        x = [s.step(output, i, y, noise) for s, y in zip((used, fresh), x, strict=True)]
        np.testing.assert_array_equal(*x)


# From an image


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_walk_may_begin_at_every_mark(name, plan):
    """With the exact denoiser of a Gaussian, from samples of it with noise on them, the Gaussian
    comes out again at any strength."""
    images = (0.1 + 0.25 * np.random.default_rng(1).standard_normal((64, 1, 8, 8))).clip(-1, 1)
    for strength in (0.1, 0.5, 1.0):
        scheduler = DATA.scheduler({"name": name})
        found = sample(
            denoise, scheduler, plan, seed=3, shape=(1, 8, 8), indices=range(64), steps=250,
            course=FromImage(images.astype(np.float32), strength),
        )  # fmt: skip
        assert found.mean() == pytest.approx(0.1, abs=0.02)
        assert found.std() == pytest.approx(0.25, rel=0.06), (name, strength)


def test_a_weak_walk_stays_near_the_image_and_a_strong_one_leaves_it(plan):
    near = {
        s: float(np.abs(draw(plan, FromImage(IMAGES, s), steps=50) - IMAGES).mean())
        for s in (0.02, 0.2, 0.5, 1.0)
    }
    away = list(near.values())
    assert away == sorted(away)
    assert away[0] < 0.1
    assert away[-1] > 0.4


@pytest.mark.parametrize(
    ("strength", "steps", "calls"), [(0.6, 10, 6), (0.01, 10, 1), (1.0, 10, 10), (0.25, 10, 3)]
)
def test_the_strength_is_the_share_of_the_steps(strength, steps, calls, plan):
    seen = []

    def network(x, t, orders):
        seen.append(float(t[0]))
        return denoise(x, t, orders)

    draw(plan, FromImage(IMAGES, strength), denoiser=network, steps=steps)
    assert seen == [999 - 100 * i for i in range(10)][-calls:]


@pytest.mark.parametrize("strength", [0.0, -0.5, 1.01])
def test_a_strength_out_of_range_is_refused(strength):
    with pytest.raises(ConfigError, match="expected more than 0, and at most 1"):
        FromImage(IMAGES, strength)


# Filling in


def fill(repeats=3, jump=2):
    return FillIn(IMAGES, UNKNOWN[:, :1], repeats, jump)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_what_is_known_is_kept_to_the_bit_and_the_rest_is_drawn(name, plan):
    found = draw(plan, fill(), name)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[~UNKNOWN], IMAGES[~UNKNOWN])
    other = draw(plan, fill(), name, seed=8)
    assert np.abs(found - other)[UNKNOWN].min() > 0
    assert np.abs(found - IMAGES)[UNKNOWN].mean() > 0.1


@pytest.mark.parametrize("name", ["ddpm", "dpmpp", "heun"])
def test_tensors_give_the_same_images(name, plan):
    def on_tensors(x, timesteps, orders):
        return torch.from_numpy(denoise(x.numpy(), timesteps.numpy(), orders))

    found = draw(plan, fill(), name, TorchDenoiser(on_tensors))
    np.testing.assert_allclose(found.numpy(), draw(plan, fill(), name), atol=2e-5)
    np.testing.assert_array_equal(found.numpy()[~UNKNOWN], IMAGES[~UNKNOWN])


def test_an_image_depends_on_seed_and_index_alone(plan):
    together = draw(plan, fill())
    np.testing.assert_allclose(draw(plan, fill(), indices=[2]), together[2:], atol=1e-6)
    course = fill()  # one for several batches
    np.testing.assert_allclose(draw(plan, course, indices=[0]), together[:1], atol=1e-6)
    np.testing.assert_allclose(draw(plan, course, indices=[1, 2]), together[1:], atol=1e-6)
    again = draw(plan, fill(), indices=[5])  # begins with the first images again
    np.testing.assert_array_equal(again[~UNKNOWN[:1]], IMAGES[2:][~UNKNOWN[:1]])


class Line:
    """Images of which all pixels are one number z of N(0, 0.4^2), with noise of 0.1 on each.

    Given some pixels, the others are a Gaussian that is known, and so is the denoiser: x_t is a
    Gaussian with the covariance alpha_bar C + (1 - alpha_bar) 1, so eps = sigma cov^-1 x_t.
    """

    def __init__(self, pixels):
        self.covariance = 0.16 * np.ones((pixels, pixels)) + 0.01 * np.eye(pixels)

    def __call__(self, x, timesteps, orders):
        a = DATA.at(float(timesteps[0]))
        at = a * self.covariance + (1 - a) * np.eye(len(self.covariance))
        flat = x.reshape(len(x), -1).astype(np.float64)
        eps = np.sqrt(1 - a) * np.linalg.solve(at, flat.T).T
        return eps.reshape(x.shape).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpmpp"])
def test_going_back_brings_the_filled_part_to_what_is_known(name, plan):
    """Half of the pixels are 0.5: the others are N(0.49, 0.1^2 and a little), and RePaint comes
    nearer to it the more often it goes back, as its authors show."""
    pixels, count = 8, 200
    line = Line(pixels)
    known = np.full((count, 1, 1, pixels), 0.5, np.float32)
    unknown = np.zeros(known.shape, bool)
    unknown[..., 4:] = True
    inverse = np.linalg.inv(line.covariance[:4, :4])
    expected = line.covariance[4:, :4] @ inverse @ np.full(4, 0.5)
    off = {}
    for repeats in (1, 10):
        scheduler = DATA.scheduler({"name": name})
        found = sample(
            line, scheduler, plan, seed=1, shape=(1, 1, pixels), indices=range(count), steps=25,
            course=FillIn(known, unknown, repeats, 2),
        )  # fmt: skip
        off[repeats] = float(np.abs(found[..., 4:].mean((0, 1, 2)) - expected).max())
    print(name, off, expected)
    assert off[10] < 0.06
    assert off[10] < 0.6 * off[1]


@pytest.mark.parametrize(("steps", "repeats", "jump"), [(10, 3, 2), (25, 10, 5), (7, 2, 1)])
def test_the_walk_is_that_of_the_authors(steps, repeats, jump):
    """``get_schedule_jump`` of github.com/andreas128/RePaint, written again, which counts what is
    to go: each step down by one, each jump up as many."""
    jumps = dict.fromkeys(range(0, steps - jump, jump), repeats - 1)
    t, theirs = steps, []
    while t >= 1:
        t = t - 1
        theirs.append(t)
        if jumps.get(t, 0) > 0:
            jumps[t] = jumps[t] - 1
            for _ in range(jump):
                t = t + 1
                theirs.append(t)
    ours, path = [], there_and_back(steps, repeats, jump)
    for before, now in itertools.pairwise(path):
        ours += [now] if now > before else range(before - 1, now - 1, -1)
    assert [steps - k for k in ours] == theirs


def test_repeats_and_jumps_below_one_are_refused():
    with pytest.raises(ConfigError, match="repeats is 0; expected at least 1"):
        fill(repeats=0)
    with pytest.raises(ConfigError, match="jump is 0; expected at least 1"):
        fill(jump=0)


def test_a_scheduler_without_marks_is_refused_by_name(plan):
    class Stranger:
        def set_timesteps(self, steps):
            self.timesteps = np.arange(steps, 0, -1.0)

    with pytest.raises(ConfigError, match="Stranger does not say where a walk may begin"):
        sample(
            denoise, Stranger(), plan, seed=0, shape=SHAPE, indices=[0], steps=2,
            course=FromImage(IMAGES[:1], 0.5),
        )  # fmt: skip
