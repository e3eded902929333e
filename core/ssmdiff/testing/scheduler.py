"""What a noise scheduler must do: the protocol, the process that was trained, known answers."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ssmdiff.diffusion.betas import Prediction, make_betas
from ssmdiff.diffusion.courses import Course, FromImage, marks_of
from ssmdiff.diffusion.denoisers import TorchDenoiser
from ssmdiff.diffusion.flow_schedulers import FLOW, FLOW_TIMES
from ssmdiff.diffusion.interfaces import Array, Floats, NoiseScheduler
from ssmdiff.diffusion.sampling import sample
from ssmdiff.diffusion.schedulers import DIFFUSION
from ssmdiff.orders.scan import OrderPlan, ScanSlot
from ssmdiff.orders.seeds import stream
from ssmdiff.testing import probes
from ssmdiff.testing.report import NotApplicableError, ViolationError
from ssmdiff.testing.suite import Subject, Suite

T = 1000
STEPS = (250, 300, 501)
"""Enough for a scheduler of first order; of T, the last two are no divisors."""
MEAN, SPREAD = 0.1, 0.25
"""Of the data whose exact denoiser is known: N(MEAN, SPREAD^2), inside -1 to 1."""
MEAN_WITHIN, SPREAD_WITHIN = 0.02, 0.06
PREDICTIONS: tuple[Prediction, ...] = typing.get_args(Prediction)
VELOCITY = "velocity"
SHAPE = (1, 16, 16)


class SchedulerSubject(Subject):
    """A scheduler over a linear schedule of 1,000 steps, or along a rectified flow."""

    @property
    def flow(self) -> bool:
        return getattr(self.entry.factory(), "process", DIFFUSION) == FLOW

    @property
    def predictions(self) -> Sequence[str]:
        return (VELOCITY,) if self.flow else PREDICTIONS

    @property
    def noisiest(self) -> float:
        """The timestep at which all is noise."""
        return FLOW_TIMES if self.flow else T - 1

    def new(self, prediction: str = "") -> Any:
        if self.flow:
            return self.build(trained_shift=1.0)
        return self.build(
            betas=make_betas("linear", T), prediction_type=prediction or self.predictions[0]
        )


suite = Suite("scheduler", SchedulerSubject)


@suite.check
def protocol(subject: SchedulerSubject) -> str:
    """It has what the sampling loop asks for."""
    scheduler = subject.new()
    for name in ("set_timesteps", "scaled", "step"):
        if not callable(getattr(scheduler, name, None)):
            raise ViolationError(f"there is no method {name!r}", "the methods of NoiseScheduler")
    scheduler.set_timesteps(10)
    for name, hint in typing.get_type_hints(NoiseScheduler).items():
        found, kind = getattr(scheduler, name, None), typing.get_origin(hint) or hint
        if not isinstance(found, kind):
            raise ViolationError(
                f"{name} is a {type(found).__name__}", f"a {kind.__name__}, after set_timesteps"
            )
    return "set_timesteps, scaled, step; timesteps, random, initial_scale"


@suite.check
def timesteps(subject: SchedulerSubject) -> str:
    """Timesteps lie between 0 and the noisiest, T - 1 or 1000 of a flow, and fall from there, for
    any number of steps."""
    counts = []
    for steps in (1, 2, 7, 10, 50, 300):
        scheduler = subject.new()
        scheduler.set_timesteps(3)
        scheduler.set_timesteps(steps)
        t = scheduler.timesteps
        last = subject.noisiest
        if len(t) < steps or t.min() < 0 or t.max() > last or (np.diff(t) > 0).any():
            raise ViolationError(
                f"set_timesteps({steps}) gives {t[:4].tolist()} ... {float(t[-1])}, {len(t)} calls",
                f"at least {steps}, falling, from 0 to {last:g}",
            )
        if t[0] < 0.9 * last:
            raise ViolationError(
                f"{steps} steps begin at timestep {float(t[0]):g} of {last:g}",
                "a start at the noisy end, as sampling begins with pure noise",
                "timestep_spacing = 'trailing' in diffusers",
            )
        counts.append(f"{len(t)} calls for {steps}")
    return ", ".join(counts)


@suite.check
def noise(subject: SchedulerSubject) -> str:
    """The first call sees noise of spread 1, as training did at T - 1; the last step adds none."""
    scheduler = subject.new()
    scheduler.set_timesteps(10)
    x = np.random.default_rng(0).standard_normal((64, *SHAPE), dtype=np.float32)
    spread = float(scheduler.scaled(x * scheduler.initial_scale, 0).std())
    if not abs(spread - 1) <= 0.01:
        raise ViolationError(
            f"the network first sees noise of spread {spread:.3f}",
            "1: scaled(initial_scale * noise, 0) = x_T",
        )
    images = _draw(subject, subject.predictions[0], range(4), 10, spread=0.0)
    left = float(np.abs(images - MEAN).max())
    if not left <= 1e-3:
        raise ViolationError(
            f"with a denoiser that knows the image, 10 steps end {left:.2g} away from it",
            "the image itself: after the last call no noise is added and none is left",
        )
    return f"starts at spread {spread:.3f}, ends within {left:.0e} of a known image"


@suite.check
def distribution(subject: SchedulerSubject) -> str:
    """With the exact denoiser of a Gaussian it draws that Gaussian, whatever is predicted."""
    found = []
    for prediction in subject.predictions:
        for steps in STEPS:
            images = _draw(subject, prediction, range(8), steps)
            mean, spread = float(images.mean()), float(images.std())
            near = abs(mean - MEAN) <= MEAN_WITHIN and abs(spread / SPREAD - 1) <= SPREAD_WITHIN
            if not near:
                raise ViolationError(
                    f"mean {mean:.3f} and spread {spread:.3f} in {steps} steps for prediction "
                    f"{prediction!r}",
                    f"{MEAN} and {SPREAD}, the data whose exact denoiser it was given",
                    "step to the timestep that the network is told next",
                )
            found.append(f"{prediction} {steps}: {mean:.3f}, {spread:.3f}")
    return f"mean and spread of {MEAN}, {SPREAD}: " + "; ".join(found)


@suite.check
def marks(subject: SchedulerSubject) -> str:
    """A walk that is entered at a mark ends as one from its beginning does."""
    scheduler = subject.new()
    scheduler.set_timesteps(STEPS[0])
    if not hasattr(scheduler, "marks"):
        raise NotApplicableError("it has no marks, so no image is begun from or filled in with it")
    found = list(marks_of(scheduler))
    calls, end = [mark.call for mark in found], (len(scheduler.timesteps), 1.0, 0.0)
    if calls[0] != 0 or (np.diff(calls) < 1).any() or found[-1] != end:
        raise ViolationError(
            f"marks at calls {calls[:3]} ... {calls[-3:]}, the last {tuple(found[-1])}",
            f"the first at 0, rising, and the last {end}",
        )
    known = stream(3, "known images").standard_normal((8, *SHAPE), dtype=np.float32)
    for strength in (0.3, 0.7):
        course = FromImage(MEAN + SPREAD * known, strength)
        images = _draw(subject, "epsilon", range(8), STEPS[0], course=course)
        mean, spread = float(images.mean()), float(images.std())
        if not (abs(mean - MEAN) <= MEAN_WITHIN and abs(spread / SPREAD - 1) <= SPREAD_WITHIN):
            raise ViolationError(
                f"entered at {strength} of its steps, it draws mean {mean:.3f} and spread "
                f"{spread:.3f}",
                f"{MEAN} and {SPREAD}, the data that was entered with and whose denoiser it has",
                "alpha and sigma of a mark: the sample there is alpha x_0 + sigma e; and forget "
                "calls before the mark",
            )
    return f"{len(found)} marks; entered at two of them it ends where it should"


@suite.check
def arrays(subject: SchedulerSubject) -> str:
    """numpy's arrays and torch's tensors come out as the same images."""
    ours = _draw(subject, subject.predictions[0], range(2), 10)
    theirs = _draw(subject, subject.predictions[0], range(2), 10, tensors=True)
    if not isinstance(theirs, torch.Tensor) or not isinstance(ours, np.ndarray):
        raise ViolationError(
            f"from numpy's arrays it makes a {type(ours).__name__}, from torch's tensors a "
            f"{type(theirs).__name__}",
            "arrays of the kind that it was given",
        )
    apart = probes.relative(theirs, torch.as_tensor(ours))
    if not apart <= 1e-4:
        raise ViolationError(f"in numpy and in torch the images are {apart:.1e} apart", "rounding")
    return f"within {apart:.0e} of each other"


@suite.check
def independence(subject: SchedulerSubject) -> str:
    """Image i is the same alone and in a batch, and every time."""
    before = probes.global_states()
    together = _draw(subject, subject.predictions[0], range(4), 10)
    again = _draw(subject, subject.predictions[0], range(4), 10)
    if probes.global_states() != before:
        raise ViolationError(
            "sampling moved a global random state",
            "noise that step() is given",
            "set random = True, and use the argument 'noise' of step",
        )
    if not np.array_equal(together, again):
        raise ViolationError("two runs from one seed differ", "equal bits")
    alone = _draw(subject, subject.predictions[0], [2], 10)
    if not probes.relative(torch.as_tensor(alone), torch.as_tensor(together[2:3])) <= 1e-4:
        raise ViolationError("image 2 alone is another than in a batch", "the same image")
    return "the same alone, in a batch and again"


def _draw(
    subject: SchedulerSubject,
    prediction: str,
    indices: Any,
    steps: int,
    spread: float = SPREAD,
    tensors: bool = False,
    course: Course | None = None,
) -> Array:
    betas = make_betas("linear", T)
    plan = OrderPlan(probes.ProbeScan(1), (ScanSlot((1,)),), seed=7)

    def denoise(x: Any, timesteps: Any, orders: Any) -> Any:
        known = exact_velocity if subject.flow else partial(exact_denoiser, betas, prediction)
        values = known(np.asarray(x), np.asarray(timesteps), spread)
        return torch.from_numpy(values) if isinstance(x, torch.Tensor) else values

    scheduler = subject.new(prediction)
    denoiser = TorchDenoiser(denoise) if tensors else denoise
    return sample(
        denoiser,
        scheduler,
        plan,
        seed=7,
        shape=SHAPE,
        indices=indices,
        steps=steps,
        course=course,
    )


def exact_denoiser(
    betas: Floats, prediction: str, x: NDArray[Any], timesteps: NDArray[Any], spread: float
) -> NDArray[np.float32]:
    """E[target | x_t] for data N(MEAN, spread^2); between whole timesteps it interpolates."""
    alpha_bar = np.exp(np.interp(timesteps, np.arange(len(betas)), np.cumsum(np.log1p(-betas))))
    alpha_bar = alpha_bar.reshape(-1, *(1,) * (x.ndim - 1))
    alpha, sigma = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)
    x_0 = MEAN + alpha * spread**2 / (alpha_bar * spread**2 + sigma**2) * (x - alpha * MEAN)
    eps = (x - alpha * x_0) / sigma
    target = {"epsilon": eps, "sample": x_0, "v_prediction": alpha * eps - sigma * x_0}
    answer: NDArray[np.float32] = target[prediction].astype(np.float32)
    return answer


def exact_velocity(x: NDArray[Any], timesteps: NDArray[Any], spread: float) -> NDArray[np.float32]:
    """E[noise - x_0 | x_t] for data N(MEAN, spread^2) along a flow."""
    t = (timesteps / FLOW_TIMES).reshape(-1, *(1,) * (x.ndim - 1))
    variance = ((1 - t) * spread) ** 2 + t**2
    away = (x - (1 - t) * MEAN) / variance
    answer: NDArray[np.float64] = t * away - (MEAN + (1 - t) * spread**2 * away)
    return answer.astype(np.float32)
