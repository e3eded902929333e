"""mamba-ssm's CUDA kernel of the selective scan behind our op: gather, scan, scatter.

It is here to be compared with, and for those who trust it most. Its kernel walks tokens in the
order in which they lie in memory, time last, so that the inputs are gathered into the order of each
direction and transposed, and the K directions are folded into the channels, as VMamba does:

    u, delta (B, K D, L)   A (K D, N)   B, C (B, K, N, L), one group for each direction
    D, delta_bias (K D,) float32        ->   out (B, K D, L)

Only the compiled module ``selective_scan_cuda`` is imported: the package ``mamba_ssm`` pulls
transformers and more. Its sums over channels and images are atomic: gradients differ in their last
bits from run to run. Where there is no GPU, its tests put a stand-in in the module's place.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any, NamedTuple

import torch
from ssmdiff import KernelUnavailableError, ScanGradients, ScanInputs, decode_order
from torch import Tensor

MODULE = "selective_scan_cuda"
BUILD = "MAMBA_FORCE_BUILD=TRUE pip install --no-build-isolation --no-deps mamba-ssm"
MOST_STATES = 256  # its kernel's own limit


class MambaSsmKernel:
    """The scan for CUDA tensors, by euler and without restarts; any other call is refused."""

    name = "mamba-ssm"
    preference = None  # it has neither zoh nor restarts
    same_bits = "never"

    def unavailable(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why this kernel cannot run for tensors of that device and dtype, or None if it can."""
        try:
            importlib.import_module(MODULE)
        except ModuleNotFoundError:
            return f"mamba-ssm's compiled module {MODULE} is not installed; try: {BUILD}"
        except ImportError as error:  # built for another torch or CUDA
            return f"mamba-ssm's compiled module {MODULE} does not load ({error}); try: {BUILD}"
        if dtype not in (torch.float32, torch.bfloat16, torch.float16):
            return f"mamba-ssm computes in float32, from 16 or 32 bits; got {dtype}"
        if device.type != "cuda":
            return f"mamba-ssm's kernel runs on a CUDA device; the tensors are on {device}"
        return None if torch.cuda.is_available() else "no GPU was found"

    def forward(self, inputs: ScanInputs) -> Tensor:
        """The output y (B, L, D) in the dtype of ``inputs.u``, tokens in grid order.

        Raises:
            KernelUnavailableError: The call has restarts, zoh, or N above 256.
        """
        _refuse(inputs)
        folded = _fold(inputs)
        with torch.cuda.device_of(inputs.u):
            out, _states = _scan(folded, inputs)
        return _merge(out, inputs).to(inputs.u.dtype)

    def backward(self, grad_y: Tensor, inputs: ScanInputs) -> ScanGradients:
        """All gradients, from the inputs alone: its forward pass runs once more.

        Raises:
            KernelUnavailableError: The call has restarts, zoh, or N above 256.
        """
        _refuse(inputs)
        folded = _fold(inputs)
        u, delta, A, B, C, D, bias = folded
        d_out = _sequences(grad_y.to(u.dtype)[:, None].expand(inputs.delta.shape), inputs)
        with torch.cuda.device_of(inputs.u):
            _out, states = _scan(folded, inputs)
            du, ddelta, dA, dB, dC, dD, dbias, *_ = importlib.import_module(MODULE).bwd(
                u, delta, A, B, C, D, None, bias, d_out.flatten(1, 2), states, None, None,
                inputs.delta_softplus, False,
            )  # fmt: skip

        def like(gradient: Tensor, value: Tensor | None) -> Tensor | None:
            return None if value is None else gradient.reshape(value.shape).to(value.dtype)

        return ScanGradients(
            u=_merge(du, inputs).to(inputs.u.dtype),
            delta=_to_grid(ddelta.unflatten(1, inputs.A.shape[:2]), inputs).to(inputs.delta.dtype),
            A=dA.view(inputs.A.shape).to(inputs.A.dtype),
            B=_to_grid(dB, inputs).to(inputs.B.dtype),
            C=_to_grid(dC, inputs).to(inputs.C.dtype),
            D=like(dD, inputs.D),
            delta_bias=like(dbias, inputs.delta_bias),
        )


