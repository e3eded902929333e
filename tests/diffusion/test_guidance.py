"""Guidance: against the score of two Gaussians with labels, and against the formulas of others."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from ssmdiff.diffusion.betas import make_betas
from ssmdiff.diffusion.denoisers import TorchDenoiser
from ssmdiff.diffusion.guidance import Guidance, GuidedDenoiser, combined, timesteps_inside
from ssmdiff.diffusion.making import make_scheduler
from ssmdiff.diffusion.schedulers import SCHEDULERS
from ssmdiff.errors import ConfigError

MEANS, SPREAD, SHARES = (-0.3, 0.4), 0.2, (0.25, 0.75)
ALPHA_BAR = np.cumprod(1 - make_betas("linear", 1000))
SHAPE = (1, 2, 3)
LABELS = np.eye(3, dtype=np.float64)  # the first class, the second, left out
WALK = np.array([900.0, 700, 500, 300, 100])


def log_density(x, t, label):
    """log p(x_t) of images whose pixels are all of one Gaussian, (B,); label None leaves it out."""
    a = torch.from_numpy(ALPHA_BAR[t.astype(int)])
    variance = a * SPREAD**2 + 1 - a
    logs = []
    for mean, share in zip(MEANS, SHARES, strict=True):
        away = x.flatten(1) - (a.sqrt() * mean)[:, None]
        each = -(away**2 / variance[:, None] + torch.log(2 * math.pi * variance)[:, None]) / 2
        logs.append(each.sum(1) + math.log(share))
    both = torch.stack(logs)
    if label is None:
        return torch.logsumexp(both, 0)
    return both.gather(0, label[None])[0]


def noise_of(x, t, told):
    """The network: -sigma times the gradient of the density that it is told, by hand.

    The gradient of a Gaussian is (alpha mean - x) / variance; of a mixture the mean of these, by
    the share that each class has in what is seen.
    """
    a = ALPHA_BAR[t.astype(int)].reshape(-1, 1, 1, 1)
    variance = a * SPREAD**2 + 1 - a
    scores = np.stack([(np.sqrt(a) * mean - x) / variance for mean in MEANS])
    logs = np.stack(
        [
            -((x - np.sqrt(a) * mean) ** 2 / (2 * variance)).sum((1, 2, 3)) + math.log(share)
            for mean, share in zip(MEANS, SHARES, strict=True)
        ]
    )
    weights = np.exp(logs - logs.max(0))
    weights /= weights.sum(0)
    chosen = told[:, :2].T + told[:, 2] * weights
    score = (chosen[:, :, None, None, None] * scores).sum(0)
    return -np.sqrt(1 - a) * score


class Network:
    """A denoiser of numpy arrays or of tensors that notes how often it was called, and for whom."""

    def __init__(self):
        self.rows = []

    def __call__(self, x, timesteps, orders, context):
        self.rows.append(len(x))
        found = noise_of(*(np.asarray(one, np.float64) for one in (x, timesteps, context)))
        return torch.from_numpy(found) if isinstance(x, torch.Tensor) else found


class Tensors(Network):
    """The same, which asks for tensors."""

    def asarray(self, values):
        return torch.from_numpy(values)


def given(count=4, seed=0):
    """x_t, timesteps, and the classes of some images in turn."""
    x = np.random.default_rng(seed).standard_normal((count, *SHAPE))
    return x, np.full(count, 500.0), LABELS[np.arange(count) % 2]


def without(count=4):
    return [LABELS[np.full(count, 2)]]


@pytest.mark.parametrize("calls", [1, 2])
@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0, 7.5])
@pytest.mark.parametrize("kind", [Network, Tensors])
def test_the_guided_noise_is_that_of_the_density_with_powers(kind, scale, calls):
    """p(x)^(1 - s) p(x, label)^s, its gradient by autograd."""
    x, t, told = given()
    network = kind()
    guided = GuidedDenoiser(network, Guidance(scale, calls=calls), without(), WALK)
    found = np.asarray(guided(guided.asarray(x), guided.asarray(t), (), guided.asarray(told)))

    at = torch.from_numpy(x).requires_grad_()
    classes = torch.from_numpy(told.argmax(1))
    power = (1 - scale) * log_density(at, t, None) + scale * log_density(at, t, classes)
    (score,) = torch.autograd.grad(power.sum(), at)
    sigma = np.sqrt(1 - ALPHA_BAR[500])
    np.testing.assert_allclose(found, -sigma * score.numpy(), atol=1e-12)
    assert network.rows == ([4] if scale == 0 else [8] if calls == 1 else [4, 4])


def test_the_image_is_guided_whatever_is_predicted():
    """eps, x_0 and v are affine in each other at one x_t, and the sum has weights that add to 1."""
    rng = np.random.default_rng(1)
    x, cond, uncond = rng.standard_normal((3, 2, *SHAPE))
    alpha, sigma = 0.6, 0.8
    images = [(x - sigma * eps) / alpha for eps in (cond, uncond)]
    v = [alpha * eps - sigma * x_0 for eps, x_0 in zip((cond, uncond), images, strict=True)]
    eps = combined(cond, uncond, 3.0)
    np.testing.assert_allclose(combined(*images, 3.0), (x - sigma * eps) / alpha, atol=1e-12)
    np.testing.assert_allclose(combined(*v, 3.0), (eps - sigma * x) / alpha, atol=1e-12)


@pytest.mark.parametrize("rescale", [0.3, 0.7, 1.0])
def test_rescaling_by_hand(rescale):
    """Equations 15 and 16 of Lin et al., image by image."""
    rng = np.random.default_rng(2)
    cond, uncond = rng.standard_normal((2, 3, *SHAPE))
    cond[1] *= 4
    found = combined(cond, uncond, 5.0, rescale)
    for image in range(3):
        cfg = uncond[image] + 5 * (cond[image] - uncond[image])
        expected = rescale * cfg * cond[image].std() / cfg.std() + (1 - rescale) * cfg
        np.testing.assert_allclose(found[image], expected, rtol=1e-12)
        if rescale == 1:
            assert found[image].std() == pytest.approx(cond[image].std(), rel=1e-12)
    tensors = [torch.from_numpy(one) for one in (cond, uncond)]
    np.testing.assert_allclose(combined(*tensors, 5.0, rescale).numpy(), found, rtol=1e-12)


def test_an_untrained_network_is_guided_to_nothing_and_not_to_nan():
    zero = np.zeros((2, *SHAPE))
    assert (combined(zero, zero, 4.0, 0.7) == 0).all()


@pytest.mark.parametrize(("scale", "rescale"), [(2.0, 0.0), (7.5, 0.7), (0.0, 0.5)])
def test_the_formula_is_that_of_the_diffusers_library(scale, rescale):
    guiders = pytest.importorskip("diffusers.guiders")
    cond, uncond = torch.from_numpy(np.random.default_rng(3).standard_normal((2, 4, *SHAPE)))
    guider = guiders.ClassifierFreeGuidance(guidance_scale=scale, guidance_rescale=rescale)
    guider.set_state(step=0, num_inference_steps=1, timestep=torch.tensor(0))
    expected = guider.forward(cond, uncond).pred
    torch.testing.assert_close(combined(cond, uncond, scale, rescale), expected)


# Where it leads, and how often the network is called


def test_outside_of_the_interval_there_is_one_call_and_its_bits():
    x, _, told = given()
    network = Network()
    guided = GuidedDenoiser(network, Guidance(3.0, interval=(0.2, 0.6)), without(), WALK)
    for t, rows in zip(WALK, [4, 8, 8, 4, 4], strict=True):
        network.rows.clear()
        timesteps = np.full(4, t, np.float32)
        found = guided(x, timesteps, (), told)
        assert network.rows == [rows]
        if rows == 4:
            np.testing.assert_array_equal(found, Network()(x, timesteps, (), told))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_an_interval_is_shares_of_the_steps_of_every_scheduler(name):
    """Both calls of a step of Heun are on one side, and ten steps are cut where one reads it."""
    scheduler = make_scheduler({"name": name}, make_betas("linear", 1000), "epsilon")
    scheduler.set_timesteps(10)
    inside = timesteps_inside(scheduler.timesteps, (0.3, 0.7))
    assert inside == {699.0, 599.0, 499.0, 399.0}
    assert timesteps_inside(scheduler.timesteps, (0.0, 1.0)) is None


def test_both_branches_keep_what_they_are_told_in_their_rows():
    seen = []

    def network(x, timesteps, orders, context, place):
        seen.append((x.copy(), timesteps.copy(), context.copy(), place.copy()))
        return x + context[:, :1, None, None] + place

    x, t, told = given(2)
    place = np.arange(12.0).reshape(2, *SHAPE)
    guided = GuidedDenoiser(network, Guidance(2.0), [*without(2), -place], WALK)
    found = guided(x, t, (), told, place)
    ((xs, ts, contexts, places),) = seen
    np.testing.assert_array_equal(xs, np.concatenate([x, x]))
    np.testing.assert_array_equal(ts, np.full(4, 500))
    np.testing.assert_array_equal(contexts, np.concatenate([told, *without(2)]))
    np.testing.assert_array_equal(places, np.concatenate([place, -place]))
    told_first, not_told = told[:, :1, None, None], without(2)[0][:, :1, None, None]
    expected = x + 2 * (told_first + place) - (not_told - place)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_array_equal(told, given(2)[2])  # not written to


def test_tensors_of_a_network_in_inference_mode():
    """As runs are drawn from: the answers are inference tensors, and are cut and added."""
    network = TorchDenoiser(lambda x, t, orders, context: x * context[:, :1, None, None])
    guided = GuidedDenoiser(network, Guidance(3.0, 0.5), without(), WALK)
    x, t, told = (torch.from_numpy(one.astype(np.float32)) for one in given())
    for _ in range(2):  # a later call does not find what an earlier one left
        found = guided(x, t, (), told)
        expected = combined(x * told[:, :1, None, None], torch.zeros_like(x), 3.0, 0.5)
        torch.testing.assert_close(found, expected)
        x = found


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"scale": -1.0}, "guidance is -1.0; expected 0 or more, 1 being none"),
        ({"scale": math.inf}, "guidance is inf"),
        ({"scale": 2.0, "rescale": 1.5}, "rescale is 1.5; expected 0 to 1"),
        ({"scale": 2.0, "interval": (0.6, 0.2)}, "interval is 0.6:0.2"),
        ({"scale": 2.0, "calls": 3}, "calls is 3; expected 1 or 2"),
    ],
)
def test_what_cannot_be_is_refused(options, sentence):
    with pytest.raises(ConfigError, match=sentence.replace(".", r"\.")):
        Guidance(**options)


def test_an_interval_that_holds_no_step_is_refused():
    with pytest.raises(ConfigError, match=r"0\.21:0\.39 holds none of 5 steps"):
        GuidedDenoiser(Network(), Guidance(2.0, interval=(0.21, 0.39)), without(), WALK)
