"""The Mamba block along any scan order, as Vim, DiS and ZigMa use it on images.

Glossary: C channels of the feature map, D = expand C inner channels, N state, R rank of delta, K
directions, L tokens.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from ssmdiff import Grid, decode_order, order_rows, selective_scan
from ssmdiff.nn import ResidualBlock, SelectiveParameters
from torch import Tensor, nn

from ssmdiff_blocks.sequence import CausalConv, leave, visit


class Mamba(SelectiveParameters):
    """Mamba (S6) with its causal convolution along the order.

    For each direction k: u_k = silu(conv_k(in_proj(x) along order k)), y_k = S6_k(u_k);
    out = out_proj(sum_k y_k silu(gate_proj(x))).

    NOTE(paper): Vim's choice for several directions: convolution, projections to delta, B, C and
    the recurrence are each direction's own; in-projection, gate and out-projection are
    shared. DiS and ZigMa have one direction a layer, which is K = 1 here.

    The op takes one u for all directions and here each has its own, so it is called once for each,
    with its row of the order; the convolved tokens are put back on the grid first, as the op reads
    them there.

    Args:
        channels: C.
        directions: K, the rows of every order.
        state: N.
        expand: D / C.
        dt_rank: R; 0 stands for ceil(C / 16).
        conv_width: Taps of the convolution.
        discretization: ``"euler"`` or ``"zoh"``, see :func:`ssmdiff.selective_scan`.
    """

    def __init__(
        self,
        channels: int,
        directions: int,
        state: int = 16,
        expand: int = 2,
        dt_rank: int = 0,
        conv_width: int = 4,
        discretization: str = "euler",
    ) -> None:
        super().__init__()
        inner = expand * channels
        rank = dt_rank or math.ceil(channels / 16)
        self.sizes = (rank, state, state)
        self.discretization = discretization
        self.in_proj = nn.Linear(channels, inner, bias=False)
        self.gate_proj = nn.Linear(channels, inner, bias=False)
        self.conv = CausalConv(directions, inner, conv_width)
        self.x_weight = nn.Parameter(torch.empty(directions, inner, rank + 2 * state))
        self.add_recurrence(directions, inner, state, rank)
        self.out_proj = nn.Linear(inner, channels, bias=False)
        nn.init.uniform_(self.x_weight, -(inner**-0.5), inner**-0.5)  # as nn.Linear
        self.reset_recurrence()

    def forward(self, x: Tensor, grid: Grid, order: Tensor) -> Tensor:
        """(B, L, C) tokens in grid order to the same shape; the order is all it knows of the grid.

        Args:
            x: (B, L, C).
            grid: Of L tokens.
            order: (K, L) int32.
        """
        tokens, restart = decode_order(order)
        u = leave(self.conv(visit(self.in_proj(x), tokens), restart), tokens)
        dt, B, C = torch.matmul(u, self.x_weight).split(self.sizes, dim=-1)
        delta = torch.matmul(dt, self.dt_weight)
        A = self.A
        y = torch.zeros_like(u[:, 0])
        for k, order_k in enumerate(order_rows(order)):
            row = slice(k, k + 1)
            y = y + selective_scan(
                u[:, k],
                delta[:, row],
                A[row],
                B[:, row],
                C[:, row],
                order_k,
                D=self.D[row],
                delta_bias=self.dt_bias[row],
                discretization=self.discretization,
            )
        gated: Tensor = self.out_proj(y * F.silu(self.gate_proj(x)))
        return gated


class MambaBlock(ResidualBlock):
    """x + Mamba(norm(x) + time).

    Args:
        channels: C.
        time_channels: Width of the time embedding.
        directions: K of the scan.
        state: N.
        expand: Inner channels over C.
        dt_rank: Rank of delta; 0 stands for ceil(C / 16).
        conv_width: Taps of the causal convolution along the order.
        discretization: ``"euler"`` as Mamba's kernels, ``"zoh"`` as eq. 6 of VM-DDPM.
    """

    def __init__(
        self,
        channels: int,
        time_channels: int,
        directions: int,
        state: Annotated[int, Field(ge=1, le=256)] = 16,
        expand: Annotated[int, Field(ge=1, le=8)] = 2,
        dt_rank: Annotated[int, Field(ge=0)] = 0,
        conv_width: Literal[2, 3, 4] = 4,
        discretization: Literal["euler", "zoh"] = "euler",
    ) -> None:
        mamba = Mamba(channels, directions, state, expand, dt_rank, conv_width, discretization)
        super().__init__(channels, time_channels, mamba)
