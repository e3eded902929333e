"""A run on disk with a network of a few thousand numbers, for checks that need a trained model.

Its parts are of no plugin: they are in the registry while :func:`probe_parts` is open.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from ssmdiff.diffusion.conditions import Condition, Conditions
from ssmdiff.networks.backbone import BlockFactory, ImageBackbone, orders_of
from ssmdiff.orders.group_shuffle import GroupShuffle
from ssmdiff.orders.scan import Grid, Scan, ScanOrder, ScanSlot
from ssmdiff.registry.component import KINDS, Component
from ssmdiff.registry.plugin import BUILT_IN, Plugin, Registered
from ssmdiff.registry.registry import registry
from ssmdiff.runs import checkpoint as ckpt
from ssmdiff.runs.compose import build_backbone
from ssmdiff.runs.config import resolve
from ssmdiff.runs.folder import RunFolder
from ssmdiff.runs.run import Run
from ssmdiff.testing import probes

NAME = "ssmdiff-probe"
SIZE = (8, 8)
CONDITIONS = Conditions(
    [
        Condition("label", "label", ("a", "b"), optional=True),
        Condition("angle", "number", low=-1.0, high=1.0),
        Condition("mask", "mask", ("out", "in")),
        Condition("other", "image", optional=True),
    ]
)
"""What the probe's network is told: a condition of each kind that is encoded in its own way."""
TOLD: Mapping[str, Any] = {
    "mask": (np.indices(SIZE).sum(0) > SIZE[0]).astype(np.uint8),
    "other": np.linspace(-1, 1, math.prod(SIZE), dtype=np.float32).reshape(1, *SIZE),
}
"""What of it has no usual value."""
WIDTH = 8


class ShuffleScan(Scan):
    """All tokens in random order in two directions, with the recipe that an exported file needs."""

    stochastic = True

    def directions(self, dims: int) -> int:
        return 2

    def order(self, grid: Grid, generator: np.random.Generator | None = None) -> ScanOrder:
        assert generator is not None
        return self.recipe(grid).draw(generator)

    def recipe(self, grid: Grid) -> GroupShuffle:
        tokens = np.arange(math.prod(grid))
        return GroupShuffle(ScanOrder(np.stack([tokens, tokens[::-1]])), tokens[:, None])


class PlainBackbone(ImageBackbone):
    """A convolution, a block, a convolution."""

    name = NAME

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        scan: Scan,
        block: BlockFactory,
        context_channels: int = 0,
    ) -> None:
        super().__init__(in_channels, out_channels, scan, context_channels, WIDTH, WIDTH)
        self.enter = nn.Conv2d(in_channels, WIDTH, 1)
        self.block = self.build_block(block, WIDTH, WIDTH)
        self.leave = nn.Conv2d(WIDTH, out_channels, 1)

    def scan_slots(self, image_size: Grid) -> list[ScanSlot]:
        return [ScanSlot(tuple(image_size))] * self.scan_calls

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        orders: Sequence[Tensor] | None = None,
    ) -> Tensor:
        time, orders = self.start(x, timesteps, context, orders)
        y: Tensor = self.leave(self.block(self.enter(x), time, orders_of(self.block, orders)))
        return y


def _block(channels: int, time_channels: int) -> nn.Module:
    forgotten: Any = deque(maxlen=0)  # of what a probe block is called with, which a file needs not
    return probes.ProbeBlock(channels, time_channels, 0, forgotten)


def _no_images(image_size: Grid) -> object:
    raise NotImplementedError("nothing is trained on it")


PARTS: dict[str, Callable[..., Any]] = {
    "scan": ShuffleScan,
    "block": _block,
    "backbone": PlainBackbone,
    "dataset": _no_images,
}


@contextlib.contextmanager
def probe_parts() -> Iterator[None]:
    """The parts of the probe's run are registered inside."""
    from ssmdiff import __version__

    plugin = Plugin(NAME, BUILT_IN, __version__, __name__)
    known = registry()._components
    entries = {
        (kind, NAME): [Registered(KINDS[kind], Component(NAME, factory, "for checks"), plugin)]
        for kind, factory in PARTS.items()
    }
    added = {key: entry for key, entry in entries.items() if key not in known}
    known.update(added)
    try:
        yield
    finally:
        for key in added:
            del known[key]


def make_run(folder: Path) -> Run:
    """The run, untrained and told of :data:`CONDITIONS`, none of its weights zero; call it inside
    :func:`probe_parts`."""
    config = resolve(
        {
            "data": {"dataset": NAME, "image_size": list(SIZE)},
            "model": {
                "backbone": NAME,
                "block": NAME,
                "scan": NAME,
                "conditions": CONDITIONS.names,
            },
            "diffusion": {"timesteps": 20},
            "train": {"callbacks": []},
            "sample": {"scheduler": "ddim", "steps": 3},
        }
    )
    with probes.seeded(0):
        model = probes.move_parameters(build_backbone(config, 1, CONDITIONS))
    run = RunFolder(folder)
    run.create(config)
    weights = {"model": model.state_dict(), "ema": model.state_dict()}
    names = list(CONDITIONS.named("label").names)
    state = {"channels": 1, "class_names": names, "conditions": CONDITIONS.record()}
    ckpt.save(run.checkpoints, 1, weights, state)
    return Run(folder)
