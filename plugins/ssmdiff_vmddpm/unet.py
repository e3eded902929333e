"""The UNet of VM-DDPM, section III-B and figure 1 (a).

With n = len(widths), c_i = channels widths[i], c_n = c_{n-1} and s the stem's stride:

    stem         image                          -> (c_0,  H / s)
    encoder i    `layers` SSLayers at c_i, halving -> e_i (c_{i+1}, H / (s 2^{i+1}))
    bottleneck   one SSLayer at c_n
    decoder i    fuse with e_i, `layers` SSLayers at c_{i+1}, doubling -> (c_i, H / (s 2^i))
    projection   fuse with the stage before the first halving -> (in_channels s^2, H / s) -> image
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from ssmdiff import BlockFactory, Grid, Scan, ScanSlot
from ssmdiff.nn import (
    Fuse,
    ImageBackbone,
    channels_last,
    is_transformed,
    largest_divisor,
    orders_of,
    to_map,
    to_tokens,
    zeroed,
)
from torch import Tensor, nn

Widths = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
"""Channels of each stage over C."""


class VMDDPMUNet(ImageBackbone):
    """A denoiser of images: encoder, bottleneck and decoder of SSLayers with skip connections.

    NOTE(paper): the encoder's output has size H / 32 after four stages, so a stem halves once
    before them; its features join at the end, before the projection. The paper's first stage
    has C channels and its last 8 C.

    Args:
        in_channels: Channels of the image, and of what is told in places.
        out_channels: Channels of the image.
        scan: Orders the tokens of each S6 call; drawn from when a call brings no orders.
        block: Builds a block, see :class:`ssmdiff.BlockFactory`.
        context_channels: Numbers that are told of an image; 0 for none.
        channels: C, even.
        widths: Channels of each stage over C; as many stages, each of which halves the image.
        layers: SSLayers of each stage.
        stem_stride: What the stem divides the image's sides by.
        dropout: Probability in the ResNet blocks.
    """

    name = "vmddpm"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        scan: Scan,
        block: BlockFactory,
        context_channels: int = 0,
        channels: Annotated[int, Field(ge=2, multiple_of=2)] = 64,
        widths: Widths = (1, 2, 4, 8),
        layers: Annotated[int, Field(ge=1)] = 2,
        stem_stride: Literal[1, 2, 4] = 2,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        time_channels = 4 * channels
        super().__init__(in_channels, out_channels, scan, context_channels, channels, time_channels)
        self.stem_stride, self.stages = stem_stride, len(widths)
        c = [channels * width for width in (*widths, widths[-1])]

        def stage(width: int, count: int) -> nn.ModuleList:
            blocks = (self.build_block(block, width, time_channels) for _ in range(count))
            return nn.ModuleList(self.layer(width, time_channels, b, dropout) for b in blocks)

        # A patch of pixels and its eight neighbours: no pixel is skipped at any stride.
        self.stem = nn.Conv2d(
            in_channels, c[0], 3 * stem_stride, stride=stem_stride, padding=stem_stride
        )
        self.encoder = nn.ModuleList(stage(width, layers) for width in c[:-1])
        self.down = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in itertools.pairwise(c)
        )
        self.bottleneck = stage(c[-1], 1)
        # Decoder modules are listed as they run, from the smallest grid to the largest.
        self.skips = nn.ModuleList(Fuse(2, width) for width in reversed(c))
        self.decoder = nn.ModuleList(stage(width, layers) for width in reversed(c[1:]))
        self.up = nn.ModuleList(Upsample(b, a) for a, b in reversed(list(itertools.pairwise(c))))
        # NOTE(paper): the "final projection" predicts the s x s pixels of a stem token as channels.
        self.out_norm = group_norm(c[0])
        self.out_conv = zeroed(nn.Conv2d(c[0], out_channels * stem_stride**2, 3, padding=1))
        # The maps' format for the weights too: at C = 64 on two CPU cores 1.1x in training, 1.7x in
        # sampling; small networks do not care.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def layer(self, channels: int, time_channels: int, block: Any, dropout: float) -> nn.Module:
        """One layer of a stage around its block; it has the block as ``block``."""
        return SSLayer(channels, time_channels, block, dropout)

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        orders: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """The prediction, (B, C, H, W); see :class:`ssmdiff.Backbone`.

        Raises:
            ConfigError: An image size that the strides do not divide, a context or orders that do
                not fit the model.
        """
        time, orders = self.start(x, timesteps, context, orders)
        h, skips = self._encode(x, time, orders)
        h = self._layers(self.bottleneck, h, time, orders)
        for fuse, layers, up in zip(self.skips, self.decoder, self.up, strict=False):
            h = self._join(fuse, h, skips.pop())
            h = up(self._layers(layers, h, time, orders))
        h = self._join(self.skips[-1], h, skips.pop())
        return F.pixel_shuffle(self.out_conv(F.silu(self.out_norm(h))), self.stem_stride)

    def encode(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        orders: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """The encoder's output: (B, 8 C, H / 32, W / 32) with the defaults."""
        time, orders = self.start(x, timesteps, context, orders)
        return self._encode(x, time, orders)[0]

    def scan_slots(self, image_size: Grid) -> list[ScanSlot]:
        """One slot for each S6 call of :meth:`forward`, in the order in which blocks are built.

        Raises:
            ConfigError: The strides do not divide the image size.
        """
        self._check_size(image_size)
        scale = [self.stem_stride * 2**i for i in range(self.stages + 1)]
        runs: list[tuple[Any, int]] = [
            *zip(self.encoder, scale[:-1], strict=True),
            (self.bottleneck, scale[-1]),
            *zip(self.decoder, reversed(scale[1:]), strict=True),
        ]
        return [
            ScanSlot(tuple(side // factor for side in image_size))
            for layers, factor in runs
            for layer in layers
            for _ in range(layer.block.scan_calls)
        ]

    def _encode(
        self, x: Tensor, time: Tensor, orders: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """The encoder's output and the features of all skips, the largest grid first."""
        # With one channel both memory formats have the same strides, so the format is set after
        # the stem and not before it.
        h = channels_last(self.stem(x))
        skips = []
        for i, (layers, down) in enumerate(zip(self.encoder, self.down, strict=True)):
            h = self._layers(layers, h, time, orders)
            if i == 0:
                skips.append(h)
            h = down(h)
            skips.append(h)
        return h, skips

    def _layers(self, layers: Any, h: Tensor, time: Tensor, orders: Sequence[Tensor]) -> Tensor:
        for layer in layers:
            h = self.run_layer(layer, h, time, orders)
        return h

    def _join(self, fuse: nn.Module, h: Tensor, skip: Tensor) -> Tensor:
        return to_map(fuse(to_tokens(h), to_tokens(skip)), tuple(h.shape[2:]))

    def _check_size(self, image_size: Grid) -> None:
        self.check_sides(
            image_size,
            self.stem_stride * 2**self.stages,
            reason=f"stem_stride {self.stem_stride} and {self.stages} halvings",
            remedy="fewer 'widths' or a smaller 'stem_stride'",
        )


class GroupNorm(nn.GroupNorm):
    """torch's, whose rules of forward mode and second derivatives refuse channels-last memory."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.contiguous() if is_transformed() else x)


def group_norm(channels: int) -> GroupNorm:
    """At most 32 groups of at least 4 channels, so that a group is never a single value."""
    return GroupNorm(largest_divisor(channels, min(32, channels // 4)), channels)


class ResNetBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))) (1 + scale) + shift)), scale and shift from the time.

    The second convolution starts at zero, so the block starts as the identity.
    """

    def __init__(self, channels: int, time_channels: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = group_norm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.time = nn.Linear(time_channels, 2 * channels)
        self.norm2 = group_norm(channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zeroed(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(B, C, H, W) and (B, time_channels) to (B, C, H, W)."""
        scale, shift = self.time(time)[:, :, None, None].chunk(2, dim=1)
        h = self.norm2(self.conv1(F.silu(self.norm1(x))))
        h = h * (1 + scale) + shift
        out: Tensor = x + self.conv2(self.dropout(F.silu(h)))
        return out


class SSLayer(nn.Module):
    """A ResNet block, a token-mixing block, and the fusion of their features, figure 1 (b).

    NOTE(paper): "residual connections and feature fusion within the layer are performed in the
    output connection". Taken as r = ResNet(x), s = block(r), out = r + Fuse(r, s), where Fuse is
    the 1x1 convolution of the two maps.

    Args:
        channels: C, of input and output.
        time_channels: Width of the time embedding.
        block: See :class:`ssmdiff.Block`.
        dropout: Probability, in the ResNet block.
    """

    def __init__(self, channels: int, time_channels: int, block: Any, dropout: float = 0.0) -> None:
        super().__init__()
        self.resnet = ResNetBlock(channels, time_channels, dropout)
        self.block = block
        self.fuse = Fuse(2, channels)

    def forward(self, x: Tensor, time: Tensor, orders: Sequence[Tensor]) -> Tensor:
        """(B, C, H, W), (B, time_channels) and the network's orders to (B, C, H, W)."""
        # Off the CPU, PyTorch's GroupNorm leaves channels-last memory; come back once, here.
        r = channels_last(self.resnet(x, time))
        s = self.block(r, time, orders_of(self.block, orders))
        tokens = to_tokens(r)
        return to_map(tokens + self.fuse(tokens, to_tokens(s)), tuple(x.shape[2:]))


class Upsample(nn.Module):
    """Twice the size: pointwise to the new width, nearest neighbour, 3x3 convolution.

    The width changes first, at the low resolution, where it is four times cheaper.
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        same = channels == out_channels
        self.narrow = nn.Identity() if same else nn.Conv2d(channels, out_channels, 1)
        self.conv = nn.Conv2d(out_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C_out, 2 H, 2 W)."""
        up: Tensor = self.conv(F.interpolate(self.narrow(x), scale_factor=2.0, mode="nearest"))
        return up
