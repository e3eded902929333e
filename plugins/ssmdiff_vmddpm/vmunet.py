"""VM-UNet's form: the UNet whose layers are blocks alone (Ruan and Xiang 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from ssmdiff import BlockFactory, Scan
from ssmdiff.nn import orders_of
from torch import Tensor, nn

from ssmdiff_vmddpm.unet import VMDDPMUNet, Widths


class BlockLayer(nn.Module):
    """A block as a layer of its own; the time reaches it by the block's own norm.

    Args:
        block: See :class:`ssmdiff.Block`.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, time: Tensor, orders: Sequence[Tensor]) -> Tensor:
        """(B, C, H, W), (B, time_channels) and the network's orders to (B, C, H, W)."""
        out: Tensor = self.block(x, time, orders_of(self.block, orders))
        return out


class VMUNet(VMDDPMUNet):
    """VM-DDPM's UNet without its ResNet blocks; with ``--block vss`` the form of VM-UNet.

    NOTE(paper): VM-UNet segments: it takes no time, merges patches of 4 x 4 and adds its skips.
    Here stem, sampling and skips are those of VM-DDPM's UNet, so that the rows of a table differ in
    the layers alone.

    Args:
        in_channels: Channels of the image, and of what is told in places.
        out_channels: Channels of the image.
        scan: Orders the tokens of each S6 call; drawn from when a call brings no orders.
        block: Builds a block, see :class:`ssmdiff.BlockFactory`.
        context_channels: Numbers that are told of an image; 0 for none.
        channels: C, even.
        widths: Channels of each stage over C; as many stages, each of which halves the image.
        layers: Blocks of each stage.
        stem_stride: What the stem divides the image's sides by.
    """

    name = "vmunet"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        scan: Scan,
        block: BlockFactory,
        context_channels: int = 0,
        channels: Annotated[int, Field(ge=2, multiple_of=2)] = 96,
        widths: Widths = (1, 2, 4, 8),
        layers: Annotated[int, Field(ge=1)] = 2,
        stem_stride: Literal[1, 2, 4] = 4,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            scan,
            block,
            context_channels,
            channels,
            widths,
            layers,
            stem_stride,
        )

    def layer(self, channels: int, time_channels: int, block: Any, dropout: float) -> nn.Module:
        """The block alone."""
        return BlockLayer(block)
