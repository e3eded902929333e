"""What is told of a diffusion and of no other method: a walk on trial, doubts, the bound."""

from __future__ import annotations

import math

import torch
from ssmdiff import (
    Config,
    Diffusion,
    DiffusionMethod,
    ImageDataset,
    ImageItem,
    Method,
    order_tensors,
    stream,
)
from torch import Tensor, nn

from ssmdiff_train.proof import prove_sampling
from ssmdiff_train.telling import Telling

BOUND_TIMESTEPS = 32
MOST_LEFT = 0.01
"""alpha_bar at the last timestep, at most: sampling begins with noise alone, at alpha_bar = 0."""


def proven(method: Method, config: Config, channels: int) -> str:
    """A doubt about the forward process, if there is one, once sampling was tried.

    Raises:
        ConfigError: The scheduler cannot walk the process.
    """
    if not isinstance(method, DiffusionMethod):
        return ""
    prove_sampling(config, method.diffusion, channels)
    return doubt_of(method.diffusion)


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


@torch.no_grad()
def bits_per_dim(
    method: Method, model: nn.Module, config: Config, dataset: ImageDataset, telling: Telling
) -> float | None:
    """L_vb (eq. 3) of the first images, its sum over t estimated from evenly spaced timesteps.

    None of a method that has no bound, or where it was not asked for.
    """
    if not isinstance(method, DiffusionMethod) or not config.train.bound_images:
        return None
    diffusion, plan, device = method.diffusion, method.plan, next(model.parameters()).device
    items = [ImageItem(*dataset[i]) for i in range(min(config.train.bound_images, len(dataset)))]
    x_0 = torch.stack([s.image for s in items]).to(device)
    x_0 = (((x_0 + 1) * 127.5).round() / 127.5 - 1).clamp(-1, 1)  # the 256 levels of the bound
    told = [one.to(device) for one in telling.told(dataset, items)]
    denoise = method.denoiser(model)

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        orders = order_tensors(plan.draw(int(t[0])), device)
        return denoise(x_t, t, orders, *told)

    def noise(t: int) -> Tensor:
        values = stream(config.seed, "bound", t).standard_normal(tuple(x_0.shape))
        return torch.from_numpy(values).to(x_0)

    timesteps = _spread(diffusion.timesteps - 1, BOUND_TIMESTEPS)
    return float(diffusion.bits_per_dim(predict, x_0, noise, timesteps).mean())


def _spread(last: int, count: int) -> list[int]:
    """``count`` of the timesteps 1 .. last, in the middle of equal parts; at most all."""
    count = min(count, last)
    return [1 + int(last * (i + 0.5) / count) for i in range(count)]
