"""The Mamba-2 block along any scan order: state space duality, a scalar A for each head.

Glossary: C channels of the feature map, D = H P inner channels in H heads, N state, K directions,
L tokens.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from ssmdiff import Grid, decode_order
from ssmdiff.nn import ResidualBlock, SelectiveParameters, largest_divisor
from torch import Tensor, nn

from ssmdiff_blocks.sequence import CausalConv, leave, visit
from ssmdiff_blocks.ssd import ssd

A_RANGE = (1.0, 16.0)
"""-A at initialisation: uniform between these, as in Mamba-2."""


class GatedRMSNorm(nn.Module):
    """RMSNorm(y silu(z)), Mamba-2's last norm, in float32 or wider."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        """(B, L, D) and (B, L, D) to the same shape and the dtype of y."""
        gated = (y * F.silu(z)).to(torch.promote_types(y.dtype, torch.float32))
        return (F.rms_norm(gated, gated.shape[-1:], eps=self.eps) * self.weight).to(y.dtype)


class Mamba2(SelectiveParameters):
    """Mamba-2 with its causal convolution along the order.

    x, z = in_proj(x), gate_proj(x); for each direction k: (B, C, dt) = ssm_proj_k(x),
    y_k = SSD_k(silu(conv_k(x along order k)), ...); out = out_proj(RMSNorm(sum_k y_k silu(z))).

    NOTE(paper): Mamba-2 has one direction. As in ``mamba``, each direction has its own
    convolutions, B, C, delta and A, and shares the rest. B and C are shared by the heads (one
    group, Mamba-2's multi-value form). No S6 op runs: the scan is made of matrix products.

    Args:
        channels: C.
        directions: K, the rows of every order.
        state: N.
        expand: D / C.
        head_channels: P at most: the largest divisor of D that is not above it.
        conv_width: Taps of the convolutions.
        chunk: Tokens of a chunk; the result does not depend on it.
    """

    def __init__(
        self,
        channels: int,
        directions: int,
        state: int = 64,
        expand: int = 2,
        head_channels: int = 64,
        conv_width: int = 4,
        chunk: int = 64,
    ) -> None:
        super().__init__()
        inner = expand * channels
        self.head = largest_divisor(inner, head_channels)
        heads = inner // self.head
        self.directions, self.state, self.chunk = directions, state, chunk
        self.in_proj = nn.Linear(channels, inner, bias=False)
        self.gate_proj = nn.Linear(channels, inner, bias=False)
        self.ssm_proj = nn.Linear(channels, directions * (2 * state + heads), bias=False)
        self.conv = CausalConv(directions, inner, conv_width)
        self.ssm_conv = CausalConv(directions, 2 * state, conv_width)
        self.add_recurrence(directions, heads)
        nn.init.uniform_(self.A_log, *A_RANGE)
        self.A_log.data.log_()
        self.norm = GatedRMSNorm(inner)
        self.out_proj = nn.Linear(inner, channels, bias=False)
        self.reset_recurrence()

    def forward(self, x: Tensor, grid: Grid, order: Tensor) -> Tensor:
        """(B, L, C) tokens in grid order to the same shape; the order is all it knows of the grid.

        Args:
            x: (B, L, C).
            grid: Of L tokens.
            order: (K, L) int32.
        """
        tokens, restart = decode_order(order)
        u = self.conv(visit(self.in_proj(x), tokens), restart)
        parts = self.ssm_proj(x).unflatten(2, (self.directions, -1)).transpose(1, 2)
        BC, dt = visit(parts, tokens).tensor_split([2 * self.state], dim=-1)
        B, C = self.ssm_conv(BC, restart).chunk(2, dim=-1)
        y = ssd(
            u.unflatten(3, (-1, self.head)),
            dt,
            self.A,
            B,
            C,
            self.D,
            self.dt_bias,
            restart,
            self.chunk,
        )
        merged = leave(y.flatten(3), tokens).sum(1)
        gated: Tensor = self.out_proj(self.norm(merged, self.gate_proj(x)))
        return gated


class Mamba2Block(ResidualBlock):
    """x + Mamba2(norm(x) + time).

    Args:
        channels: C.
        time_channels: Width of the time embedding.
        directions: K of the scan.
        state: N.
        expand: Inner channels over C.
        head_channels: Channels of a head at most: the largest divisor of the inner channels.
        conv_width: Taps of the causal convolutions along the order.
        chunk: Tokens of a chunk; a matter of speed alone.
    """

    def __init__(
        self,
        channels: int,
        time_channels: int,
        directions: int,
        state: Annotated[int, Field(ge=1, le=256)] = 64,
        expand: Annotated[int, Field(ge=1, le=8)] = 2,
        head_channels: Annotated[int, Field(ge=1, le=256)] = 64,
        conv_width: Literal[2, 3, 4] = 4,
        chunk: Literal[16, 32, 64, 128, 256] = 64,
    ) -> None:
        mamba2 = Mamba2(channels, directions, state, expand, head_channels, conv_width, chunk)
        super().__init__(channels, time_channels, mamba2)
