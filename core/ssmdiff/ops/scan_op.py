"""``ssmdiff::selective_scan``: the S6 recurrence along any scan order, as one op.

A ``torch.library`` custom op with fake and autograd registrations: ``torch.compile``,
``torch.export`` and the ONNX exporter see one node. The kernel that computes it is chosen when it
runs, the one asked for or the fastest that can (:func:`use_kernel`), not when it is traced. The
choice belongs to the process, not to the call: a graph holds one op, and the backward pass may run
in another thread than the forward pass.

Training that is not traced calls ``ssmdiff::selective_scan_keeping``, which returns the states that
a :class:`~ssmdiff.ops.kernels.StateKeepingKernel` leaves for the backward pass, too.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from ssmdiff.errors import ConfigError, KernelUnavailableError, PluginError
from ssmdiff.ops.derivatives import (
    differentiate,
    is_transformed,
    refuse_forward_mode,
    transformed_scan,
)
from ssmdiff.ops.kernels import (
    Kernel,
    ScanInputs,
    StateKeepingKernel,
    backward_from,
    check_order,
    forward_keeping,
    kept_shape,
)
from ssmdiff.ops.reference import TorchKernel, states_of
from ssmdiff.registry.registry import registry

AUTO = "auto"
LONG = 256  # tokens; beyond it the reference is slow enough to be worth a warning

_chosen: str | Kernel = AUTO
_used: set[str] = set()

DISCRETIZATIONS = ("euler", "zoh")


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    order: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = True,
    discretization: str = "euler",
) -> Tensor:
    """The selective scan of Mamba (S6) along K orders at once, summed over the directions.

    Tokens stay in grid order in memory, channels last. The kernel walks ``order[k]`` itself and
    adds each direction's output at the token's own place: no gather, no K-fold copy, no scatter.
    Where a gradient may be asked for, some kernels keep states for it, at most half of delta.

    Args:
        u: (B, L, D) input, float32, bfloat16 or float64 (float16 with a kernel that has it).
        delta: (B, K, L, D) step sizes, before bias and softplus.
        A: (K, D, N) negative decay rates, float32 or wider.
        B: (B, K, L, N) input projection.
        C: (B, K, L, N) output projection.
        order: (K, L) int32; ``order[k, t]`` is the token visited at time t, as ``-1 - token`` where
            the state is zeroed before it: :attr:`ssmdiff.ScanOrder.coded`. Each row holds every
            token once, which is checked unless the order is one of ``ssmdiff.order_tensors``.
        D: Optional (K, D) skip weights.
        delta_bias: Optional (K, D), added to delta.
        delta_softplus: Apply softplus to delta + delta_bias.
        discretization: ``"euler"``, B_bar = delta B, as Mamba's published kernels; or ``"zoh"``,
            B_bar = (delta A)^-1 (exp(delta A) - I) delta B, VM-DDPM eq. 6.

    Returns:
        y (B, L, D) in u's dtype. State and accumulation are float32 (float64 for float64 inputs).

    Raises:
        ConfigError: Shapes or dtypes do not fit together, or a row of the order is no permutation.
        KernelUnavailableError: The kernel set by :func:`use_kernel` cannot run on these tensors.
    """
    inputs = ScanInputs(u, delta, A, B, C, order, D, delta_bias, delta_softplus, discretization)
    _check(inputs)
    check_order(order)
    if is_transformed():
        return transformed_scan(inputs)  # type: ignore[no-any-return]
    y: Tensor = _keeping_op(*inputs)[0] if _is_worth_keeping(inputs) else _op(*inputs)
    return y


def _is_worth_keeping(inputs: ScanInputs) -> bool:
    """Whether a backward pass may follow and starts from kept states.

    Not in a traced graph: the states would be in it, whichever kernel runs it.
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return False
    if not any(isinstance(x, Tensor) and x.requires_grad for x in inputs):
        return False
    return isinstance(require_kernel(inputs.u.device, inputs.u.dtype), StateKeepingKernel)


_INPUTS = (
    "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor order, Tensor? D=None, "
    'Tensor? delta_bias=None, bool delta_softplus=True, str discretization="euler"'
)


# The dispatcher leaves out arguments that equal their defaults; ScanInputs has the same.
@torch.library.custom_op(
    "ssmdiff::selective_scan", mutates_args=(), schema=f"({_INPUTS}) -> Tensor"
)
def _op(*arguments: Any) -> Tensor:
    inputs = ScanInputs(*arguments)
    return _kernel_of(inputs).forward(inputs).contiguous()


