"""The cross-scan module (CSM) of VM-DDPM, section III-D: VMamba's SS2D over one op for any order.

Glossary: C channels of the feature map, D = expand C inner channels, N state, R rank of delta, K
directions, L tokens. Projections are pointwise over tokens, so they commute with the order: they
are computed once in grid order for all directions, and the op walks the order itself.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from ssmdiff import Grid, selective_scan
from ssmdiff.nn import SelectiveParameters, to_map, to_tokens
from torch import Tensor, nn


class CSM(SelectiveParameters):
    """Scan expansion, S6 and scan merge: mixes the tokens of a grid along K orders.

    u = silu(conv(in_proj(x))),  y = sum_k S6_k(u),  out = out_proj(norm(y) silu(gate_proj(x))).

    Args:
        channels: C.
        directions: K, the rows of every order.
        state: N.
        expand: D / C.
        dt_rank: R; 0 stands for ceil(C / 16).
        kernel: Side of the depthwise convolution, odd.
        discretization: ``"euler"`` or ``"zoh"``, see :func:`ssmdiff.selective_scan`.
    """

    def __init__(
        self,
        channels: int,
        directions: int,
        state: int = 16,
        expand: int = 2,
        dt_rank: int = 0,
        kernel: int = 3,
        discretization: str = "euler",
    ) -> None:
        super().__init__()
        inner = expand * channels
        rank = dt_rank or math.ceil(channels / 16)
        self.directions, self.state, self.rank = directions, state, rank
        self.discretization = discretization

        # Two projections, not one that is cut in half: each result is whole in memory, so the
        # convolution and the gate read it without a copy.
        self.in_proj = nn.Linear(channels, inner, bias=False)
        self.gate_proj = nn.Linear(channels, inner, bias=False)
        self.conv = nn.Conv2d(inner, inner, kernel, padding=kernel // 2, groups=inner)
        self.x_proj = nn.Linear(inner, directions * (rank + 2 * state), bias=False)
        self.add_recurrence(directions, inner, state, rank)
        self.norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, channels, bias=False)
        self.reset_recurrence()

    def forward(self, x: Tensor, grid: Grid, order: Tensor) -> Tensor:
        """(B, L, C) tokens of an H x W grid to the same shape.

        Args:
            x: (B, L, C) tokens in grid order.
            grid: (H, W).
            order: (K, L) int32.
        """
        u = to_tokens(F.silu(self.conv(to_map(self.in_proj(x), grid))))
        delta, B, C = self.project(u)
        y = selective_scan(
            u,
            delta,
            self.A,
            B,
            C,
            order,
            D=self.D,
            delta_bias=self.dt_bias,
            discretization=self.discretization,
        )
        gated: Tensor = self.out_proj(self.norm(y) * F.silu(self.gate_proj(x)))
        return gated

    def project(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """u (B, L, D) to delta (B, K, L, D), contiguous, and B, C (B, K, L, N), views of a matmul.

        ``matmul`` with (K, R, D) and not ``einsum``: it leaves the largest tensor of the module in
        the layout that the op documents, where einsum leaves the batch axis inside.
        """
        parts = self.x_proj(u).unflatten(2, (self.directions, -1)).transpose(1, 2)
        dt, B, C = parts.split([self.rank, self.state, self.state], dim=-1)
        return torch.matmul(dt, self.dt_weight), B, C
