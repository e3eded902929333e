"""What a noise scheduler must do: the protocol, the process that was trained, a known answer."""

from __future__ import annotations

import typing
from typing import Any

import torch
from torch import Tensor

from ssmdiff.diffusion.betas import Prediction
from ssmdiff.diffusion.process import Diffusion, make_betas
from ssmdiff.diffusion.sampling import sample
from ssmdiff.orders.scan import OrderPlan, ScanSlot
from ssmdiff.testing import probes
from ssmdiff.testing.report import ViolationError
from ssmdiff.testing.suite import Subject, Suite

T = 1000
STEPS = 250  # enough for a scheduler of first order
MEAN, SPREAD = 0.1, 0.25
"""Of the data whose exact denoiser is known: N(MEAN, SPREAD^2), inside -1 to 1."""
MEAN_WITHIN, SPREAD_WITHIN = 0.02, 0.06
PREDICTIONS: tuple[Prediction, ...] = typing.get_args(Prediction)


class SchedulerSubject(Subject):
    """A scheduler over a linear schedule of 1,000 steps."""

    def new(self, prediction: Prediction = "epsilon", timesteps: int = T) -> Any:
        diffusion = Diffusion(make_betas("linear", timesteps), prediction)
        return self.build(betas=diffusion.betas, prediction_type=prediction)


suite = Suite("scheduler", SchedulerSubject)


@suite.check
def protocol(subject: SchedulerSubject) -> str:
    """It has what diffusers and MONAI call."""
    scheduler = subject.new()
    for name in ("set_timesteps", "add_noise", "scale_model_input", "step"):
        if not callable(getattr(scheduler, name, None)):
            raise ViolationError(f"there is no method {name!r}", "the methods of NoiseScheduler")
    scheduler.set_timesteps(10)
    if not isinstance(scheduler.timesteps, Tensor):
        raise ViolationError(f"timesteps is a {type(scheduler.timesteps).__name__}", "a tensor")
    return "set_timesteps, add_noise, scale_model_input, step, timesteps"


@suite.check
def timesteps(subject: SchedulerSubject) -> str:
    """Timesteps lie in 0 .. T - 1, from the noisy end to the clean one, for any number of steps."""
    counts = []
    for steps in (1, 2, 10, 50):
        scheduler = subject.new()
        scheduler.set_timesteps(3)
        scheduler.set_timesteps(steps)
        t = scheduler.timesteps.double()
        if len(t) < steps or t.min() < 0 or t.max() > T - 1 or (t.diff() > 0).any():
            raise ViolationError(
                f"set_timesteps({steps}) gives {t[:4].tolist()} ... {float(t[-1])}, {len(t)} calls",
                f"at least {steps}, falling, from 0 to {T - 1}",
            )
        if t[0] < 0.9 * (T - 1):
            raise ViolationError(
                f"{steps} steps begin at timestep {float(t[0]):g} of {T}",
                "a start at the noisy end, as sampling begins with pure noise",
                "timestep_spacing = 'trailing' in diffusers",
            )
        counts.append(f"{len(t)} calls for {steps}")
    return ", ".join(counts)


@suite.check
def noise(subject: SchedulerSubject) -> str:
    """What the network sees is x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise."""
    diffusion = Diffusion(make_betas("linear", T))
    scheduler = subject.new()
    scheduler.set_timesteps(20)
    g = torch.Generator().manual_seed(0)
    x_0, eps = (torch.randn(1, 1, 4, 4, generator=g) for _ in range(2))
    largest = 0.0
    for t in dict.fromkeys(scheduler.timesteps.tolist()):
        if t != int(t):
            continue  # between two steps of the training process there is no closed form
        at = torch.tensor([t], dtype=scheduler.timesteps.dtype)
        seen = scheduler.scale_model_input(scheduler.add_noise(x_0, eps, at), at[0])
        expected = diffusion.add_noise(x_0, eps, at.long())
        error = probes.relative(seen, expected)
        if not error <= 1e-3:
            raise ViolationError(
                f"at timestep {t:g} the noisy image is off by {error:.1e}",
                "scale_model_input(add_noise(x_0, noise, t), t) = x_t of the betas it was given",
            )
        # A scheduler that scales its input finds its place anew for the next timestep.
        scheduler.set_timesteps(20)
        largest = max(largest, error)
    return f"within {largest:.0e} of the closed form"


