"""Orders, and the recurrences as the papers write them: one token at a time, in a Python loop."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def permutations(directions: int, length: int, restarts: bool = False) -> Tensor:
    """K random orders; with ``restarts``, each a few sequences of different lengths."""
    index = torch.stack([torch.randperm(length) for _ in range(directions)]).int()
    if not restarts:
        return index
    restart = torch.rand(directions, length) < 0.3
    restart[:, 0] = torch.arange(directions) % 2 == 0  # a mark on the first token says nothing
    return coded(index, restart)


def coded(index: Tensor, restart: Tensor) -> Tensor:
    """The order with its restarts in the sign."""
    return torch.where(restart, -1 - index, index)


def pieces(order: Tensor, k: int) -> list[list[int]]:
    """The sequences of direction k, each the list of tokens that it visits."""
    found: list[list[int]] = [[]]
    for t, entry in enumerate(order[k].tolist()):
        if t and entry < 0:
            found.append([])
        found[-1].append(-1 - entry if entry < 0 else entry)
    return found


def convolved(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """silu(causal depthwise conv1d) of one sequence (B, T, D), weight (D, W)."""
    padded = F.pad(x.transpose(1, 2), (weight.shape[1] - 1, 0))
    y = F.conv1d(padded, weight[:, None], bias, groups=weight.shape[0])
    return F.silu(y.transpose(1, 2))


def s6(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """Mamba: u, delta (B, T, D), A (D, N), B and C (B, T, N)."""
    h, y = u.new_zeros(u.shape[0], *A.shape), []
    for t in range(u.shape[1]):
        step = delta[:, t, :, None]
        h = torch.exp(step * A) * h + step * B[:, t, None] * u[:, t, :, None]
        y.append((h * C[:, t, None]).sum(-1) + D * u[:, t])
    return torch.stack(y, 1)


def duality(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """Mamba-2: x (B, T, H, P), delta (B, T, H), A and D (H,), B and C (B, T, N)."""
    h, y = x.new_zeros(*x.shape[:1], *x.shape[2:], B.shape[2]), []
    for t in range(x.shape[1]):
        step = delta[:, t, :, None, None]
        drive = step * x[:, t, ..., None] * B[:, t, None, None]
        h = torch.exp(step * A[:, None, None]) * h + drive
        y.append((h * C[:, t, None, None]).sum(-1) + D[:, None] * x[:, t])
    return torch.stack(y, 1)
