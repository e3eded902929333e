"""What a run shows of its model: a grid of samples above real images."""

from __future__ import annotations

from pathlib import Path

import torch
from ssmdiff import (
    Config,
    ImageDataset,
    ImageItem,
    Method,
    RunFolder,
    TorchDenoiser,
    sample,
    told_by,
    told_of,
    write_grid,
)
from torch import Tensor, nn

from ssmdiff_train.telling import Telling


def write_samples(
    folder: RunFolder,
    step: int,
    network: nn.Module,
    method: Method,
    config: Config,
    dataset: ImageDataset,
    telling: Telling,
) -> Path | None:
    """A grid of samples above real images, as a PNG; None where images are no pictures."""
    if len(config.data.image_size) != 2 or dataset.channels not in (1, 3):
        return None
    path = folder.samples / f"step-{step:08d}.png"
    images, captions = drawn(network, method, config, dataset, telling, config.sample.count)
    real, of_real = real_images(config, dataset, telling)
    write_grid(path, images, captions, f"step {step}", real, of_real)
    return path


def drawn(
    network: nn.Module,
    method: Method,
    config: Config,
    dataset: ImageDataset,
    telling: Telling,
    count: int,
) -> tuple[Tensor, list[str]]:
    """(count, C, *image_size) of the run's seed, on the CPU, and what each was told in words:
    classes in turn, numbers over their range, masks and images of data that is held out."""
    conditions = telling.conditions
    asked = told_by(getattr(dataset, "held_out", None) or dataset, conditions)
    told = [conditions.told(asked, i) for i in range(count)]
    device = next(network.parameters()).device
    images: Tensor = sample(
        TorchDenoiser(method.denoiser(network), device),
        method.new_scheduler(config.sample.scheduler),
        method.plan,
        seed=config.seed,
        shape=method.noise.shape,
        indices=range(count),
        steps=config.sampling_steps,
        told=conditions.encoded(told, config.data.image_size),
        distribution=method.noise.distribution,
    )
    return images.cpu(), conditions.captions(told)


def real_images(
    config: Config, dataset: ImageDataset, telling: Telling
) -> tuple[Tensor, list[str]]:
    """As many images, from all over the data, with what the model is told of each in words."""
    items = spread(dataset, config.sample.count)
    names = telling.conditions.captions([told_of(dataset, item) for item in items])
    return torch.stack([item.image for item in items]), names


def spread(dataset: ImageDataset, count: int) -> list[ImageItem]:
    """So many images from all over the data, or all."""
    count = min(count, len(dataset))
    return [ImageItem(*dataset[len(dataset) * i // count]) for i in range(count)]
