"""The layers of the UNet: ResNet block, SSLayer, upsampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from ssmdiff.nn import Fuse, channels_last, largest_divisor, orders_of, to_map, to_tokens, zeroed
from torch import Tensor, nn


def group_norm(channels: int) -> nn.GroupNorm:
    """At most 32 groups of at least 4 channels, so that a group is never a single value."""
    return nn.GroupNorm(largest_divisor(channels, min(32, channels // 4)), channels)


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