class _Folded(NamedTuple):
    """The arguments of mamba-ssm's kernel; activations share one dtype, the rest is float32."""

    u: Tensor  # (B, K D, L)
    delta: Tensor  # (B, K D, L)
    A: Tensor  # (K D, N)
    B: Tensor  # (B, K, N, L)
    C: Tensor  # (B, K, N, L)
    D: Tensor | None  # (K D,)
    delta_bias: Tensor | None  # (K D,)


def _refuse(inputs: ScanInputs) -> None:
    """Its kernel has neither; something slower must not take its place in silence."""
    reason = None
    if inputs.discretization != "euler":
        reason = f"discretization {inputs.discretization!r}; it has 'euler'"
    elif (restart := decode_order(inputs.order)[1]) is not None and restart.any():
        reason = "restarts"
    elif inputs.A.shape[-1] > MOST_STATES:
        reason = f"N = {inputs.A.shape[-1]}; it has at most {MOST_STATES}"
    if reason:
        raise KernelUnavailableError(
            f"kernel 'mamba-ssm' cannot run here: its CUDA kernel has no {reason}. "
            "Try: --kernel triton, or --kernel torch, which is slow"
        )


def _fold(inputs: ScanInputs) -> _Folded:
    def parameter(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.to(torch.float32).reshape(-1).contiguous()

    activations = (inputs.u, inputs.delta, inputs.B, inputs.C)
    dtype = functools.reduce(torch.promote_types, (x.dtype for x in activations))
    u = inputs.u[:, None].expand(inputs.delta.shape)
    return _Folded(
        _sequences(u.to(dtype), inputs).flatten(1, 2),
        _sequences(inputs.delta.to(dtype), inputs).flatten(1, 2),
        inputs.A.to(torch.float32).reshape(-1, inputs.A.shape[-1]).contiguous(),
        _sequences(inputs.B.to(dtype), inputs),
        _sequences(inputs.C.to(dtype), inputs),
        parameter(inputs.D),
        parameter(inputs.delta_bias),
    )


def _scan(folded: _Folded, inputs: ScanInputs) -> tuple[Tensor, Tensor]:
    """Its output (B, K D, L) and the states that its backward pass starts from."""
    u, delta, A, B, C, D, bias = folded
    module: Any = importlib.import_module(MODULE)
    out, states, *_ = module.fwd(u, delta, A, B, C, D, None, bias, inputs.delta_softplus)
    return out, states


def _index(x: Tensor, inputs: ScanInputs) -> Tensor:
    """The order as `gather` and `scatter` over the tokens of x (B, K, L, .) take it."""
    return inputs.order.long()[None, :, :, None].expand(x.shape)


def _sequences(x: Tensor, inputs: ScanInputs) -> Tensor:
    """(B, K, L, .) in grid order to (B, K, ., L) in visiting order."""
    return x.gather(2, _index(x, inputs)).transpose(2, 3).contiguous()


def _to_grid(x: Tensor, inputs: ScanInputs) -> Tensor:
    """(B, K, ., L) in visiting order to (B, K, L, .) in grid order."""
    x = x.transpose(2, 3)
    return torch.empty(x.shape, dtype=x.dtype, device=x.device).scatter_(2, _index(x, inputs), x)


def _merge(x: Tensor, inputs: ScanInputs) -> Tensor:
    """(B, K D, L) in visiting order to (B, L, D), summed over the directions in float32."""
    grid = _to_grid(x.unflatten(1, inputs.A.shape[:2]), inputs)
    return grid.sum(1, dtype=torch.float32)
