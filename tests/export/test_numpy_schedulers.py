"""The numpy schedulers against those of diffusers, over whole trajectories."""

import numpy as np
import pytest
import ssmdiff
import torch
from ssmdiff.diffusion.betas import make_betas
from ssmdiff.errors import ConfigError
from ssmdiff_export.runtime.schedulers import build_scheduler

T = 1000
OPTIONS = {
    "ddpm": [{}, {"variance": "fixed_large"}, {"clip_sample": False}],
    "ddim": [{}, {"clip_sample": False}],
    "dpmpp": [{"order": n, "karras": k} for n in (1, 2, 3) for k in (False, True)],
    "euler": [{}, {"karras": True}],
    "heun": [{}, {"karras": True}],
}
TABLES = [{"name": name, **options} for name, choices in OPTIONS.items() for options in choices]
IDS = ["-".join(map(str, table.values())) for table in TABLES]


def network(betas, prediction, x, t):
    """Something like a denoiser of images around a wave: smooth in x and in t, in float64."""
    alpha_bar = np.interp(t, np.arange(len(betas)), np.cumprod(1 - betas))
    alpha, sigma = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)
    wave = 0.9 * np.sin(np.arange(x[0].size)).reshape(x[0].shape)
    x_0 = wave + 0.3 * np.tanh((x - alpha * wave) * alpha / (alpha_bar + sigma**2))
    eps = (x - alpha * x_0) / sigma
    return {"epsilon": eps, "sample": x_0, "v_prediction": alpha * eps - sigma * x_0}[prediction]


def first_and_step_noise(steps):
    rng = np.random.default_rng(0)
    return rng.standard_normal((steps + 1, 2, 1, 4, 4), dtype=np.float32)


def of_diffusers(table, betas, prediction, steps, noise):
    scheduler = ssmdiff.create("scheduler", table, betas=betas, prediction_type=prediction)
    scheduler.set_timesteps(steps)
    x = torch.from_numpy(noise[0]) * float(scheduler.init_noise_sigma)
    places, path = [], [x.numpy()]
    for i, t in enumerate(scheduler.timesteps):
        seen = scheduler.scale_model_input(x, t)
        output = network(betas, prediction, seen.double().numpy(), float(t)).astype(np.float32)
        random = {"noise": torch.from_numpy(noise[i + 1])} if table["name"] == "ddpm" else {}
        x = scheduler.step(torch.from_numpy(output), t, x, **random).prev_sample
        places.append(float(t))
        path.append(x.numpy())
    return places, path


def of_numpy(table, betas, prediction, steps, noise):
    scheduler = build_scheduler(table, betas, prediction, steps)
    x = noise[0] * np.float32(scheduler.initial_scale)
    path = [x]
    for i, t in enumerate(scheduler.timesteps):
        seen = scheduler.scaled(x, i)
        output = network(betas, prediction, seen.astype(np.float64), float(t)).astype(np.float32)
        x = scheduler.step(output, i, x, noise[i + 1] if scheduler.random else None)
        path.append(x)
    return scheduler.timesteps, path


@pytest.mark.parametrize("steps", [1, 2, 7, 50, 333])
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("table", TABLES, ids=IDS)
def test_a_trajectory_is_that_of_diffusers(table, prediction, steps):
    betas = make_betas("linear", T)
    noise = first_and_step_noise(2 * steps)
    places, expected = of_diffusers(table, betas, prediction, steps, noise)
    own_places, path = of_numpy(table, betas, prediction, steps, noise)
    np.testing.assert_allclose(own_places, places, rtol=1e-5, atol=1e-4)
    # At T - 1 the rounding of the network's answer is multiplied by 1 / alpha = 157.
    within = 1e-5 if steps > 2 else 3e-5
    for step, (mine, theirs) in enumerate(zip(path, expected, strict=True)):
        assert mine.dtype == np.float32
        scale = max(1.0, np.abs(theirs).max())
        assert np.abs(mine - theirs).max() <= within * scale, f"after {step} calls"


@pytest.mark.parametrize("schedule", ["scaled_linear", "cosine", "sigmoid"])
@pytest.mark.parametrize("table", TABLES, ids=IDS)
def test_every_beta_schedule_ends_where_diffusers_ends(table, schedule):
    if schedule == "cosine" and table["name"] == "dpmpp" and table["karras"]:
        pytest.skip("the library itself fails: its first two timesteps round to the same one")
    betas = make_betas(schedule, 300)
    noise = first_and_step_noise(40)
    _, expected = of_diffusers(table, betas, "v_prediction", 20, noise)
    _, path = of_numpy(table, betas, "v_prediction", 20, noise)
    np.testing.assert_allclose(path[-1], expected[-1], rtol=0, atol=1e-5)


def test_a_scheduler_without_a_numpy_form_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"'unipc' has no numpy form; .*ddpm, ddim.*diffusers"):
        build_scheduler({"name": "unipc"}, make_betas("linear", 10), "epsilon", 5)


def test_a_misspelt_option_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="'euler' has no option 'karas'; did you mean 'karras'"):
        build_scheduler({"name": "euler", "karas": True}, make_betas("linear", 10), "epsilon", 5)


@pytest.mark.parametrize(
    ("table", "steps", "message"),
    [
        ({"name": "ddim"}, 11, "11 steps are more than the 10 timesteps"),
        ({"name": "ddim"}, 0, "steps is 0"),
        ({"name": "ddpm", "variance": "learned"}, 5, "expected fixed_small or fixed_large"),
        ({"name": "dpmpp", "order": 4}, 5, "expected 1, 2 or 3"),
    ],
)
def test_values_out_of_range_are_refused(table, steps, message):
    with pytest.raises(ConfigError, match=message):
        build_scheduler(table, make_betas("linear", 10), "epsilon", steps)
