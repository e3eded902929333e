"""Blocks: VM-DDPM's multi-level state space block (section III-C), its CNN twin, VMamba's block.

All work on tokens (B, L, C), a view of the channels-last feature map. A module reads the
normalised features plus the time embedding.

The cross-scan module (section III-D) is VMamba's SS2D over one op for any order. Glossary: C
channels of the feature map, D = expand C inner channels, N state, R rank of delta, K directions, L
tokens. Projections are pointwise over tokens, so they commute with the order: they are computed
once in grid order for all directions, and the op walks the order itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from ssmdiff import Grid, selective_scan
from ssmdiff.nn import Fuse, ResidualBlock, SelectiveParameters, TimedNorm, to_map, to_tokens
from torch import Tensor, nn

Kernel = Literal[3, 5, 7]


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


class CNN(nn.Module):
    """Local features: depthwise 3x3 convolution, then two pointwise layers with 2 C between them.

    NOTE(paper): "deep convolution operators" are read as depthwise ones; the SSLayer's ResNet block
    has the dense 3x3 convolutions already.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.expand = nn.Linear(channels, 2 * channels)
        self.contract = nn.Linear(2 * channels, channels)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """(B, L, C) to (B, L, C)."""
        local = to_tokens(self.conv(to_map(x, grid)))
        mixed: Tensor = self.contract(F.silu(self.expand(local)))
        return mixed


class MSSBlock(nn.Module):
    """Multi-level state space block: four paths through a CSM and a CNN module, figure 1 (c).

    The paths carry (a) the input, (b) CNN(x), (c) CSM(x) and (d) CNN(CSM(x)) to the output.

    NOTE(paper): how they meet is left open. ``"cascade"``: x1 = x + CSM(x), out = x1 + CNN(x1), one
    CSM and one CNN call. ``"concat"``: the four sets apart, the CNN shared by (b) and (d), mixed by
    a 1x1 convolution; the same modules, a second CNN call and 4 C^2 more weights.

    Args:
        channels: C.
        time_channels: Width of the time embedding.
        directions: K of the scan.
        fusion: How the four sets of features meet.
        state: N of the CSM.
        expand: Inner channels of the CSM over C.
        dt_rank: Rank of delta; 0 stands for ceil(C / 16).
        kernel: Side of the CSM's depthwise convolution.
        discretization: ``"euler"`` as Mamba's kernels, ``"zoh"`` as eq. 6.
    """

    scan_calls, slot = 1, 0

    def __init__(
        self,
        channels: int,
        time_channels: int,
        directions: int,
        fusion: Literal["cascade", "concat"] = "cascade",
        state: Annotated[int, Field(ge=1, le=256)] = 16,
        expand: Annotated[int, Field(ge=1, le=8)] = 2,
        dt_rank: Annotated[int, Field(ge=0)] = 0,
        kernel: Kernel = 3,
        discretization: Literal["euler", "zoh"] = "euler",
    ) -> None:
        super().__init__()
        self.csm_norm = TimedNorm(channels, time_channels)
        self.csm = CSM(channels, directions, state, expand, dt_rank, kernel, discretization)
        self.cnn_norm = TimedNorm(channels, time_channels)
        self.cnn = CNN(channels)
        self.mix = Fuse(4, channels) if fusion == "concat" else None

    def forward(self, x: Tensor, time: Tensor, orders: Sequence[Tensor]) -> Tensor:
        """(B, C, H, W) to the same shape, channels-last; one order of L = H W tokens."""
        grid: Grid = tuple(x.shape[2:])
        h = to_tokens(x)
        far = self.csm(self.csm_norm(h, time), grid, orders[0])
        if self.mix is None:
            h = h + far
            return to_map(h + self._near(h, time, grid), grid)
        mixed = self.mix(h, self._near(h, time, grid), far, self._near(far, time, grid))
        return to_map(mixed, grid)

    def _near(self, h: Tensor, time: Tensor, grid: Grid) -> Tensor:
        near: Tensor = self.cnn(self.cnn_norm(h, time), grid)
        return near


class VSSBlock(ResidualBlock):
    """VMamba's block, its SS2D alone: x + CSM(norm(x) + time), and an MLP where asked for.

    NOTE(paper): Liu et al. follow SS2D by an MLP of ratio 4 in their final models and have none in
    the first; none is the default here, so that the block isolates what the MSSBlock adds to it.

    Args:
        channels: C.
        time_channels: Width of the time embedding.
        directions: K of the scan.
        state: N.
        expand: Inner channels of the CSM over C.
        dt_rank: Rank of delta; 0 stands for ceil(C / 16).
        kernel: Side of the depthwise convolution.
        mlp_ratio: Inner channels of the MLP over C; 0 leaves it out.
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
        kernel: Kernel = 3,
        mlp_ratio: Annotated[int, Field(ge=0, le=8)] = 0,
        discretization: Literal["euler", "zoh"] = "euler",
    ) -> None:
        csm = CSM(channels, directions, state, expand, dt_rank, kernel, discretization)
        super().__init__(channels, time_channels, csm, mlp_ratio)


class GatedConv(nn.Module):
    """The CSM with a large depthwise convolution where the scan was: local, of fixed reach."""

    def __init__(self, channels: int, expand: int, kernel: int) -> None:
        super().__init__()
        inner = expand * channels
        self.in_proj = nn.Linear(channels, inner, bias=False)
        self.gate_proj = nn.Linear(channels, inner, bias=False)
        self.conv = nn.Conv2d(inner, inner, kernel, padding=kernel // 2, groups=inner)
        self.norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, channels, bias=False)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """(B, L, C) to (B, L, C)."""
        y = to_tokens(F.silu(self.conv(to_map(self.in_proj(x), grid))))
        gated: Tensor = self.out_proj(self.norm(y) * F.silu(self.gate_proj(x)))
        return gated


class ConvBlock(nn.Module):
    """The MSSBlock's cascade without a state space model: the CNN of the ablation.

    x1 = x + GatedConv(x), out = x1 + CNN(x1). Of comparable size; takes no directions or orders.

    Args:
        channels: C.
        time_channels: Width of the time embedding.
        expand: Inner channels of the gated convolution over C.
        kernel: Side of its depthwise convolution.
    """

    scan_calls, slot = 0, 0

    def __init__(
        self,
        channels: int,
        time_channels: int,
        expand: Annotated[int, Field(ge=1, le=8)] = 2,
        kernel: Kernel = 7,
    ) -> None:
        super().__init__()
        self.gated_norm = TimedNorm(channels, time_channels)
        self.gated = GatedConv(channels, expand, kernel)
        self.cnn_norm = TimedNorm(channels, time_channels)
        self.cnn = CNN(channels)

    def forward(self, x: Tensor, time: Tensor, orders: Sequence[Tensor] = ()) -> Tensor:
        """(B, C, H, W) to the same shape, channels-last."""
        grid: Grid = tuple(x.shape[2:])
        h = to_tokens(x)
        h = h + self.gated(self.gated_norm(h, time), grid)
        h = h + self.cnn(self.cnn_norm(h, time), grid)
        return to_map(h, grid)
