"""What a run tells before it starts: what it trains on, what it trains, and what that takes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from ssmdiff import (
    DTYPES,
    BackboneMethod,
    DatasetSummary,
    order_tensors,
    parts_of,
    require_kernel,
    size_text,
)
from torch import Tensor, nn

from ssmdiff_train.augment import in_words, left_out
from ssmdiff_train.estimate import activation_bytes, free_bytes
from ssmdiff_train.faults import less_memory
from ssmdiff_train.loop import Trainer

_ADAM = 2  # tensors that it keeps for each weight


def of_data(trainer: Trainer, told: DatasetSummary) -> Iterator[str]:
    """Lines of the data set, and of what training does to its images."""
    config, dataset = trainer.config, trainer.dataset
    size = size_text(config.data.image_size)
    channels = f"{dataset.channels} channel{'s' * (dataset.channels > 1)}"
    yield f"data: {config.data.dataset['name']}, {len(dataset)} images of {channels} at {size}"
    yield from (f"  {line}" for line in told.lines)
    if not told.lines:
        yield f"  classes: {', '.join(dataset.class_names) or 'none'}"
    yield from (f"  {line}" for line in (*in_words(config), *left_out(config, dataset)))


def of_model(trainer: Trainer) -> Iterator[str]:
    """Lines of the model and of the device."""
    config, device = trainer.config, trainer.accelerator.device
    train = config.train
    yield f"model: {_parts(trainer)}"
    kernel = kernel_of(trainer)
    where = f"{device}, {torch.get_num_threads()} threads" if device.type == "cpu" else f"{device}"
    count = trainer.accelerator.num_processes
    where += f", {count} processes" if count > 1 else ""
    yield f"  on {where}; kernel {kernel}, {train.precision}"
    images = train.steps * train.batch_size
    yield (
        f"  {train.steps} steps of {train.batch_size} images: {images:,} images, "
        f"{images / len(trainer.dataset):.3g} times through the data"
    )


def _parts(trainer: Trainer) -> str:
    config, model = trainer.config, trainer.config.model
    if model.backbone:
        classes = _told(trainer)
        parts = f"{model.backbone['name']} of {model.block['name']}"
        if trainer.method.plan.slots:
            parts += f" along {model.scan['name']}"
        return f"{parts}, {trainer.parameters / 1e6:.2f} M parameters, {classes}"
    parts = ", ".join(f"{kind} {name}" for kind, name in parts_of(config.to_dict()).items())
    sizes = " and ".join(
        f"{sum(p.numel() for p in network.parameters()) / 1e6:.2f} M parameters of the {name}"
        for name, network in trainer.method.networks.items()
    )
    return f"{parts}; {sizes}"


def _told(trainer: Trainer) -> str:
    """What the model is told, in words."""
    conditions, often = trainer.telling
    if not conditions:
        return "of no class"
    if not trainer.config.model.conditions:
        return "conditioned on the class"
    told = f"told {', '.join(conditions.names)}"
    return f"{told}, nothing for {often:.0%} of the images" if often else told


def kernel_of(trainer: Trainer) -> str:
    """The kernel that will run, or that none will."""
    if not trainer.method.plan.slots:
        return "of no scan"
    precision = DTYPES[trainer.config.train.precision]
    return require_kernel(trainer.accelerator.device, precision).name


def of_memory(trainer: Trainer) -> tuple[str, str]:
    """A line of the memory that is needed, and a warning if there is not so much; else ``""``."""
    device, method = trainer.accelerator.device, trainer.method
    if not isinstance(method, BackboneMethod):
        return "  memory: not estimated for this method", ""
    try:
        needed = memory_bytes(trainer, method)
    except Exception as error:  # a stranger's network may look at values, which there are none of
        return f"  memory: no estimate for this model ({type(error).__name__})", ""
    free = free_bytes(device)
    part = _images_at_once(trainer)
    line = f"  memory: about {_gb(needed)} for {part} images at a time"
    if free is None:
        return line, ""
    line += f"; {_gb(free)} are free"
    if needed <= free:
        return line, ""
    ways = less_memory(trainer.config, "host" if device.type == "cpu" else "device")
    return line, (
        f"the run needs about {_gb(needed)} of memory and {_gb(free)} are free. Try {ways}"
    )


def memory_bytes(trainer: Trainer, method: BackboneMethod) -> int:
    """What a step allocates beyond the weights and their average, which are there already."""
    config, device = trainer.config, trainer.accelerator.device
    orders = order_tensors(method.plan.draw(0), device)

    def forward(model: nn.Module, x: Tensor, t: Tensor) -> Tensor:
        return method.denoiser(model)(x, t, orders, *trainer.telling.empty(x))

    precision = config.train.precision
    activations = activation_bytes(
        method.model,
        (trainer.dataset.channels, *config.data.image_size),
        _images_at_once(trainer),
        forward,
        device,
        None if precision == "fp32" else DTYPES[precision],
    )
    return int(activations + _ADAM * 4 * trainer.parameters)


def _images_at_once(trainer: Trainer) -> int:
    share = trainer.config.train.batch_size // trainer.accelerator.num_processes
    return int(min(trainer.config.train.micro_batch_size or share, share))


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(count, 0) / 1e6:.0f} MB"