@torch.library.custom_op(
    "ssmdiff::selective_scan_keeping", mutates_args=(), schema=f"({_INPUTS}) -> (Tensor, Tensor)"
)
def _keeping_op(*arguments: Any) -> tuple[Tensor, Tensor]:
    inputs = ScanInputs(*arguments)
    y, states = forward_keeping(_kernel_of(inputs), inputs)
    return y.contiguous(), states_of(inputs) if states is None else states.contiguous()


@torch.library.custom_op(
    "ssmdiff::selective_scan_backward",
    mutates_args=(),
    schema=f"(Tensor grad_y, Tensor? states, {_INPUTS}) -> Tensor[]",
)
def _backward_op(grad_y: Tensor, states: Tensor | None, *arguments: Any) -> list[Tensor]:
    inputs = ScanInputs(*arguments)
    gradients = backward_from(_kernel_of(inputs), grad_y, inputs, states)
    # An op returns tensors, not None: the place of an absent input is held by an empty one.
    # Contiguous, as the fake tensors promise: a reference that follows A's strides is not.
    return [inputs.u.new_empty(0) if g is None else g.contiguous() for g in gradients]


def _kernel_of(inputs: ScanInputs) -> Kernel:
    refuse_forward_mode()
    return kernel_for(inputs.u.device, inputs.u.dtype, inputs.u.shape[1])


@_op.register_fake
def _(*arguments: Any) -> Tensor:
    u = ScanInputs(*arguments).u
    return u.new_empty(u.shape)


@_keeping_op.register_fake
def _(*arguments: Any) -> tuple[Tensor, Tensor]:
    inputs = ScanInputs(*arguments)
    u = inputs.u
    dtype = torch.float64 if u.dtype == torch.float64 else torch.float32
    return u.new_empty(u.shape), u.new_empty(kept_shape(inputs), dtype=dtype)


@_backward_op.register_fake
def _(grad_y: Tensor, states: Tensor | None, *arguments: Any) -> list[Tensor]:
    u, delta, A, B, C, _, D, delta_bias, *_ = ScanInputs(*arguments)
    given = (u, delta, A, B, C, D, delta_bias)
    return [u.new_empty(0) if x is None else x.new_empty(x.shape) for x in given]


differentiate(_op, _keeping_op)


def _check(inputs: ScanInputs) -> None:
    """Hold every shape against u, delta and A; a wrong one would read memory that is not there."""
    u, delta, A, order = inputs.u, inputs.delta, inputs.A, inputs.order
    if u.dim() != 3 or delta.dim() != 4 or A.dim() != 3:
        raise ConfigError(
            "selective_scan: expected u (B, L, D), delta (B, K, L, D) and A (K, D, N); got "
            f"{tuple(u.shape)}, {tuple(delta.shape)} and {tuple(A.shape)}"
        )
    (batch, length, channels), (directions, state) = u.shape, (A.shape[0], A.shape[2])
    expected = {
        "delta": (batch, directions, length, channels),
        "A": (directions, channels, state),
        "B": (batch, directions, length, state),
        "C": (batch, directions, length, state),
        "order": (directions, length),
        "D": (directions, channels),
        "delta_bias": (directions, channels),
    }
    for name, shape in expected.items():
        value = getattr(inputs, name)
        if value is not None and tuple(value.shape) != shape:
            raise ConfigError(
                f"selective_scan: {name} has shape {tuple(value.shape)}; expected {shape} from "
                f"u (B, L, D) = {tuple(u.shape)} and A (K, D, N) = {tuple(A.shape)}"
            )
    if length == 0:
        raise ConfigError(f"selective_scan: u has shape {tuple(u.shape)}: no tokens to scan")
    if directions == 0 or state == 0:
        raise ConfigError(
            f"selective_scan: A has shape (K, D, N) = {tuple(A.shape)}: expected at least one "
            "direction K and one component N of the state"
        )
    for name, value in inputs._asdict().items():
        if isinstance(value, Tensor) and value.device != u.device:
            raise ConfigError(f"selective_scan: {name} is on {value.device}; u is on {u.device}")
    for name in ("u", "delta", "A", "B", "C", "D", "delta_bias"):
        value = getattr(inputs, name)
        if value is not None and not value.is_floating_point():
            raise ConfigError(f"selective_scan: {name} is {value.dtype}; expected floating point")
    if order.dtype != torch.int32:
        raise ConfigError(f"selective_scan: order is {order.dtype}; expected torch.int32")
    if inputs.discretization not in DISCRETIZATIONS:
        raise ConfigError(
            f"selective_scan: discretization is {inputs.discretization!r}; "
            f"expected one of {', '.join(DISCRETIZATIONS)}"
        )


