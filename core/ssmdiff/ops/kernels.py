"""What a kernel is, and which one runs.

A kernel computes the selective scan and its gradients. It is an implementation detail of one op:
every kernel takes the same inputs and agrees with the float64 reference.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor


class ScanInputs(NamedTuple):
    """The arguments of :func:`ssmdiff.selective_scan`, checked, as every kernel receives them."""

    u: Tensor  # (B, L, D)
    delta: Tensor  # (B, K, L, D)
    A: Tensor  # (K, D, N), negative
    B: Tensor  # (B, K, L, N)
    C: Tensor  # (B, K, L, N)
    order: Tensor  # (K, L) int32: the token visited at time t in direction k
    D: Tensor | None = None  # (K, D)
    delta_bias: Tensor | None = None  # (K, D)
    restart: Tensor | None = None  # (K, L) bool: the state is zeroed before time t
    delta_softplus: bool = True
    discretization: str = "euler"

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> ScanInputs:
        """On another device; floating tensors in another dtype, if one is given."""

        def moved(value: Tensor) -> Tensor:
            return value.to(device, dtype if value.is_floating_point() else None)

        changes: dict[str, Any] = {
            name: moved(value)
            for name, value in self._asdict().items()
            if isinstance(value, Tensor)
        }
        return self._replace(**changes)


class ScanGradients(NamedTuple):
    """Gradients of a scalar with respect to the tensors of :class:`ScanInputs`, in their dtypes."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    delta_bias: Tensor | None


@runtime_checkable
class Kernel(Protocol):
    """An implementation of the selective scan. State and accumulation are float32 or wider."""

    name: str

    def unavailable(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why this kernel cannot run for tensors of that device and dtype, or None if it can."""
        ...

    def forward(self, inputs: ScanInputs) -> Tensor:
        """The output y (B, L, D) in the dtype of ``inputs.u``, tokens in grid order."""
        ...

    def backward(self, grad_y: Tensor, inputs: ScanInputs) -> ScanGradients:
        """All gradients, from the inputs alone: nothing of size (B, K, L, D, N) is ever stored."""
        ...
