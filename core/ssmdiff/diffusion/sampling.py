"""One sampling loop over any denoiser: a torch module, an ONNX session, an engine.

Image i depends on (seed, i) alone: its first noise and the noise of its steps come from streams of
its own, and the scan orders of a step are shared by all images. Neither the batch size nor the
number of devices changes an image beyond rounding.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ssmdiff.networks.interfaces import Denoiser, NoiseScheduler
from ssmdiff.ops.order import order_tensors
from ssmdiff.orders.scan_order import ScanOrder
from ssmdiff.orders.seeds import first_noise, step_noise, stream_seed


class Plan(Protocol):
    """The scan orders of every step: an :class:`ssmdiff.OrderPlan`, or that of an exported file."""

    @property
    def seed(self) -> int: ...

    def draw(self, step: int) -> Sequence[ScanOrder]: ...


class Sampling(NamedTuple):
    """The settings of a sampling run: what was asked for over the model's own."""

    scheduler: Mapping[str, Any]
    """Name and all options."""
    steps: int
    new_scheduler: Callable[[], NoiseScheduler]

    @property
    def calls(self) -> int:
        """How often the network is called for a batch: Heun does it twice a step."""
        scheduler = self.new_scheduler()
        scheduler.set_timesteps(self.steps)
        return len(scheduler.timesteps)


@torch.inference_mode()
def sample(
    denoiser: Denoiser,
    scheduler: NoiseScheduler,
    plan: Plan,
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
    noise_of_step = _noise_source(scheduler, plan.seed, indices, shape)
    for i, t in enumerate(scheduler.timesteps):
        orders = order_tensors(plan.draw(i), device)
        scaled = scheduler.scale_model_input(x, t)
        prediction = denoiser(scaled, t.to(device).expand(len(x)), orders)
        options = noise_of_step(i, device)
        x = _previous(scheduler.step(prediction, t, x, **options)).to(torch.float32)
        if on_step:
            on_step()
    return x.clamp(-1, 1).cpu()


def sample_batches(
    denoiser: Callable[[int], Denoiser],
    scheduler: Callable[[], NoiseScheduler],
    plan: Plan,
    shape: tuple[int, ...],
    indices: Sequence[int],
    steps: int,
    batch_size: int,
    device: torch.device | None = None,
    on_batch: Callable[[list[int], Tensor], None] | None = None,
    on_step: Callable[[], None] | None = None,
) -> Tensor:
    """Draw images, ``batch_size`` at a time; the arguments are those of :func:`sample`, but:

    Args:
        denoiser: ``n -> denoiser`` of a batch of n images, with its conditioning bound.
        scheduler: Builds the scheduler of a batch.
        batch_size: Images drawn at once.
        on_batch: Called with the indices and images of each batch.
    """
    batches = []
    for start in range(0, len(indices), batch_size):
        chosen = list(indices[start : start + batch_size])
        images = sample(
            denoiser(len(chosen)), scheduler(), plan, shape, chosen, steps, device, on_step
        )
        if on_batch:
            on_batch(chosen, images)
        batches.append(images)
    return torch.cat(batches) if batches else torch.empty(0, *shape)


def _noise_source(
    scheduler: NoiseScheduler, seed: int, indices: Sequence[int], shape: tuple[int, ...]
) -> Callable[[int, torch.device], dict[str, Any]]:
    """``(step, device)`` -> the argument by which ``scheduler.step`` takes its random numbers.

    ``noise`` is the same on every device and where torch is not installed; ``generator``, which
    schedulers of other libraries take, belongs to torch: one for each image, read on and on.
    """
    parameters = inspect.signature(scheduler.step).parameters
    if "noise" in parameters:

        def noise(step: int, device: torch.device) -> dict[str, Any]:
            drawn = np.stack([step_noise(seed, i, step, shape) for i in indices])
            return {"noise": torch.from_numpy(drawn).to(device)}

        return noise
    options: dict[str, Any] = {}
    if "generator" in parameters:
        seeds = [stream_seed(seed, "sample step", i) for i in indices]
        options["generator"] = [torch.Generator().manual_seed(s) for s in seeds]
    return lambda step, device: options


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