def kernel_for(device: torch.device, dtype: torch.dtype, length: int) -> Kernel:
    """The kernel that runs for tensors of this device and dtype.

    Raises:
        KernelUnavailableError: A kernel was asked for by name and cannot run.
    """
    kernel = require_kernel(device, dtype)
    if kernel.name == "torch" and _chosen == AUTO and length > LONG and dtype != torch.float64:
        _warn_slow(device, dtype)
    _used.add(kernel.name)
    return kernel


def require_kernel(device: torch.device, dtype: torch.dtype) -> Kernel:
    """The kernel that will run there, before it does.

    Raises:
        KernelUnavailableError: A kernel was asked for by name and cannot run.
    """
    if isinstance(_chosen, str):
        return _resolve(_chosen, device, dtype)
    return _check_reason(_chosen, _chosen.unavailable(device, dtype))


@functools.lru_cache(maxsize=64)
def _resolve(name: str, device: torch.device, dtype: torch.dtype) -> Kernel:
    if name != AUTO:
        kernel = load_kernel(name)
        return _check_reason(kernel, why_not(kernel, device, dtype))
    able = (k for k in preferred_kernels() if why_not(k, device, dtype) is None)
    return next(able, TorchKernel())


def why_not(kernel: Kernel, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why a kernel cannot run there, by its own word or since it fails; None if it can.

    It is tried on one token, since what it needs may be installed and broken. Only forwards and by
    euler: a pass that is not needed is not compiled. It may refuse the call and has not failed.
    """
    if reason := kernel.unavailable(device, dtype):
        return reason
    with _disable_current_modes(), torch.no_grad():  # a fake tensor says nothing of the kernel
        one = torch.ones(1, 1, 1, 1, dtype=dtype, device=device)
        A = -one[0].to(torch.promote_types(dtype, torch.float32))
        order = torch.zeros(1, 1, dtype=torch.int32, device=device)
        try:
            kernel.forward(ScanInputs(one[0], one, A, one, one, order))
        except KernelUnavailableError:
            return None
        except Exception as error:
            return f"it fails on one token: {type(error).__name__}: {error}".splitlines()[0]
    return None


def preferred_kernels() -> list[Kernel]:
    """The kernels that ``auto`` tries, in that order: by their own preference, then by name.

    One that cannot be imported is left out; `ssmdiff doctor` and `plugins list` show its error.
    """
    kernels = []
    for name in registry().names("kernel"):
        try:
            kernel = load_kernel(name)
        except PluginError:
            continue
        preference = getattr(kernel, "preference", None)
        if preference is not None:
            kernels.append((-preference, name, kernel))
    return [kernel for _, _, kernel in sorted(kernels)]


def _check_reason(kernel: Kernel, reason: str | None) -> Kernel:
    if reason:
        raise KernelUnavailableError(f"kernel {kernel.name!r} cannot run here: {reason}")
    return kernel


@functools.cache
def load_kernel(name: str) -> Kernel:
    """A registered kernel by name, built once.

    Raises:
        ConfigError: There is no kernel of that name.
        PluginError: It cannot be imported.
    """
    kernel: Kernel = registry().create("kernel", name)
    return kernel


@functools.cache
def _warn_slow(device: torch.device, dtype: torch.dtype) -> None:
    reasons = []
    for name in registry().names("kernel"):
        if name != "torch":
            try:
                reason = why_not(load_kernel(name), device, dtype)
            except PluginError as error:
                reason = str(error)
            reasons.append(f"{name}: {reason}")
    warnings.warn(
        f"the slow reference kernel 'torch' runs on {device} with {dtype} because no other can "
        f"({'; '.join(reasons) or 'none is installed'})",
        stacklevel=4,
    )


def set_kernel(kernel: str | Kernel) -> None:
    """Choose the kernel of this process: ``"auto"``, or a name or a kernel, then the only one.

    Raises:
        ConfigError: There is no kernel of that name.
        PluginError: It is there and cannot be imported.
    """
    global _chosen
    if isinstance(kernel, str) and kernel != AUTO:
        load_kernel(kernel)
    _chosen = kernel


@contextmanager
def use_kernel(kernel: str | Kernel) -> Iterator[None]:
    """:func:`set_kernel` for a ``with`` block; the backward pass belongs inside it too."""
    before = _chosen
    set_kernel(kernel)
    try:
        yield
    finally:
        set_kernel(before)


def kernels_used() -> list[str]:
    """The kernels that have run in this process, for the record."""
    return sorted(_used)
