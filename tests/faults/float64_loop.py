"""The selective scan as a loop over time in float64, written from the papers and from nothing here.

Plain torch, so that torch's own autograd, forward mode and vmap differentiate it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

NAMES = ("u", "delta", "A", "B", "C", "D", "delta_bias")


def loop(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor,
    order: Tensor, discretization: str = "euler",
) -> Tensor:  # fmt: skip
    """y (B, L, D); A must have no zero where the discretisation is zoh."""
    u, delta, A, B, C, D, delta_bias = (x.double() for x in (u, delta, A, B, C, D, delta_bias))
    rows = []
    for k, row in enumerate(order.tolist()):
        h = torch.zeros_like(u[:, 0, :, None] * A[k])
        y = {}
        for code in row:
            token = code if code >= 0 else -1 - code
            if code < 0:
                h = torch.zeros_like(h)
            d = torch.log1p(torch.exp(delta[:, k, token] + delta_bias[k]))[:, :, None]
            gain = (torch.exp(d * A[k]) - 1) / A[k] if discretization == "zoh" else d
            h = torch.exp(d * A[k]) * h + gain * B[:, k, token, None] * u[:, token, :, None]
            y[token] = (h * C[:, k, token, None]).sum(-1) + D[k] * u[:, token]
        rows.append(torch.stack([y[token] for token in range(len(row))], 1))
    return torch.stack(rows).sum(0)


class Case(NamedTuple):
    """Inputs of the op, all seven tensors, and the order with restarts."""

    tensors: dict[str, Tensor]
    order: Tensor
    discretization: str

    def ours(self, *tensors: Tensor) -> Tensor:
        import ssmdiff

        u, delta, A, B, C, D, delta_bias = tensors
        return ssmdiff.selective_scan(
            u, delta, A, B, C, self.order, D, delta_bias, discretization=self.discretization
        )

    def exact(self, *tensors: Tensor) -> Tensor:
        return loop(*tensors, self.order, self.discretization)


def make(discretization: str, seed: int = 0, shape: tuple[int, ...] = (2, 9, 5, 2, 3)) -> Case:
    """Random inputs of (B, L, D, K, N) in float32, an order with a restart in each direction."""
    batch, length, channels, directions, states = shape
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator)

    tensors = {
        "u": normal(batch, length, channels),
        "delta": normal(batch, directions, length, channels),
        "A": -torch.rand(directions, channels, states, generator=generator) - 0.05,
        "B": normal(batch, directions, length, states),
        "C": normal(batch, directions, length, states),
        "D": normal(directions, channels),
        "delta_bias": normal(directions, channels),
    }
    rows = [torch.randperm(length, generator=generator) for _ in range(directions)]
    order = torch.stack(rows).to(torch.int32)
    for k in range(directions):
        order[k, length // 2 + k] = -1 - order[k, length // 2 + k]
    return Case(tensors, order, discretization)


def like(tensors: dict[str, Tensor], seed: int = 1) -> tuple[Tensor, ...]:
    """A random change, or gradient, of each."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(x.shape, generator=generator) for x in tensors.values())


def error(got: Tensor, exact: Tensor) -> float:
    """The largest error, relative to the largest exact value."""
    assert got.shape == exact.shape, (got.shape, exact.shape)
    return float((got.double() - exact).abs().max() / exact.abs().max())
