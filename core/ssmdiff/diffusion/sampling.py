"""One sampling loop over any denoiser, in numpy: a torch module, an ONNX session, an engine.

Image i depends on (seed, i) alone: its first noise and the noise of its steps come from streams of
its own, and the scan orders of a step are shared by all images. Neither the batch size nor the
number of devices changes an image beyond rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ssmdiff.diffusion.courses import Course, FromNoise, Start
from ssmdiff.diffusion.interfaces import Array, Denoiser, NoiseScheduler, Plan
from ssmdiff.errors import DivergedError
from ssmdiff.orders.seeds import Distribution, first_noise, step_noise


def sample(
    denoiser: Denoiser,
    scheduler: NoiseScheduler,
    plan: Plan,
    *,
    seed: int,
    shape: tuple[int, ...],
    indices: Sequence[int],
    steps: int,
    told: Sequence[Array] = (),
    on_step: Callable[[], None] | None = None,
    distribution: Distribution = "normal",
    course: Course | None = None,
) -> Array:
    """Draw the images with the given indices, in one batch.

    Args:
        denoiser: ``(x, timesteps, orders, *told) -> prediction``.
        scheduler: Its state is reset by ``set_timesteps``.
        plan: The scan orders of every step.
        seed: Of the images, and of random orders.
        shape: Of the first noise: (C, *image_size), or what a generator makes images from.
        indices: Which images of the seed to draw.
        steps: Sampling steps.
        told: What the denoiser is told of these images, as :meth:`ssmdiff.Conditions.encoded`
            gives it; the same at every step.
        on_step: Called after each call of the denoiser.
        distribution: Of the first noise.
        course: Which calls are done in which order, and what the sample begins as; by default all
            of them, from noise.

    Returns:
        (len(indices), C, *image_size), clipped to -1 .. 1, an array of the denoiser's.

    Raises:
        ConfigError: The scheduler cannot do so many steps.
        DivergedError: The denoiser gave numbers that are not finite; its first such call is named.
    """
    asarray: Callable[[Any], Array] = getattr(denoiser, "asarray", np.asarray)
    scheduler.set_timesteps(steps)
    first = np.stack([first_noise(seed, i, shape, distribution) for i in indices])
    told = [asarray(one) for one in told]
    course = course or FromNoise()
    calls = course.calls(scheduler)
    x = course.begin(scheduler, Start(seed, indices, first, asarray))
    finite = []
    for number, call in enumerate(calls):  # the same, but where a course goes back or begins late
        t = scheduler.timesteps[call]
        timesteps = asarray(np.full(len(indices), t, dtype=np.float32))
        output = denoiser(scheduler.scaled(x, call), timesteps, plan.draw(number, seed), *told)
        # Looked at after the run: a GPU is not waited for at every step.
        finite.append((abs(output) < math.inf).all())
        noise = None
        if scheduler.random:
            noise = asarray(np.stack([step_noise(seed, i, number, shape) for i in indices]))
        x = course.after(scheduler.step(output, call, x, noise), number)
        if on_step:
            on_step()
    for number, (call, fine) in enumerate(zip(calls, finite, strict=True), start=1):
        if not fine:
            raise DivergedError(
                f"call {number} of {len(finite)} of the network, at timestep "
                f"{scheduler.timesteps[call]:g}, gave numbers that are not finite, so no image "
                "was made. Try: another checkpoint, or precision fp32"
            )
    return x.clip(-1, 1)
