"""Every scheduler against the closed form of a Gaussian, whose exact denoiser is known."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import ssmdiff
import torch
from gaussian import bold_then_blind
from ssmdiff.diffusion.betas import make_betas
from ssmdiff.diffusion.process import Diffusion
from ssmdiff.diffusion.schedulers import SCHEDULERS
from ssmdiff.errors import ConfigError

MEAN, SPREAD = 0.1, 0.25
TABLES = [
    {"name": "ddpm"},
    {"name": "ddpm", "variance": "fixed_large"},
    {"name": "ddpm", "clip_sample": False},
    {"name": "ddim"},
    {"name": "ddim", "clip_sample": False},
    {"name": "ddim", "eta": 0.5},
    *({"name": name, "order": n, "karras": k}
      for name in ("dpmpp", "unipc") for n in (1, 2, 3) for k in (False, True)),
    *({"name": name, "karras": k} for name in ("euler", "heun") for k in (False, True)),
]  # fmt: skip
UNEVEN = (7, 30, 300, 501)
"""Steps that do not divide T = 1000; 10, 50 and 250 do."""


def name_of(table):
    return "-".join(map(str, table.values()))


def places(steps):
    """The timesteps that the network is told, by integers: t + 1 is the nearest to T k / steps."""
    return [round(1000 * k / steps) - 1 for k in range(steps, 0, -1)]


# Exact numbers: every step is affine in x, so mean and variance are known at every number of steps


@pytest.mark.parametrize("steps", [10, 50, 250, *UNEVEN])
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_ddim_gives_the_spread_of_its_equation(steps, prediction, gaussian):
    """Eq. 12 of Song et al. by hand: sigma of the data's posterior mean and noise, step by step."""
    data = gaussian(prediction=prediction)
    spread = 1.0
    for t, u in zip(places(steps), [*places(steps)[1:], None], strict=True):
        now, then = data.alpha_bar[t], 1.0 if u is None else data.alpha_bar[u]
        of_x0 = np.sqrt(now) * SPREAD**2 / (now * SPREAD**2 + 1 - now)
        of_e = (1 - np.sqrt(now) * of_x0) / np.sqrt(1 - now)
        spread *= np.sqrt(then) * of_x0 + np.sqrt(1 - then) * of_e
    x = np.linspace(-2, 2, 101)
    images = data.walk({"name": "ddim", "clip_sample": False}, steps, x)
    assert np.polyfit(x, images, 1)[0] == pytest.approx(spread, rel=1e-9)


@pytest.mark.parametrize(("steps", "spread"), [(300, 0.245), (501, 0.247)])
def test_ddim_gives_the_spread_that_it_should_where_it_gave_another(steps, spread, gaussian):
    """With T // steps back instead of the next timestep it was 0.282 and 0.478."""
    assert gaussian().walk({"name": "ddim"}, steps).std() == pytest.approx(spread, abs=0.002)


@pytest.mark.parametrize("steps", [10, 50, 250, *UNEVEN])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_ddpm_gives_the_variance_of_its_equation(steps, variance, gaussian):
    """q(x_u | x_t, x_0) as the product of two densities, by their precisions."""
    data = gaussian()
    total = 1.0
    for t, u in zip(places(steps), [*places(steps)[1:], None], strict=True):
        now, then = data.alpha_bar[t], 1.0 if u is None else data.alpha_bar[u]
        of_x0 = np.sqrt(now) * SPREAD**2 / (now * SPREAD**2 + 1 - now)
        if u is None:
            total *= of_x0**2
            continue
        # N(x_t; sqrt(a) x_u, 1 - a) times N(x_u; sqrt(then) x_0, 1 - then)
        a = now / then
        precision = a / (1 - a) + 1 / (1 - then)
        slope = (np.sqrt(a) / (1 - a) + np.sqrt(then) * of_x0 / (1 - then)) / precision
        added = 1 / precision if variance == "fixed_small" else 1 - a
        total = slope**2 * total + added
    table = {"name": "ddpm", "variance": variance, "clip_sample": False}
    assert data.walk(table, steps).std() == pytest.approx(np.sqrt(total), rel=0.01)