@suite.check
def distribution(subject: SchedulerSubject) -> str:
    """With the exact denoiser of a Gaussian it draws that Gaussian, whatever is predicted."""
    found = []
    for prediction in PREDICTIONS:
        diffusion = Diffusion(make_betas("linear", T), prediction)
        images = _draw(subject, diffusion, range(8), STEPS)
        mean, spread = float(images.mean()), float(images.std())
        near = abs(mean - MEAN) <= MEAN_WITHIN and abs(spread / SPREAD - 1) <= SPREAD_WITHIN
        if not near:
            raise ViolationError(
                f"mean {mean:.3f} and spread {spread:.3f} for prediction {prediction!r}",
                f"{MEAN} and {SPREAD}, the data whose exact denoiser it was given",
            )
        found.append(f"{prediction} {mean:.3f}, {spread:.3f}")
    return f"mean and spread of {MEAN}, {SPREAD}: " + "; ".join(found)


@suite.check
def independence(subject: SchedulerSubject) -> str:
    """Image i is the same alone and in a batch, and every time."""
    diffusion = Diffusion(make_betas("linear", T))
    before = probes.global_states()
    together = _draw(subject, diffusion, range(4), 10)
    again = _draw(subject, diffusion, range(4), 10)
    if probes.global_states() != before:
        raise ViolationError(
            "sampling moved a global random state",
            "noise that step() is given",
            "take a parameter 'noise' in step, or 'generator' as diffusers does",
        )
    if not torch.equal(together, again):
        raise ViolationError("two runs from one seed differ", "equal bits")
    alone = _draw(subject, diffusion, [2], 10)
    if not probes.relative(alone, together[2:3]) <= 1e-4:
        raise ViolationError("image 2 alone is another than in a batch", "the same image")
    return "the same alone, in a batch and again"


def _draw(subject: SchedulerSubject, diffusion: Diffusion, indices: Any, steps: int) -> Tensor:
    scheduler = subject.build(betas=diffusion.betas, prediction_type=diffusion.prediction)
    plan = OrderPlan(probes.ProbeScan(1), (ScanSlot((1,)),), seed=7)

    def denoise(x: Tensor, timesteps: Tensor, orders: Any) -> Tensor:
        return exact_denoiser(diffusion, x, timesteps)

    return sample(denoise, scheduler, plan, (1, 16, 16), indices, steps)


def exact_denoiser(diffusion: Diffusion, x: Tensor, timesteps: Tensor) -> Tensor:
    """E[target | x_t] for data N(MEAN, SPREAD^2); between whole timesteps it interpolates."""
    alpha_bar = _at(diffusion.alpha_bar, timesteps).float().view(-1, *(1,) * (x.dim() - 1))
    gain = alpha_bar.sqrt() * SPREAD**2 / (alpha_bar * SPREAD**2 + 1 - alpha_bar)
    x_0 = MEAN + gain * (x - alpha_bar.sqrt() * MEAN)
    eps = (x - alpha_bar.sqrt() * x_0) / (1 - alpha_bar).sqrt()
    if diffusion.prediction == "epsilon":
        return eps
    if diffusion.prediction == "sample":
        return x_0
    return alpha_bar.sqrt() * eps - (1 - alpha_bar).sqrt() * x_0


def _at(alpha_bar: Tensor, timesteps: Tensor) -> Tensor:
    low = timesteps.floor().long() if timesteps.is_floating_point() else timesteps.long()
    high = (low + 1).clamp(max=len(alpha_bar) - 1)
    return torch.lerp(alpha_bar[low].log(), alpha_bar[high].log(), (timesteps - low).double()).exp()
