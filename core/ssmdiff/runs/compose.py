"""Builds the parts of a run from its configuration."""

from __future__ import annotations

from torch import nn

from ssmdiff.diffusion.process import Diffusion, make_betas
from ssmdiff.errors import ConfigError
from ssmdiff.networks.interfaces import NoiseScheduler
from ssmdiff.orders.scan import OrderPlan, Scan
from ssmdiff.registry.registry import create
from ssmdiff.runs.config import ComponentTable, Config
from ssmdiff.runs.datasets import ImageDataset


def build_dataset(config: Config) -> ImageDataset:
    """The data set, at the configuration's image size."""
    dataset: ImageDataset = create(
        "dataset", config.data.dataset, image_size=config.data.image_size
    )
    return dataset


def build_backbone(config: Config, in_channels: int, num_classes: int) -> nn.Module:
    """The denoiser, in training mode, on the CPU; its image size is checked.

    Raises:
        ConfigError: The backbone cannot serve the image size, or the scan a grid of it.
    """
    scan = create("scan", config.model.scan)
    block = BlockBuilder(config.model.block, scan, len(config.data.image_size))
    model: nn.Module = create(
        "backbone",
        config.model.backbone,
        in_channels=in_channels,
        scan=scan,
        block=block,
        num_classes=num_classes,
    )
    order_plan(model, config).draw(0)
    return model


class BlockBuilder:
    """The ``block`` that a backbone is given: builds blocks, each for the scan of its own slot.

    Backbones build their blocks in the order in which they call them, so the slot of a block's
    first S6 call is the number of S6 calls of those built before it.

    Args:
        spec: The block's name and options.
        scan: The scan of the network; :meth:`ssmdiff.Scan.at` may differ in K from slot to slot.
        dims: Axes of the grid.
    """

    def __init__(self, spec: ComponentTable, scan: Scan, dims: int) -> None:
        self.spec, self.scan, self.dims = spec, scan, dims
        self.slot = 0

    def __call__(self, channels: int, time_channels: int) -> nn.Module:
        block: nn.Module = create(
            "block",
            self.spec,
            channels=channels,
            time_channels=time_channels,
            directions=self.scan.at(self.slot).directions(self.dims),
        )
        self.slot += block.scan_calls  # type: ignore[operator, assignment]
        return block


def build_diffusion(config: Config) -> Diffusion:
    """The forward process and what is predicted."""
    d = config.diffusion
    betas = make_betas(d.beta_schedule, d.timesteps, d.beta_start, d.beta_end)
    return Diffusion(betas, d.prediction)


def build_scheduler(config: Config, diffusion: Diffusion) -> NoiseScheduler:
    """A fresh noise scheduler over the process that was trained."""
    scheduler: NoiseScheduler = create(
        "scheduler",
        config.sample.scheduler,
        betas=diffusion.betas,
        prediction_type=diffusion.prediction,
    )
    return scheduler


def order_plan(model: nn.Module, config: Config, seed: int | None = None) -> OrderPlan:
    """The orders of a model at the configuration's image size; by default under its seed."""
    slots = tuple(model.scan_slots(config.data.image_size))  # type: ignore[operator]
    return OrderPlan(model.scan, slots, config.seed if seed is None else seed)  # type: ignore[arg-type]


def classes_of(config: Config, dataset: ImageDataset) -> int:
    """Number of classes that the model is conditioned on, 0 for none.

    Raises:
        ConfigError: A conditional model was asked for and the data has no classes.
    """
    if not config.model.class_conditional:
        return 0
    if not dataset.class_names:
        raise ConfigError(
            "model.class_conditional is true, and the data set "
            f"{config.data.dataset['name']!r} has no class labels"
        )
    return len(dataset.class_names)