@pytest.mark.parametrize(
    "steps",
    [pytest.param(250, marks=pytest.mark.slow), 300, pytest.param(501, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("table", TABLES, ids=name_of)
def test_every_scheduler_draws_the_data(table, prediction, steps, gaussian):
    images = gaussian(prediction=prediction).walk(
        table, steps, np.random.default_rng(1).standard_normal(20_000)
    )
    assert images.mean() == pytest.approx(MEAN, abs=0.01)
    assert images.std() == pytest.approx(SPREAD, rel=0.06)


@pytest.mark.parametrize("schedule", ["scaled_linear", "cosine", "sigmoid"])
@pytest.mark.parametrize("table", TABLES, ids=name_of)
def test_every_scheduler_walks_every_process(table, schedule, gaussian):
    images = gaussian(prediction="v_prediction", schedule=schedule).walk(table, 300)
    assert images.mean() == pytest.approx(MEAN, abs=0.02)
    assert images.std() == pytest.approx(SPREAD, rel=0.08)


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "cosine", "sigmoid"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_process_is_the_one_that_is_trained(name, schedule):
    diffusion = Diffusion(make_betas(schedule, 1000))
    scheduler = ssmdiff.make_scheduler({"name": name}, diffusion.betas, "epsilon")
    np.testing.assert_allclose(scheduler.alpha_bar, diffusion.alpha_bar, rtol=1e-4)


# How fast the error falls: the claimed order is the measured one


@pytest.mark.parametrize(
    ("table", "order"),
    [
        ({"name": "euler"}, 1),
        ({"name": "dpmpp", "order": 1}, 1),
        ({"name": "dpmpp", "order": 2}, 2),
        # NOTE(paper): with D2 as published it is no third order; the last difference counts half.
        ({"name": "dpmpp", "order": 3}, 2),
        ({"name": "unipc", "order": 1}, 2),  # the corrector adds one
        ({"name": "unipc", "order": 2}, 3),
        ({"name": "unipc", "order": 3}, 4),
        ({"name": "heun"}, 2),
    ],
    ids=str,
)
def test_the_error_falls_with_the_order_of_the_method(table, order, gaussian):
    """From a level to another, without the last step, which is of first order for all of them."""
    data = gaussian()

    def error(steps):
        scheduler = data.scheduler(table)
        scheduler.set_timesteps(steps)
        x = np.ones(1) * scheduler.initial_scale
        calls = [(i, t) for i, t in enumerate(scheduler.timesteps) if t >= 499.5]
        for i, t in calls:
            x = scheduler.step(data(scheduler.scaled(x, i), t), i, x, None)
        if table["name"] == "unipc":  # the corrected sample of the next call
            i = len(calls)
            scheduler.step(data(x, scheduler.timesteps[i]), i, x, None)
            x = scheduler.start
        end = data.at(scheduler.timesteps[len(calls)])
        if table["name"] in ("euler", "heun"):
            x = x * np.sqrt(end)
        return float(abs(x - exact(data, end))[0])

    def exact(data, end):
        """The probability flow keeps the quantile: x = mean + z spread of the marginal."""
        first = data.alpha_bar[-1]
        z = (1 - np.sqrt(first) * MEAN) / np.sqrt(first * SPREAD**2 + 1 - first)
        if table["name"] in ("euler", "heun"):  # whose first x is scaled by s, not by sqrt(s^2 + 1)
            z = (np.sqrt(1 - first) - np.sqrt(first) * MEAN) / np.sqrt(
                first * SPREAD**2 + 1 - first
            )
        return np.sqrt(end) * MEAN + z * np.sqrt(end * SPREAD**2 + 1 - end)

    measured = np.log2(error(50) / error(100))
    assert measured == pytest.approx(order, abs=0.3)


# No noise in the last step, no drift, and the pairs that are equal


@pytest.mark.parametrize("steps", [1, 10, 30, 300])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_the_last_step_of_ddpm_leaves_no_noise(variance, steps, gaussian):
    """Told by t == 0, ``fixed_large`` left noise of spread 0.32 at 10 steps, whose last t is 99."""
    known = gaussian(spread=0.0)
    images = known.walk({"name": "ddpm", "variance": variance}, steps)
    np.testing.assert_allclose(images, MEAN, atol=1e-9)


def test_the_mean_does_not_drift_with_the_steps_where_x_0_is_clipped(gaussian):
    """With eps of the unclipped x_0 each clipped step shifts the image: see the library's below."""
    means = [bold_then_blind(gaussian().scheduler({"name": "ddim"}), n) for n in (25, 50, 100)]
    np.testing.assert_allclose(means, means[0], atol=1e-9)
    assert means[0] == pytest.approx(-0.9, abs=0.05)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("steps", [1, 10, 30, 501])
def test_ddim_at_eta_1_is_ddpm_at_every_step(steps, clip, gaussian):
    data = gaussian(spread=0.9)
    ddim = data.scheduler({"name": "ddim", "eta": 1.0, "clip_sample": clip})
    ddpm = data.scheduler({"name": "ddpm", "clip_sample": clip})
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 1, 8, 8))
    assert ddim.random
    for scheduler in (ddim, ddpm):
        scheduler.set_timesteps(steps)
    for i, t in enumerate(ddim.timesteps):
        noise, output = rng.standard_normal(x.shape), data(x, t)
        following = ddim.step(output, i, x, noise)
        np.testing.assert_allclose(following, ddpm.step(output, i, x, noise), atol=1e-9)
        x = following


@pytest.mark.parametrize("table", TABLES, ids=name_of)
def test_numpy_and_torch_give_the_same(table, gaussian):
    data = gaussian()
    ours, theirs = data.scheduler(table), data.scheduler(table)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 1, 8, 8), dtype=np.float32)
    ours.set_timesteps(7)
    theirs.set_timesteps(7)
    x = x * ours.initial_scale
    y = torch.from_numpy(x)
    for i, t in enumerate(ours.timesteps):
        output = data(ours.scaled(x, i), t).astype(np.float32)
        noise = rng.standard_normal(x.shape, dtype=np.float32)
        y = theirs.step(torch.from_numpy(output), i, y, torch.from_numpy(noise))
        x = ours.step(output, i, x, noise)
        assert x.dtype == np.float32
        assert y.dtype == torch.float32
        np.testing.assert_allclose(x, y.numpy(), atol=1e-6 * max(1, np.abs(x).max()))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_begins_anew(name, gaussian):
    data = gaussian()
    scheduler = data.scheduler({"name": name})

    def walk(steps):
        scheduler.set_timesteps(steps)
        x = np.linspace(-1, 1, 5) * scheduler.initial_scale
        for i, t in enumerate(scheduler.timesteps):
            x = scheduler.step(data(scheduler.scaled(x, i), t), i, x, 0 * x)
        return x

    first = walk(6)
    walk(9)
    np.testing.assert_array_equal(walk(6), first)


