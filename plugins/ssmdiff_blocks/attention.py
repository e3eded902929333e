"""The transformer block: multi-head self-attention, the quadratic baseline of the scans.

Letters: C channels in H heads of P, L tokens of a grid of n axes.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from ssmdiff import ConfigError, Grid
from ssmdiff.nn import ResidualBlock, grid_angles, is_transformed, largest_divisor
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

ROTARY_BASE = 100.0
"""Of the frequencies: RoPE-ViT's for axial positions, which are tens and not thousands."""


class Attention(nn.Module):
    """softmax(q k^T / sqrt(P)) v over all tokens of the grid, q and k rotated by their positions.

    Positions are axial rotary embeddings (Heo et al. 2024): each axis turns its share of a head's
    channel pairs. They depend on distances alone and are computed for the grid at hand, so the
    block needs no size beforehand and serves every resolution of a UNet.

    Args:
        channels: C.
        head_channels: P at most: the largest divisor of C that is not above it.
    """

    def __init__(self, channels: int, head_channels: int = 64) -> None:
        super().__init__()
        self.head = largest_divisor(channels, head_channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out_proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """(B, L, C) tokens of the grid to the same shape.

        Raises:
            ConfigError: A head has too few channels to tell the axes of the grid apart.
        """
        pairs = self.head // (2 * len(grid))
        if not pairs:
            raise ConfigError(
                f"block attention: a head of {self.head} channels cannot hold positions on "
                f"{len(grid)} axes; expected at least {2 * len(grid)} channels: more 'channels' of "
                "the backbone with a divisor of that size, or a larger 'head_channels'"
            )
        # (3, B, H, L, P)
        q, k, v = self.qkv(x).unflatten(2, (3, -1, self.head)).permute(2, 0, 3, 1, 4)
        angles = grid_angles(grid, pairs, ROTARY_BASE, x.device)
        q, k = rotated(q, angles), rotated(k, angles)
        if is_transformed():  # the fused kernels have neither forward mode nor vmap
            with sdpa_kernel(SDPBackend.MATH):
                y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = F.scaled_dot_product_attention(q, k, v)
        mixed: Tensor = self.out_proj(y.transpose(1, 2).flatten(2))
        return mixed


def rotated(x: Tensor, angles: Tensor) -> Tensor:
    """x (B, H, L, P) with channel pairs (i, i + m) turned by angles (L, m); the rest as it is."""
    m = angles.shape[1]
    cos, sin = angles.cos(), angles.sin()
    a, b, rest = x.tensor_split([m, 2 * m], dim=-1)
    turned = torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).to(x.dtype)
    return torch.cat([turned, rest], dim=-1)


class AttentionBlock(ResidualBlock):
    """x1 = x + Attention(norm(x) + time), out = x1 + MLP(norm(x1) + time); takes no orders.

    Args:
        channels: C.
        time_channels: Width of the time embedding.
        head_channels: Channels of a head at most: the largest divisor of C.
        mlp_ratio: Inner channels of the MLP over C; 0 leaves it out.
    """

    scan_calls = 0

    def __init__(
        self,
        channels: int,
        time_channels: int,
        head_channels: Annotated[int, Field(ge=4, le=256)] = 64,
        mlp_ratio: Annotated[int, Field(ge=0, le=8)] = 4,
    ) -> None:
        super().__init__(channels, time_channels, Attention(channels, head_channels), mlp_ratio)
