"""What a run tells about its model: doubts, a grid of samples, and the variational bound."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from ssmdiff import (
    Config,
    Diffusion,
    ImageDataset,
    OrderPlan,
    RunFolder,
    TorchDenoiser,
    build_scheduler,
    module_denoiser,
    order_tensors,
    sample,
    stream,
    write_grid,
)
from torch import Tensor, nn

BOUND_TIMESTEPS = 32
MOST_LEFT = 0.01
"""alpha_bar at the last timestep, at most: sampling begins with noise alone, at alpha_bar = 0."""


def doubt_of(diffusion: Diffusion) -> str:
    """Why sampling will not begin where training ended, in numbers; empty where it will."""
    last, T = float(diffusion.alpha_bar[-1]), diffusion.timesteps
    where = f"alpha_bar is {last:.2g} at the last of {T} timesteps"
    end = float(diffusion.betas[-1]) * 10 / max(-math.log(max(last, 1e-300)), 1e-9)
    advice = f"diffusion.beta_end = {end:.1g}, or " if end < 0.9 else ""
    advice = f"Try: {advice}diffusion.beta_schedule = 'cosine'"
    if last > MOST_LEFT:
        return (
            f"{where}, so the noisiest image of training still holds {math.sqrt(last):.0%} of "
            f"the image, and sampling begins with noise alone; expected at most {MOST_LEFT}. "
            f"{advice}"
        )
    if last < torch.finfo(torch.float32).tiny:
        return f"{where}, less than float32 holds, so images are divided by nothing. {advice}"
    return ""


def write_samples(
    folder: RunFolder,
    step: int,
    model: nn.Module,
    config: Config,
    diffusion: Diffusion,
    plan: OrderPlan,
    dataset: ImageDataset,
) -> Path | None:
    """A grid of samples above real images, as a PNG; None where images are no pictures."""
    if len(config.data.image_size) != 2 or dataset.channels not in (1, 3):
        return None
    path = folder.samples / f"step-{step:08d}.png"
    images, captions = draw_grid(model, config, diffusion, plan, dataset)
    real, of_real = real_images(config, dataset)
    write_grid(path, images, captions, f"step {step}", real, of_real)
    return path


def draw_grid(
    model: nn.Module,
    config: Config,
    diffusion: Diffusion,
    plan: OrderPlan,
    dataset: ImageDataset,
) -> tuple[Tensor, list[str]]:
    """(count, C, *image_size): the first images of the run's seed; classes in turn, if any."""
    device = _device(model)
    count = config.sample.count
    labels = None
    if config.model.class_conditional:
        labels = [i % len(dataset.class_names) for i in range(count)]
    images: Tensor = sample(
        TorchDenoiser(module_denoiser(model), device),
        build_scheduler(config, diffusion),
        plan,
        seed=config.seed,
        shape=(dataset.channels, *config.data.image_size),
        indices=range(count),
        steps=config.sample.steps,
        labels=labels,
    )
    return images.cpu(), [dataset.class_names[label] for label in labels or ()]


def real_images(config: Config, dataset: ImageDataset) -> tuple[Tensor, list[str]]:
    """As many images, from all over the data, with their classes if the model is told them."""
    count = min(config.sample.count, len(dataset))
    items = [dataset[len(dataset) * i // count] for i in range(count)]
    conditional = config.model.class_conditional
    names = [dataset.class_names[item.label] for item in items] if conditional else []
    return torch.stack([item.image for item in items]), names


@torch.no_grad()
def bits_per_dim(
    model: nn.Module,
    config: Config,
    diffusion: Diffusion,
    plan: OrderPlan,
    dataset: ImageDataset,
) -> float:
    """L_vb (eq. 3) of the first images, its sum over t estimated from evenly spaced timesteps."""
    device = _device(model)
    items = [dataset[i] for i in range(min(config.train.bound_images, len(dataset)))]
    x_0 = torch.stack([s.image for s in items]).to(device)
    x_0 = (((x_0 + 1) * 127.5).round() / 127.5 - 1).clamp(-1, 1)  # the 256 levels of the bound
    labels = torch.tensor([s.label for s in items], device=device)
    context = labels if config.model.class_conditional else None

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        orders = order_tensors(plan.draw(int(t[0])), device)
        prediction: Tensor = model(x=x_t, timesteps=t, context=context, orders=orders)
        return prediction

    def noise(t: int) -> Tensor:
        values = stream(config.seed, "bound", t).standard_normal(tuple(x_0.shape))
        return torch.from_numpy(values).to(x_0)

    timesteps = _spread(diffusion.timesteps - 1, BOUND_TIMESTEPS)
    return float(diffusion.bits_per_dim(predict, x_0, noise, timesteps).mean())


def _spread(last: int, count: int) -> list[int]:
    """``count`` of the timesteps 1 .. last, in the middle of equal parts; at most all."""
    count = min(count, last)
    return [1 + int(last * (i + 0.5) / count) for i in range(count)]


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
