"""Every walk along a rectified flow against the closed form of a Gaussian, whose velocity is known.

For data N(MEAN, SPREAD^2), x_t is N((1 - t) MEAN, (1 - t)^2 SPREAD^2 + t^2), and the flow keeps the
quantile: an image is MEAN + SPREAD times its noise.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pytest
import ssmdiff
import torch
from ssmdiff.diffusion.courses import FillIn, FromImage
from ssmdiff.diffusion.flow_schedulers import FLOW_SCHEDULERS, shifted_times
from ssmdiff.diffusion.schedulers import SCHEDULERS
from ssmdiff.errors import ConfigError
from ssmdiff.testing.probes import ProbeScan

MEAN, SPREAD = 0.1, 0.25
TABLES = [
    {"name": "flow-euler"},
    {"name": "flow-heun"},
    *({"name": "flow-adams", "order": order} for order in (1, 2, 3)),
]


def velocity(x: Any, told: float) -> Any:
    """E[noise - x_0 | x_t], from the joint distribution of the three."""
    t = told / 1000
    variance = (1 - t) ** 2 * SPREAD**2 + t**2
    noise = t / variance * (x - (1 - t) * MEAN)
    image = MEAN + (1 - t) * SPREAD**2 / variance * (x - (1 - t) * MEAN)
    return noise - image


def walk(table: dict[str, Any], steps: int, x: Any, shift: float = 1.0) -> Any:
    scheduler = ssmdiff.make_flow_scheduler(table, shift)
    scheduler.set_timesteps(steps)
    for i, t in enumerate(scheduler.timesteps):
        x = scheduler.step(velocity(scheduler.scaled(x, i), t), i, x, None)
    return x


def slope_and_middle(table: dict[str, Any], steps: int, shift: float = 1.0) -> tuple[float, float]:
    """Every step is affine in x, so two points say all of it: the spread and the mean of images."""
    at_0, at_1 = (float(walk(table, steps, np.full(1, z), shift)[0]) for z in (0.0, 1.0))
    return at_1 - at_0, at_0


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize(
    ("table", "steps"),
    [({"name": "flow-euler"}, 2500), *((table, 100) for table in TABLES[1:])],
    ids=str,
)
def test_the_flow_of_a_gaussian_has_its_mean_and_variance_to_a_thousandth(
    table: dict[str, Any], steps: int, shift: float
) -> None:
    spread, mean = slope_and_middle(table, steps, shift)
    assert mean == pytest.approx(MEAN, abs=1e-3)
    assert spread**2 == pytest.approx(SPREAD**2, abs=1e-3)


@pytest.mark.parametrize(
    ("table", "order"), [*zip(TABLES, (1, 2, 2, 3, 3.5), strict=True)], ids=lambda value: str(value)
)
def test_the_error_falls_with_the_order_of_the_method(table: dict[str, Any], order: float) -> None:
    error = [abs(slope_and_middle(table, steps)[0] - SPREAD) for steps in (400, 800)]
    within = 0.5 if order == 3.5 else 0.15  # from 3 to 4: it starts with two answers
    assert np.log2(error[0] / error[1]) == pytest.approx(order, abs=within)


def test_euler_gives_the_spread_of_its_equation() -> None:
    """By hand: each step multiplies the deviation by 1 - h (t - (1 - t) s^2) / variance."""
    for steps in (1, 2, 7, 50):
        spread = 1.0
        for k in range(steps, 0, -1):
            t = k / steps
            variance = (1 - t) ** 2 * SPREAD**2 + t**2
            spread *= 1 - (t - (1 - t) * SPREAD**2) / variance / steps
        found, _ = slope_and_middle({"name": "flow-euler"}, steps)
        assert found == pytest.approx(spread, rel=1e-9)


def test_adams_weights_are_those_of_the_books_for_equal_steps() -> None:
    """Hairer, Norsett and Wanner, section III.1: 3/2, -1/2; 5, 8, -1 and 23, -16, 5 over 12."""
    from ssmdiff.diffusion.flow_schedulers import _integral

    assert _integral([0.5, 0.6], 0.5, 0.4) == pytest.approx([-0.15, 0.05])
    assert _integral([0.4, 0.5, 0.6], 0.5, 0.4) == pytest.approx([-5 / 120, -8 / 120, 1 / 120])
    assert _integral([0.5, 0.6, 0.7], 0.5, 0.4) == pytest.approx([-23 / 120, 16 / 120, -5 / 120])


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 25])
@pytest.mark.parametrize("table", TABLES, ids=str)
def test_a_walk_begins_at_1_and_ends_at_0(table: dict[str, Any], steps: int) -> None:
    """With one step, an odd number, any shift: the first call sees noise alone, the last answer
    leads to the image. One that knows noise and image is led there in a straight line."""
    for shift in (0.1, 1.0, 3.0):
        scheduler = ssmdiff.make_flow_scheduler(table, shift)
        scheduler.set_timesteps(steps)
        t = scheduler.timesteps
        calls = 2 * steps - 1 if table["name"] == "flow-heun" else steps
        assert len(t) == calls
        assert t[0] == 1000.0
        assert (np.diff(t) <= 0).all()
        assert t[-1] > 0
        wanted = [k / steps for k in range(steps, 0, -1)]
        wanted = [shift * u / (1 + (shift - 1) * u) for u in wanted]
        assert sorted(set((t / 1000).tolist()), reverse=True) == pytest.approx(wanted)
        noise, image = np.linspace(-2, 2, 5), np.linspace(-1, 1, 5)
        x = noise
        for i in range(len(t)):
            x = scheduler.step(noise - image, i, x, None)
        np.testing.assert_allclose(x, image, atol=1e-12)


def test_the_shift_is_that_of_the_paper_and_keeps_both_ends() -> None:
    """Eq. 23 of Esser et al.: sqrt(m / n) t / (1 + (sqrt(m / n) - 1) t)."""
    t = np.linspace(0, 1, 101)
    for shift in (0.1, 0.5, 1.0, 3.0):
        found = shifted_times(t, shift)
        np.testing.assert_allclose(found, shift * t / (1 + (shift - 1) * t), atol=1e-15)
        assert (found[0], found[-1]) == (0.0, 1.0)


def test_a_shift_of_the_walk_stands_for_that_of_training() -> None:
    given = ssmdiff.make_flow_scheduler({"name": "flow-euler", "shift": 3.0}, 1.5)
    trained = ssmdiff.make_flow_scheduler({"name": "flow-euler"}, 3.0)
    for scheduler in (given, trained):
        scheduler.set_timesteps(5)
    np.testing.assert_array_equal(given.timesteps, trained.timesteps)


@pytest.mark.parametrize("table", TABLES[2:], ids=str)
def test_a_walk_that_is_entered_later_forgets_the_calls_before(table: dict[str, Any]) -> None:
    """From call 40 of 80 on, x on the exact path ends at the image, whatever was called before."""
    scheduler = ssmdiff.make_flow_scheduler(table, 1.0)
    scheduler.set_timesteps(80)
    scheduler.step(np.full(1, 1e6), 0, np.ones(1), None)
    t = scheduler.timesteps[40] / 1000
    x = (1 - t) * MEAN + np.sqrt((1 - t) ** 2 * SPREAD**2 + t**2) * np.ones(1)
    for i in range(40, 80):
        x = scheduler.step(velocity(x, scheduler.timesteps[i]), i, x, None)
    assert float(x[0]) == pytest.approx(MEAN + SPREAD, abs=1e-3)


@pytest.mark.parametrize("table", TABLES, ids=str)
def test_numpy_and_torch_give_the_same_and_a_walk_begins_anew(table: dict[str, Any]) -> None:
    x = np.random.default_rng(0).standard_normal((2, 1, 4, 4), dtype=np.float32)
    ours, theirs = walk(table, 7, x), walk(table, 7, torch.from_numpy(x))
    assert theirs.dtype == torch.float32
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-6)
    scheduler = ssmdiff.make_flow_scheduler(table, 1.0)

    def again(steps: int) -> Any:
        scheduler.set_timesteps(steps)
        y = x
        for i, t in enumerate(scheduler.timesteps):
            y = scheduler.step(velocity(y, t).astype(np.float32), i, y, None)
        return y

    first = again(6)
    again(9)
    np.testing.assert_array_equal(again(6), first)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": "ddim"}, "'ddim' walks back the process 'diffusion'.*'rectified-flow'; expected "
         "one of flow-euler, flow-heun, flow-adams"),
        ({"name": "pndm"}, "'pndm' is not one of flow-euler, flow-heun, flow-adams"),
        ({"name": "flow-adams", "ordr": 2}, "no option 'ordr'; did you mean 'order'"),
        ({"name": "flow-euler", "trained_shift": 2}, "no option 'trained_shift'"),
        ({"name": "flow-adams", "order": 4}, "order is 4; expected 1, 2 or 3"),
        ({"name": "flow-euler", "shift": 0.0}, "shift is 0.0; expected a number above 0"),
        ({"name": "flow-euler", "shift": -1}, "shift is -1.0; expected a number above 0"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ssmdiff.make_flow_scheduler(table, 1.0)


@pytest.mark.parametrize("name", FLOW_SCHEDULERS)
def test_a_diffusion_refuses_a_flows_and_names_its_own(name: str) -> None:
    known = ", ".join(SCHEDULERS)
    with pytest.raises(ConfigError, match=f"'rectified-flow', .*'diffusion'; .* {known}"):
        ssmdiff.make_scheduler({"name": name}, ssmdiff.make_betas("linear", 10), "epsilon")
    with pytest.raises(ConfigError, match=r"'diffusion'; expected one of ddim, ddpm, .*dpmpp"):
        ssmdiff.create_scheduler({"name": name}, "diffusion")


@pytest.mark.parametrize("steps", [0, 100_001, 2.0, True])
def test_steps_that_cannot_be_done_are_refused(steps: Any) -> None:
    scheduler = ssmdiff.make_flow_scheduler({"name": "flow-euler"}, 1.0)
    with pytest.raises(ConfigError, match=r"steps is .*; expected .* from 1 to 100,000"):
        scheduler.set_timesteps(steps)


def test_walks_along_a_flow_need_numpy_alone() -> None:
    code = """
        import sys
        for name in ("torch", "pluggy", "pydantic", "onnxruntime", "diffusers"):
            sys.modules[name] = None
        import numpy as np
        from ssmdiff import make_flow_scheduler
        for name in ("flow-euler", "flow-heun", "flow-adams"):
            scheduler = make_flow_scheduler({"name": name}, 2.0)
            scheduler.set_timesteps(3)
            x = np.ones((2, 1, 4, 4), np.float32)
            for i, t in enumerate(scheduler.timesteps):
                x = scheduler.step(0.5 * x, i, x, None)
            print(name, x.dtype)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [word for name in FLOW_SCHEDULERS for word in (name, "float32")]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: "-".join(map(str, table.values())))
