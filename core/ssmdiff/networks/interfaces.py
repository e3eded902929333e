"""What blocks and backbones are: the interfaces that plugins fill.

Axis letters: B batch, C channels, H W (D) grid, L tokens, K directions, T timesteps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor

from ssmdiff.orders.scan import Scan, ScanSlot
from ssmdiff.orders.scan_order import Grid


class Block(Protocol):
    """Mixes the tokens of a feature map, by a state space model or otherwise; an ``nn.Module``.

    A factory is called as ``factory(channels=..., time_channels=..., directions=..., **options)``
    and may leave out what it does not need (a convolution needs no directions).
    """

    scan_calls: int
    """How many S6 calls one forward pass makes: the number of orders that it is given."""
    slot: int
    """Where its S6 calls begin in ``scan_slots`` of the network; set by the factory."""

    def __call__(self, x: Tensor, time: Tensor, orders: Sequence[Tensor]) -> Tensor:
        """Same shape and dtype as ``x``.

        Args:
            x: (B, C, *grid), any memory format; channels-last saves copies.
            time: (B, time_channels) embedding of the timestep (and of the label, if any), already
                through its last activation: a block maps it linearly.
            orders: ``scan_calls`` of them, (K, L) int32 with L = prod(grid) and K = directions, to
                be handed to :func:`ssmdiff.selective_scan` as they are.
        """
        ...


class BlockFactory(Protocol):
    """What a backbone receives, to build the blocks of its network: each for slots of its own."""

    def __call__(self, channels: int, time_channels: int, *, slot: int) -> Any:
        """A :class:`Block` whose S6 calls are ``slot`` and those after it, ``scan_calls`` in all.

        A scan may vary from slot to slot, and with it the directions of a block.

        Args:
            channels: C of the feature maps that it mixes.
            time_channels: Width of the time embedding.
            slot: Its place in ``scan_slots``.
        """
        ...


class Backbone(Protocol):
    """A denoiser network; an ``nn.Module``.

    A factory is called as ``factory(in_channels=..., scan=..., block=..., num_classes=...,
    **options)``, where ``block`` is a :class:`BlockFactory` and ``num_classes`` is 0 when
    the model is unconditional. Called as ``model(x=..., timesteps=..., context=...)`` it drops into
    MONAI's ``DiffusionInferer`` unmodified.
    """

    scan: Scan

    def __call__(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        orders: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """The prediction, in the shape of ``x``.

        Args:
            x: (B, C, *image_size) noisy images.
            timesteps: (), (1,) or (B,), integer or float.
            context: (B,) integer class labels for a conditional model, else None.
            orders: One per slot of :meth:`scan_slots`; None lets the backbone draw its own.

        Raises:
            ConfigError: The image size is not one that the network's strides divide.
        """
        ...

    def scan_slots(self, image_size: Grid) -> list[ScanSlot]:
        """Every S6 call of one forward pass in order, with its grid of tokens."""
        ...


DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
)
"""What activations are in each precision, in training and in exported graphs."""
