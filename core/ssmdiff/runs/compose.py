"""Builds the parts of a run from its configuration."""

from __future__ import annotations

from typing import Any

from torch import nn

from ssmdiff.diffusion.conditions import LABEL, Conditions
from ssmdiff.diffusion.interfaces import NoiseScheduler
from ssmdiff.diffusion.process import Diffusion, make_betas
from ssmdiff.errors import ConfigError, ContractError
from ssmdiff.orders.scan import OrderPlan, Scan
from ssmdiff.registry.registry import create
from ssmdiff.runs.datasets import ImageDataset, conditions_of
from ssmdiff.runs.method import Method
from ssmdiff.runs.sections import ComponentTable, Config

NOTHING = Conditions()
"""What an unconditional model is told."""


def build_dataset(config: Config) -> ImageDataset:
    """The data set, at the configuration's image size."""
    dataset: ImageDataset = create(
        "dataset", config.data.dataset, image_size=config.data.image_size
    )
    return dataset


def build_method(config: Config, channels: int, conditions: Conditions = NOTHING) -> Method:
    """What is trained: networks in training mode, on the CPU.

    Args:
        config: Of the run.
        channels: C of the images.
        conditions: What the model is told of each.

    Raises:
        ConfigError: It cannot serve the images.
    """
    method: Method = create(
        "method", config.method, config=config, channels=channels, conditions=conditions
    )
    return method


def build_backbone(config: Config, channels: int, conditions: Conditions = NOTHING) -> nn.Module:
    """The denoiser, in training mode, on the CPU; its image size is checked.

    Args:
        config: Of the run.
        channels: C of the images.
        conditions: What it is told of each: numbers of its context, and further input channels.

    Raises:
        ConfigError: The backbone cannot serve the image size, or the scan a grid of it.
        ContractError: Its blocks were built for other slots than it has.
    """
    scan = create("scan", config.model.scan)
    block = BlockBuilder(config.model.block, scan, len(config.data.image_size))
    model: nn.Module = create(
        "backbone",
        config.model.backbone,
        in_channels=channels + conditions.planes,
        out_channels=channels,
        scan=scan,
        block=block,
        context_channels=conditions.width,
    )
    plan = order_plan(model, config)
    block.refuse_other_slots(len(plan.slots), f"backbone {config.model.backbone['name']!r}")
    plan.draw(0)
    return model


class BlockBuilder:
    """The :class:`ssmdiff.BlockFactory` that a backbone is given.

    Args:
        spec: The block's name and options.
        scan: The scan of the network; :meth:`ssmdiff.Scan.at` may differ in K from slot to slot.
        dims: Axes of the grid.
    """

    def __init__(self, spec: ComponentTable, scan: Scan, dims: int) -> None:
        self.spec, self.scan, self.dims = spec, scan, dims
        self.slots: list[int] = []

    def __call__(self, channels: int, time_channels: int, *, slot: int) -> Any:
        block: Any = create(
            "block",
            self.spec,
            channels=channels,
            time_channels=time_channels,
            directions=self.scan.at(slot).directions(self.dims),
        )
        block.slot = slot
        self.slots += range(slot, slot + block.scan_calls)
        return block

    def refuse_other_slots(self, count: int, where: str) -> None:
        """Check that the blocks that were built share out the slots of the network.

        Raises:
            ContractError: A slot belongs to no block or to two, or there is no such slot.
        """
        if sorted(self.slots) != list(range(count)):
            raise ContractError(
                f"{where}: scan_slots has {count} slots, and its blocks were built for the slots "
                f"{self.slots}; expected each of 0 to {count - 1} once. Give every block the "
                "number of its first S6 call: block(channels, time_channels, slot=...)"
            )


def build_diffusion(config: Config) -> Diffusion:
    """The forward process and what is predicted."""
    d = config.diffusion
    betas = make_betas(d.beta_schedule, d.timesteps, d.beta_start, d.beta_end)
    return Diffusion(betas, d.prediction)


def build_scheduler(config: Config, diffusion: Diffusion) -> NoiseScheduler:
    """The noise scheduler over the process that is trained, set to the steps of the run.

    Raises:
        ConfigError: It cannot walk this process, or not in so many steps.
    """
    scheduler: NoiseScheduler = create(
        "scheduler",
        config.sample.scheduler,
        betas=diffusion.betas,
        prediction_type=diffusion.prediction,
    )
    scheduler.set_timesteps(config.sample.steps)
    return scheduler


def order_plan(model: nn.Module, config: Config, seed: int | None = None) -> OrderPlan:
    """The orders of a model at the configuration's image size; by default under its seed."""
    slots = tuple(model.scan_slots(config.data.image_size))  # type: ignore[operator]
    return OrderPlan(model.scan, slots, config.seed if seed is None else seed)  # type: ignore[arg-type]


def told_conditions(config: Config, dataset: ImageDataset) -> Conditions:
    """What the model of a run is told of each image.

    Raises:
        ConfigError: The data set cannot tell it.
    """
    named, model = config.data.dataset["name"], config.model
    if model.class_conditional and not dataset.class_names:
        raise ConfigError(
            f"model.class_conditional is true, and the data set {named!r} has no class labels"
        )
    if not model.conditions:
        return conditions_of(dataset).chosen([LABEL] if model.class_conditional else [])
    try:
        left_out = config.train.condition_dropout > 0
        return conditions_of(dataset).chosen(model.conditions, optional=left_out)
    except ConfigError as error:
        raise ConfigError(f"model.conditions: {error} (data set {named!r})") from None
