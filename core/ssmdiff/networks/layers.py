"""Modules that blocks and backbones share: token views, fusion, the residual block.

A map (B, C, *grid) in channels-last memory is the same bytes as tokens (B, L, C), L = prod(grid):
token ``h * W + w`` is the pixel (h, w). Pointwise layers and norms run on the tokens, convolutions
on the map, and nothing is copied in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssmdiff.orders.scan import Grid

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def to_tokens(x: Tensor) -> Tensor:
    """(B, C, *grid) to (B, L, C): a view, contiguous when ``x`` is channels-last."""
    return x.flatten(2).transpose(1, 2)


def to_map(x: Tensor, grid: Grid) -> Tensor:
    """(B, L, C) to (B, C, *grid) in channels-last memory: a view."""
    view: Tensor = x.transpose(1, 2).unflatten(2, grid)
    return view


def channels_last(x: Tensor) -> Tensor:
    """A map (B, C, H, W) in channels-last memory; free if it is already."""
    return x.contiguous(memory_format=torch.channels_last)


def zeroed(layer: Layer) -> Layer:
    """The layer with weight and bias zero: what follows it starts without its contribution."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def largest_divisor(number: int, at_most: int) -> int:
    """The largest divisor of ``number`` that is not above ``at_most``; 1 at least."""
    return max(n for n in range(1, max(1, at_most) + 1) if number % n == 0)


def grid_angles(grid: Grid, count: int, base: float, device: torch.device) -> Tensor:
    """Angles of sinusoidal positions, (L, dims count) float32: p_axis base^(-i / count).

    p_axis is the token's coordinate along an axis, i = 0 .. count - 1; the axes one after another.
    """
    axes = [torch.arange(side, device=device, dtype=torch.float32) for side in grid]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)
    steps = torch.arange(count, device=device, dtype=torch.float32)
    return (places[:, :, None] * base ** (-steps / count)).flatten(1)


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


class TimedNorm(nn.Module):
    """LayerNorm over the channels of a token, plus the time embedding through a 1x1 convolution.

    NOTE(paper): VM-DDPM's "embedding of time information through the convolution layer". The
    embedding is the same at every pixel, so its 1x1 convolution is one linear map of
    (B, time_channels).
    """

    def __init__(self, channels: int, time_channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.time = nn.Linear(time_channels, channels)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(B, L, C) and (B, time_channels) to (B, L, C)."""
        timed: Tensor = self.norm(x) + self.time(time).unsqueeze(1)
        return timed


class MLP(nn.Module):
    """The transformer's pointwise layers, with ``ratio`` C channels between them."""

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        self.expand = nn.Linear(channels, ratio * channels)
        self.contract = nn.Linear(ratio * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, C) to (B, L, C)."""
        mixed: Tensor = self.contract(F.gelu(self.expand(x)))
        return mixed


class ResidualBlock(nn.Module):
    """A block of one mixer: x1 = x + mixer(norm(x) + time), then x1 + MLP(norm(x1) + time).

    Args:
        channels: C.
        time_channels: Width of the time embedding.
        mixer: ``(tokens (B, L, C), grid, *orders) -> (B, L, C)``.
        mlp_ratio: Inner channels of the MLP over C; 0 leaves it out.
    """

    scan_calls: int = 1
    slot: int = 0

    def __init__(
        self, channels: int, time_channels: int, mixer: nn.Module, mlp_ratio: int = 0
    ) -> None:
        super().__init__()
        self.norm = TimedNorm(channels, time_channels)
        self.mixer = mixer
        self.mlp_norm = TimedNorm(channels, time_channels) if mlp_ratio else None
        self.mlp = MLP(channels, mlp_ratio) if mlp_ratio else None

    def forward(self, x: Tensor, time: Tensor, orders: Sequence[Tensor] = ()) -> Tensor:
        """(B, C, *grid) to the same shape, channels-last; ``scan_calls`` orders of L tokens."""
        grid: Grid = tuple(x.shape[2:])
        h = to_tokens(x)
        h = h + self.mixer(self.norm(h, time), grid, *orders[: self.scan_calls])
        if self.mlp is not None and self.mlp_norm is not None:
            h = h + self.mlp(self.mlp_norm(h, time))
        return to_map(h, grid)
