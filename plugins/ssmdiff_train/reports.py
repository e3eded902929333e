"""What a run shows of its model: a grid of samples above real images."""

from __future__ import annotations

from collections.abc import Sequence
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
    write_grid,
)
from torch import Tensor, nn


def write_samples(
    folder: RunFolder,
    step: int,
    network: nn.Module,
    method: Method,
    config: Config,
    dataset: ImageDataset,
) -> Path | None:
    """A grid of samples above real images, as a PNG; None where images are no pictures."""
    if len(config.data.image_size) != 2 or dataset.channels not in (1, 3):
        return None
    path = folder.samples / f"step-{step:08d}.png"
    images, captions = draw_grid(network, method, config, dataset)
    real, of_real = real_images(config, dataset)
    write_grid(path, images, captions, f"step {step}", real, of_real)
    return path


def draw_grid(
    network: nn.Module,
    method: Method,
    config: Config,
    dataset: ImageDataset,
) -> tuple[Tensor, list[str]]:
    """The first images of the run's seed; classes in turn, if any."""
    count = config.sample.count
    labels = None
    if config.model.class_conditional:
        labels = [i % len(dataset.class_names) for i in range(count)]
    images = drawn(network, method, config, count, labels)
    return images, [dataset.class_names[label] for label in labels or ()]


def drawn(
    network: nn.Module,
    method: Method,
    config: Config,
    count: int,
    labels: Sequence[int] | None = None,
) -> Tensor:
    """(count, C, *image_size) of the run's seed, on the CPU."""
    images: Tensor = sample(
        TorchDenoiser(method.denoiser(network), _device(network)),
        method.new_scheduler(config.sample.scheduler),
        method.plan,
        seed=config.seed,
        shape=method.noise.shape,
        indices=range(count),
        steps=config.sampling_steps,
        labels=labels,
        distribution=method.noise.distribution,
    )
    return images.cpu()


def real_images(config: Config, dataset: ImageDataset) -> tuple[Tensor, list[str]]:
    """As many images, from all over the data, with their classes if the model is told them."""
    items = spread(dataset, config.sample.count)
    conditional = config.model.class_conditional
    names = [dataset.class_names[item.label] for item in items] if conditional else []
    return torch.stack([item.image for item in items]), names


def spread(dataset: ImageDataset, count: int) -> list[ImageItem]:
    """So many images from all over the data, or all."""
    count = min(count, len(dataset))
    return [dataset[len(dataset) * i // count] for i in range(count)]


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