def test_marks_say_what_the_sample_is_there(table):
    """With the velocity of a known image and noise as its answer it is on the line between."""
    scheduler = ssmdiff.make_flow_scheduler(table, 2.0)
    scheduler.set_timesteps(7)
    *marks, end = scheduler.marks()
    assert end == (len(scheduler.timesteps), 1.0, 0.0)
    assert len(marks) == 7
    x_0, e = 0.3, np.random.default_rng(0).standard_normal(50)
    for first in (0, 3):  # entered there, nothing of an earlier walk is left
        x, ahead = marks[first].alpha * x_0 + marks[first].sigma * e, marks[first:]
        for i in range(marks[first].call, len(scheduler.timesteps)):
            if ahead and ahead[0].call == i:
                mark, *ahead = ahead
                assert scheduler.timesteps[i] == pytest.approx(1000 * mark.sigma)
                np.testing.assert_allclose(x, mark.alpha * x_0 + mark.sigma * e, atol=1e-9)
            x = scheduler.step(e - x_0, i, x, None)
        np.testing.assert_allclose(x, x_0, atol=1e-9)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: "-".join(map(str, table.values())))
def test_images_are_begun_and_filled_in_along_a_flow(table):
    """From samples of a Gaussian with noise on them it comes out again; known pixels to the bit."""
    images = MEAN + SPREAD * np.random.default_rng(1).standard_normal((64, 1, 8, 8))
    images = images.clip(-1, 1).astype(np.float32)
    plan = ssmdiff.OrderPlan(ProbeScan(), (ssmdiff.ScanSlot((4, 4)),), seed=0)

    def drawn(course):
        return ssmdiff.sample(
            lambda x, told, orders: velocity(x, told[:, None, None, None]).astype(np.float32),
            ssmdiff.make_flow_scheduler(table, 1.0), plan, seed=3, shape=(1, 8, 8),
            indices=range(64), steps=100, course=course,
        )  # fmt: skip

    for strength in (0.1, 0.5, 1.0):
        found = drawn(FromImage(images, strength))
        assert found.mean() == pytest.approx(MEAN, abs=0.02)
        assert found.std() == pytest.approx(SPREAD, rel=0.06), strength
    unknown = np.zeros((64, 1, 8, 8), bool)
    unknown[..., :4] = True
    found = drawn(FillIn(images, unknown, repeats=2))
    np.testing.assert_array_equal(found[~unknown], images[~unknown])
    assert found[unknown].std() == pytest.approx(SPREAD, rel=0.06)
    assert np.abs(found - images)[unknown].mean() > 0.1
