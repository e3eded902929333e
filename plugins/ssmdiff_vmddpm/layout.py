"""Feature maps and token sequences as two views of one channels-last tensor, and their fusion.

A map (B, C, H, W) in channels-last memory is the same bytes as tokens (B, L, C), L = H W: token
``h * W + w`` is the pixel (h, w). Pointwise layers and norms run on the tokens, convolutions on the
map, and nothing is copied in between.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from ssmdiff.orders import Grid
from torch import Tensor, nn


def to_tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, L, C): a view when ``x`` is channels-last, else one copy."""
    tokens: Tensor = x.permute(0, 2, 3, 1).flatten(1, 2)
    return tokens


def to_map(x: Tensor, grid: Grid) -> Tensor:
    """(B, L, C) to (B, C, H, W) in channels-last memory: a view."""
    view: Tensor = x.unflatten(1, grid).permute(0, 3, 1, 2)
    return view


class Fuse(nn.Module):
    """The 1x1 convolution of a concatenation, without building it: sum_i W_i x_i + b.

    Args:
        inputs: How many token tensors (B, L, C) are fused.
        channels: C of each of them and of the result.
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.linear = nn.Linear(inputs * channels, channels)

    def forward(self, *tokens: Tensor) -> Tensor:
        weights: tuple[Tensor, ...] = self.linear.weight.split(self.channels, dim=1)
        fused: Tensor = F.linear(tokens[0], weights[0], self.linear.bias)
        for x, weight in zip(tokens[1:], weights[1:], strict=True):
            fused = fused + F.linear(x, weight)
        return fused


def group_norm(channels: int) -> nn.GroupNorm:
    """At most 32 groups of at least 4 channels, so that a group is never a single value."""
    wanted = max(1, min(32, channels // 4))
    groups = max(n for n in range(1, wanted + 1) if channels % n == 0)
    return nn.GroupNorm(groups, channels)


def zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with weight and bias zero: what follows it starts without its contribution."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def channels_last(x: Tensor) -> Tensor:
    """``x`` in channels-last memory; free if it is already."""
    return x.contiguous(memory_format=torch.channels_last)
