"""One sampling loop over any denoiser: a torch module, an ONNX session, an engine.

Image i depends on (seed, i) alone: its first noise and the noise of its steps come from streams of
its own, and the scan orders of a step are shared by all images. Neither the batch size nor the
number of devices changes an image beyond rounding.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssmdiff.interfaces import Denoiser, NoiseScheduler, order_tensors
from ssmdiff.orders import OrderPlan
from ssmdiff.seeds import stream, stream_seed


def first_noise(seed: int, index: int, shape: tuple[int, ...]) -> np.ndarray:
    """x_T of image ``index``, float32 of the given shape (C, *image_size)."""
    return stream(seed, "sample", index).standard_normal(shape, dtype=np.float32)


@torch.inference_mode()
def sample(
    denoiser: Denoiser,
    scheduler: NoiseScheduler,
    plan: OrderPlan,
    shape: tuple[int, ...],
    indices: Sequence[int],
    steps: int,
    device: torch.device | None = None,
    on_step: Callable[[], None] | None = None,
) -> Tensor:
    """Draw the images with the given indices, in one batch.

    Args:
        denoiser: ``(x, timesteps, orders) -> prediction`` with timesteps (B,).
        scheduler: Built for this batch; its state is reset by ``set_timesteps``.
        plan: The scan orders of every step; its seed is the seed of the images.
        shape: (C, *image_size).
        indices: Which images of the seed to draw.
        steps: Sampling steps.
        device: Where the denoiser runs; the CPU by default.
        on_step: Called after each call of the denoiser.

    Returns:
        (len(indices), C, *image_size) float32, clipped to -1 .. 1.
    """
    device = device or torch.device("cpu")
    noise = np.stack([first_noise(plan.seed, i, shape) for i in indices])
    scheduler.set_timesteps(steps)
    x = torch.from_numpy(noise).to(device) * float(getattr(scheduler, "init_noise_sigma", 1.0))
    options = _step_options(scheduler, plan.seed, indices)
    for i, t in enumerate(scheduler.timesteps):
        orders = order_tensors(plan.draw(i), device)
        scaled = scheduler.scale_model_input(x, t)
        prediction = denoiser(scaled, t.to(device).expand(len(x)), orders)
        x = _previous(scheduler.step(prediction, t, x, **options)).to(torch.float32)
        if on_step:
            on_step()
    return x.clamp(-1, 1).cpu()


def _step_options(scheduler: NoiseScheduler, seed: int, indices: Sequence[int]) -> dict[str, Any]:
    """One generator per image, for schedulers whose steps draw noise."""
    if "generator" not in inspect.signature(scheduler.step).parameters:
        return {}
    seeds = [stream_seed(seed, "sample step", i) for i in indices]
    return {"generator": [torch.Generator().manual_seed(s) for s in seeds]}


def _previous(result: Any) -> Tensor:
    previous = result.prev_sample if hasattr(result, "prev_sample") else result[0]
    assert isinstance(previous, Tensor)
    return previous


def module_denoiser(model: torch.nn.Module, context: Tensor | None = None) -> Denoiser:
    """A backbone as a denoiser, with its conditioning bound."""
    return functools.partial(_call, model, context)


def _call(
    model: torch.nn.Module, context: Tensor | None, x: Tensor, timesteps: Tensor, orders: Any
) -> Tensor:
    prediction: Tensor = model(x=x, timesteps=timesteps, context=context, orders=orders)
    return prediction
