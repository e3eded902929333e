"""The parameters of a selective state space model: its recurrence, and how Mamba initialises it.

Glossary: K directions, D inner channels (Mamba-2: heads), N state, R rank of delta.

    delta = softplus(dt dt_weight + dt_bias)    A = -exp(A_log)    y = S6(u, delta, A, B, C) + D u
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

DELTA_RANGE = (1e-3, 1e-1)
"""Step sizes after softplus at initialisation: log-uniform between these, as in Mamba."""
DELTA_FLOOR = 1e-4
RECURRENCE = ("A_log", "D", "dt_bias")


class SelectiveParameters(nn.Module):
    """A module with the parameters of a recurrence, which stay float32 in a narrower dtype.

    ``A_log``, ``D`` and ``dt_bias`` are never narrowed by ``.to``, ``.half`` and the like, and
    carry ``_no_weight_decay = True``.
    """

    dt_weight: nn.Parameter
    """(K, R, D); only if delta has a rank."""
    dt_bias: nn.Parameter
    """(K, D)."""
    A_log: nn.Parameter
    """(K, D, N), or (K, D) without a state of its own for each component."""
    D: nn.Parameter
    """(K, D)."""

    def add_recurrence(
        self, directions: int, channels: int, state: int | None = None, rank: int | None = None
    ) -> None:
        """Register the parameters, in the order above, to be set by :meth:`reset_recurrence`.

        Args:
            directions: K.
            channels: D.
            state: N; None for one decay of a whole state, as in Mamba-2.
            rank: R; None where delta has no projection of its own.
        """
        of_channel = (directions, channels)
        of_state = of_channel if state is None else (*of_channel, state)
        if rank is not None:
            self.dt_weight = nn.Parameter(torch.empty(directions, rank, channels))
        self.dt_bias = nn.Parameter(torch.empty(of_channel))
        self.A_log = nn.Parameter(torch.empty(of_state))
        self.D = nn.Parameter(torch.ones(of_channel))
        self._flag()

    @torch.no_grad()
    def reset_recurrence(self) -> None:
        """Mamba's initialisation: delta log-uniform in DELTA_RANGE, S4D-real A, D = 1.

        A without a state of its own is left to the module.
        """
        if hasattr(self, "dt_weight"):
            bound = self.dt_weight.shape[1] ** -0.5
            self.dt_weight.uniform_(-bound, bound)
        low, high = map(math.log, DELTA_RANGE)
        delta = torch.empty_like(self.dt_bias).uniform_(low, high).exp().clamp(min=DELTA_FLOOR)
        self.dt_bias.copy_(delta + torch.log(-torch.expm1(-delta)))  # softplus, inverted
        if self.A_log.dim() == 3:
            n = torch.arange(1, self.A_log.shape[-1] + 1, device=delta.device, dtype=delta.dtype)
            self.A_log.copy_(n.log().expand_as(self.A_log))
        self.D.fill_(1)

    @property
    def A(self) -> Tensor:
        """-exp(A_log), negative."""
        return -torch.exp(self.A_log)

    def _flag(self) -> None:
        """Mark the parameters, which a copy or a move forgets."""
        for name in RECURRENCE:
            getattr(self, name)._no_weight_decay = True

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        wide = [getattr(self, name) for name in RECURRENCE]
        wide += [parameter.grad for parameter in wide if parameter.grad is not None]

        def unless_narrower(x: Tensor) -> Tensor:
            moved = fn(x)
            if any(x is one for one in wide) and moved.dtype in (torch.bfloat16, torch.float16):
                return x.to(moved.device)
            return moved

        super()._apply(unless_narrower, recurse)
        self._flag()
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A deep copy of a parameter forgets its attributes."""
        super().__setstate__(state)
        self._flag()
