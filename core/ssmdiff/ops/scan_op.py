"""``ssmdiff::selective_scan``: the S6 recurrence along any scan order, as one op.

A ``torch.library`` custom op with fake and autograd registrations: ``torch.compile``,
``torch.export`` and the ONNX exporter see one node. The kernel that computes it is chosen when it
runs (:func:`use_kernel`), not when it is traced.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssmdiff.errors import ConfigError
from ssmdiff.ops.choice import kernel_for
from ssmdiff.ops.kernels import ScanInputs

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
    restart: Tensor | None = None,
    delta_softplus: bool = True,
    discretization: str = "euler",
) -> Tensor:
    """The selective scan of Mamba (S6) along K orders at once, summed over the directions.

    Tokens stay in grid order in memory, channels last. The kernel walks ``order[k]`` itself and
    adds each direction's output at the token's own place: no gather, no K-fold copy, no scatter.

    Args:
        u: (B, L, D) input, float32, bfloat16 or float64 (float16 with a kernel that has it).
        delta: (B, K, L, D) step sizes, before bias and softplus.
        A: (K, D, N) negative decay rates, float32 or wider.
        B: (B, K, L, N) input projection.
        C: (B, K, L, N) output projection.
        order: (K, L) int32; ``order[k, t]`` is the token visited at time t. Each row must be a
            permutation of 0 .. L - 1, as :class:`ssmdiff.ScanOrder` guarantees: it is not checked
            again here.
        D: Optional (K, D) skip weights.
        delta_bias: Optional (K, D), added to delta.
        restart: Optional (K, L) bool; the state is zeroed before time t.
        delta_softplus: Apply softplus to delta + delta_bias.
        discretization: ``"euler"``, B_bar = delta B, as Mamba's published kernels; or ``"zoh"``,
            B_bar = (delta A)^-1 (exp(delta A) - I) delta B, VM-DDPM eq. 6.

    Returns:
        y (B, L, D) in u's dtype. State and accumulation are float32 (float64 for float64 inputs).

    Raises:
        ConfigError: Shapes or dtypes do not fit together.
        KernelUnavailableError: The kernel set by :func:`use_kernel` cannot run on these tensors.
    """
    _check(ScanInputs(u, delta, A, B, C, order, D, delta_bias, restart, True, discretization))
    y: Tensor = _op(
        u, delta, A, B, C, order, D, delta_bias, restart, delta_softplus, discretization
    )
    return y


@torch.library.custom_op("ssmdiff::selective_scan", mutates_args=())
def _op(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    order: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    restart: Tensor | None = None,
    delta_softplus: bool = True,
    discretization: str = "euler",
) -> Tensor:
    inputs = ScanInputs(
        u, delta, A, B, C, order, D, delta_bias, restart, delta_softplus, discretization
    )
    return kernel_for(u.device, u.dtype, u.shape[1]).forward(inputs).contiguous()


@torch.library.custom_op("ssmdiff::selective_scan_backward", mutates_args=())
def _backward_op(
    grad_y: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    order: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    restart: Tensor | None = None,
    delta_softplus: bool = True,
    discretization: str = "euler",
) -> list[Tensor]:
    inputs = ScanInputs(
        u, delta, A, B, C, order, D, delta_bias, restart, delta_softplus, discretization
    )
    gradients = kernel_for(u.device, u.dtype, u.shape[1]).backward(grad_y, inputs)
    # An op returns tensors, not None: the place of an absent input is held by an empty one.
    # Contiguous, as the fake tensors promise: a reference that follows A's strides is not.
    return [u.new_empty(0) if g is None else g.contiguous() for g in gradients]


@_op.register_fake
def _(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    order: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    restart: Tensor | None = None,
    delta_softplus: bool = True,
    discretization: str = "euler",
) -> Tensor:
    return u.new_empty(u.shape)


@_backward_op.register_fake
def _(
    grad_y: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    order: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    restart: Tensor | None = None,
    delta_softplus: bool = True,
    discretization: str = "euler",
) -> list[Tensor]:
    given = (u, delta, A, B, C, D, delta_bias)
    return [u.new_empty(0) if x is None else x.new_empty(x.shape) for x in given]


def _setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
    *tensors, ctx.delta_softplus, ctx.discretization = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx, grad_y):  # type: ignore[no-untyped-def]
    u, delta, A, B, C, order, D, delta_bias, restart = ctx.saved_tensors
    du, ddelta, dA, dB, dC, dD, dbias = _backward_op(
        grad_y, u, delta, A, B, C, order, D, delta_bias, restart,
        ctx.delta_softplus, ctx.discretization,
    )  # fmt: skip
    dD, dbias = (None if x is None else g for x, g in ((D, dD), (delta_bias, dbias)))
    return du, ddelta, dA, dB, dC, None, dD, dbias, None, None, None


_op.register_autograd(_backward, setup_context=_setup_context)


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
        "restart": (directions, length),
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
    for name, value in inputs._asdict().items():
        if isinstance(value, Tensor) and value.device != u.device:
            raise ConfigError(f"selective_scan: {name} is on {value.device}; u is on {u.device}")
    for name in ("u", "delta", "A", "B", "C", "D", "delta_bias"):
        value = getattr(inputs, name)
        if value is not None and not value.is_floating_point():
            raise ConfigError(f"selective_scan: {name} is {value.dtype}; expected floating point")
    if order.dtype != torch.int32:
        raise ConfigError(f"selective_scan: order is {order.dtype}; expected torch.int32")
    if inputs.restart is not None and inputs.restart.dtype != torch.bool:
        raise ConfigError(f"selective_scan: restart is {inputs.restart.dtype}; expected torch.bool")
    if inputs.discretization not in DISCRETIZATIONS:
        raise ConfigError(
            f"selective_scan: discretization is {inputs.discretization!r}; "
            f"expected one of {', '.join(DISCRETIZATIONS)}"
        )
