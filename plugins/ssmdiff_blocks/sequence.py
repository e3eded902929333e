"""Tokens in visiting order, and the causal convolution along it.

Letters: B batch, K directions, L tokens, D channels, W width. A sequence is (B, K, L, D), row k in
the order of direction k, whatever the grid was.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from ssmdiff import ConfigError
from ssmdiff.nn import is_transformed
from torch import Tensor, nn


def visit(x: Tensor, order: Tensor) -> Tensor:
    """Grid order to visiting order: (B, L, D) or (B, K, L, D) to (B, K, L, D).

    Args:
        x: Tokens in grid order, shared by all directions or one row for each.
        order: (K, L) int32, tokens without the sign of restarts.
    """
    directions, length = order.shape
    if x.dim() == 4:
        start = torch.arange(directions, device=order.device, dtype=order.dtype) * length
        x, order = x.flatten(1, 2), order + start[:, None]
    # One index_select and not x[:, order]: half the time, and its gradient is one index_add.
    rows: Tensor = x.index_select(1, order.flatten()).unflatten(1, (directions, length))
    return rows


def leave(x: Tensor, order: Tensor) -> Tensor:
    """Visiting order to grid order, (B, K, L, D) to the same shape: undoes :func:`visit`."""
    times = torch.arange(order.shape[1], device=order.device, dtype=order.dtype).expand_as(order)
    return visit(x, torch.zeros_like(order).scatter(1, order.long(), times))


class CausalConv(nn.Module):
    """Depthwise causal convolution along each row, then SiLU; weights of their own per direction.

    y_t = silu(bias + sum_j w_j x_{t - (W - 1) + j}); what lies before the start of the sequence is
    zero, and so is what lies before a restart: no tap reaches across one.

    The kernel of the ``causal-conv1d`` package runs on CUDA where it is installed and takes the
    tensor (D a multiple of 8; float32, bfloat16 or float16; not inside a traced graph), called with
    the signature of its version 1.6. NOTE: that path is tested against a stand-in alone; it
    has not been run on a GPU here. Both paths add in float32 or wider.

    Args:
        directions: K.
        channels: D.
        width: W, 2 to 4, as the kernel has them.
    """

    def __init__(self, directions: int, channels: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(directions, channels, width))
        self.bias = nn.Parameter(torch.empty(directions, channels))
        nn.init.uniform_(self.weight, -(width**-0.5), width**-0.5)  # as nn.Conv1d
        nn.init.uniform_(self.bias, -(width**-0.5), width**-0.5)

    def forward(self, x: Tensor, restart: Tensor | None = None) -> Tensor:
        """Sequences (B, K, L, D) to the same shape and dtype.

        Args:
            x: In visiting order.
            restart: (K, L) bool or None.
        """
        kernel = self._kernel(x)
        if kernel is None:
            return self._taps(x, restart)
        rows = []
        for k in range(x.shape[1]):
            row = x[:, k].contiguous().transpose(1, 2)  # (B, D, L), channels last
            numbers = sequence_numbers(restart, k, x.shape[0])
            weight, bias = self.weight[k], self.bias[k]
            rows.append(kernel(row, weight, bias, seq_idx=numbers, activation="silu"))
        return torch.stack(rows, dim=1).transpose(2, 3)

    def _kernel(self, x: Tensor) -> Callable[..., Any] | None:
        if not runs_on(x) or x.shape[3] % 8 or x.shape[2] < 2:
            return None
        return installed("causal_conv1d", "causal_conv1d_fn")

    def _taps(self, x: Tensor, restart: Tensor | None) -> Tensor:
        """One shifted copy for each tap: the layout stays channels last."""
        length, width = x.shape[2], self.weight.shape[2]
        dtype = torch.promote_types(x.dtype, torch.float32)
        weight = self.weight.to(dtype)
        number = None if restart is None else restart.cumsum(1)  # of the sequence in the row
        y = self.bias.to(dtype)[:, None]
        for j in range(width):
            back = min(width - 1 - j, length)
            tap = F.pad(x[:, :, : length - back], (0, 0, back, 0))
            if number is not None and back:
                same = number == F.pad(number[:, : length - back], (back, 0), value=-1)
                tap = tap * same[:, :, None]
            y = y + tap * weight[:, None, :, j]
        return F.silu(y).to(x.dtype)


def sequence_numbers(restart: Tensor | None, k: int, batch: int) -> Tensor | None:
    """Which sequence each token of row k belongs to, (B, L) int32: ``seq_idx`` of the kernels."""
    if restart is None:
        return None
    return restart[k].cumsum(0, dtype=torch.int32).expand(batch, -1).contiguous()


def runs_on(x: Tensor) -> bool:
    """Whether a CUDA kernel that is no torch op can take the tensor: not under a tracer.

    Nor where the network is being transformed or differentiated forwards: it has no rules for that.
    """
    watched = torch.compiler.is_compiling() or is_transformed()
    return x.is_cuda and x.dtype != torch.float64 and not watched


@functools.cache
def installed(module: str, function: str) -> Callable[..., Any] | None:
    """A function of an optional package, or None where the package is not installed.

    Nothing slower runs unseen in the place of a package that is there and does not import.

    Raises:
        ConfigError: There is such a package.
    """
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        return None
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    except Exception as error:
        raise ConfigError(
            f"{module} is installed and does not work ({type(error).__name__}: {error}); mend it, "
            "or uninstall it for the slower way through torch"
        ) from error
    return found
