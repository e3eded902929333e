"""What is told of methods that walk from noise to images: a walk on trial, doubts, the bound."""

from __future__ import annotations

import math

import torch
from ssmdiff import (
    BackboneMethod,
    Config,
    Diffusion,
    DiffusionMethod,
    ImageDataset,
    Method,
)
from torch import nn

from ssmdiff_train.proof import prove_sampling

MOST_LEFT = 0.01
"""alpha_bar at the last timestep, at most: sampling begins with noise alone, at alpha_bar = 0."""


def proven(method: Method, config: Config, channels: int) -> str:
    """A doubt about the forward process, if there is one, once sampling was tried.

    Raises:
        ConfigError: The scheduler cannot walk the process.
    """
    if isinstance(method, BackboneMethod):
        prove_sampling(config, method.new_scheduler, channels)
    return doubt_of(method.diffusion) if isinstance(method, DiffusionMethod) else ""


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
    method: Method, model: nn.Module, config: Config, dataset: ImageDataset
) -> float | None:
    """Of the first images, as the method has it: a diffusion L_vb (eq. 3).

    None of a method that has none, or where it was not asked for.
    """
    unread = "train.bound_images" in config.unread()
    if unread or not config.train.bound_images:
        return None
    device = next(model.parameters()).device
    items = [dataset[i] for i in range(min(config.train.bound_images, len(dataset)))]
    x_0 = torch.stack([s.image for s in items]).to(device)
    x_0 = (((x_0 + 1) * 127.5).round() / 127.5 - 1).clamp(-1, 1)  # the 256 levels of the bound
    labels = torch.tensor([s.label for s in items], device=device)
    bits = method.bits_per_dim(model, {"x_0": x_0, "label": labels}, config.seed)
    return None if bits is None else float(bits.mean())