# What cannot be done is refused in a sentence


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("steps", [0, 11, 2.0, True])
def test_steps_that_cannot_be_done_are_refused(name, steps):
    scheduler = ssmdiff.make_scheduler({"name": name}, make_betas("linear", 10), "epsilon")
    with pytest.raises(ConfigError, match=rf"steps is {steps}; expected .* from 1 to 10"):
        scheduler.set_timesteps(steps)


@pytest.mark.parametrize(
    ("betas", "message"),
    [
        (make_betas("linear", 20_000), r"alpha_bar is 1.17e-38 at timestep \d+ of 20000"),
        (np.array([0.0, 0.1]), "alpha_bar is 1 at timestep 0 of 2"),
        (np.array([0.1, -0.1]), "at timestep 1 of 2"),
        (np.array([0.1, 1.0]), "alpha_bar is 0 at timestep 1"),
        (np.array([0.1, np.nan]), "alpha_bar is nan at timestep 1"),
    ],
)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_process_that_cannot_be_walked_back_is_refused(name, betas, message):
    with pytest.raises(ConfigError, match=message):
        ssmdiff.make_scheduler({"name": name}, betas, "epsilon")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": "pndm"}, "'pndm' is not one of ddpm, ddim, dpmpp, unipc, euler, heun"),
        ({"name": "euler", "karas": True}, "no option 'karas'; did you mean 'karras'"),
        ({"name": "ddpm", "variance": "learned"}, "expected fixed_small or fixed_large"),
        ({"name": "dpmpp", "order": 4}, "order is 4; expected 1, 2 or 3"),
        ({"name": "unipc", "order": 0}, "order is 0; expected 1, 2 or 3"),
        ({"name": "ddim", "eta": 1.5}, "eta is 1.5; expected a number from 0 to 1"),
    ],
)
def test_options_out_of_range_are_refused(table, message):
    with pytest.raises(ConfigError, match=message):
        ssmdiff.make_scheduler(table, make_betas("linear", 10), "epsilon")


def test_a_misspelt_option_is_told_by_the_registry_as_well():
    with pytest.raises(ConfigError, match="did you mean 'karras'"):
        ssmdiff.create("scheduler", "euler", betas=make_betas("linear", 10),
                       prediction_type="epsilon", karas=True)  # fmt: skip


def test_orders_seeds_schedulers_and_the_loop_need_numpy_alone():
    code = """
        import sys
        for name in ("torch", "pluggy", "pydantic", "onnxruntime", "diffusers"):
            sys.modules[name] = None
        import numpy as np, ssmdiff
        from ssmdiff import OrderPlan, Scan, ScanOrder, ScanSlot, make_betas, make_scheduler, sample

        class Shuffle(Scan):
            stochastic = True
            def directions(self, dims):
                return 1
            def order(self, grid, generator=None):
                return ScanOrder(ssmdiff.permutation(generator, grid[0] * grid[1])[None])

        def denoise(x, timesteps, orders):
            return x.reshape(len(x), -1)[:, orders[0].index[0]].reshape(x.shape)

        plan = OrderPlan(Shuffle(), (ScanSlot((4, 4)),), 0)
        for name in ("ddpm", "ddim", "dpmpp", "unipc", "euler", "heun"):
            scheduler = make_scheduler({"name": name}, make_betas("cosine", 50), "v_prediction")
            images = sample(
                denoise, scheduler, plan, seed=3, shape=(1, 4, 4), indices=[0, 5], steps=4
            )
            assert images.shape == (2, 1, 4, 4) and images.dtype == np.float32, name
            print(name)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == list(SCHEDULERS)
