"""The calculus of the scan: its derivatives along a change and back, both again, and under vmap.

x stands for the seven tensors (u, delta, A, B, C, D, delta_bias), x' for a change of each, g for a
gradient of the output y, and J for the Jacobian of y by x:

    T(x, x')    = J x'                  the tangent of y: the same recurrence, here in torch
    G(x, g)     = J^T g                 the gradient: any kernel's backward pass
    H(x, x', g) = d/dx <g, T(x, x')>    the second derivative, by torch's autograd through T

The scan's change along x' is T(x, x'), its gradient G(x, g). The change of G along (x', g') is
G(x, g') + H(x, x', g), since second derivatives are symmetric, and its gradient from v is
H(x, v, g) by x and T(x, v) by g. There are no further formulas: T is differentiable, in torch.

T takes one Python step a token and no more memory than the reference; H keeps what autograd keeps,
some twenty numbers of each component of the state and step. vmap folds what it maps into the batch
where A, D, delta_bias and the order are shared, and otherwise calls the kernel once for each.

A ``torch.library`` op takes no rule for forward mode. So :class:`Scan` stands around it, where a
transform of ``torch.func`` or forward mode is at work and only there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import coerce_cinterpreter
from torch.autograd import forward_ad
from torch.utils._pytree import tree_map_only

from ssmdiff.errors import ConfigError
from ssmdiff.ops.kernels import ScanInputs, check_order
from ssmdiff.ops.reference import Sequences, zoh_moment

TENSORS = (0, 1, 2, 3, 4, 6, 7)  # the places in ScanInputs of what has a derivative
_ROWS = (0, 1, 3, 4)  # with a batch: u, delta, B, C
_PARAMETERS = (2, 5, 6, 7)  # without: A, order, D, delta_bias


# In a compiled function it is asked once, when that is traced; torch itself guards what it asks.
@torch.compiler.assume_constant_result
def is_transformed() -> bool:
    """Whether the call is one of a function that is being transformed or differentiated forwards.

    torch has public names for neither.
    """
    layer = torch._C._functorch.peek_interpreter_stack()
    inside = layer is not None and layer.key() != torch._C._functorch.TransformType.Functionalize
    return inside or forward_ad._current_level >= 0


def refuse_forward_mode() -> None:
    """Refuse a call of the op itself under forward mode, where it would lose the change unseen.

    Raises:
        ConfigError: Forward mode is at work, as it is not within :class:`Scan`.
    """
    if forward_ad._current_level >= 0 and torch._C._is_fwd_grad_enabled():
        raise ConfigError(
            "ssmdiff::selective_scan in a compiled or exported graph has no forward mode; "
            "differentiate the network that it was made from, which calls ssmdiff.selective_scan"
        )


# A graph would hold every step of T, and torch.compile takes no Function with rules of its own.
@torch.compiler.disable(
    reason="selective_scan under forward mode or torch.func runs outside of the compiled graph"
)
def transformed_scan(inputs: ScanInputs) -> Tensor:
    """The scan as a function that torch's transforms and forward mode differentiate."""
    return Scan.apply(*_with_all(inputs))  # type: ignore


def _with_all(inputs: ScanInputs) -> ScanInputs:
    """With zeros for what is absent; of A's kind, batched under vmap where A is."""
    zeros = inputs.A.new_zeros(inputs.A.shape[:2])
    D, delta_bias = (zeros if x is None else x for x in (inputs.D, inputs.delta_bias))
    return inputs._replace(D=D, delta_bias=delta_bias)


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, softplus, discretization = inputs
    ctx.options = (softplus, discretization)
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)


class Scan(torch.autograd.Function):
    """y of the ten inputs, all tensors given."""

    @staticmethod
    def forward(*arguments: Any) -> Any:
        check_order(arguments[5])
        return torch.ops.ssmdiff.selective_scan(*arguments)

    setup_context = staticmethod(_save)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:  # type: ignore[override]
        arguments = (*ctx.saved_tensors, *ctx.options)
        found = Gradient.apply(grad_y, *arguments)  # type: ignore[no-untyped-call]
        return tuple(_placed(found))

    @staticmethod
    def jvp(ctx: Any, *changes: Any) -> Any:
        return _one_level_down(_change_of_scan, ctx, changes)

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[int | None], *arguments: Any) -> tuple[Tensor, int]:
        """One call where all share A, D, delta_bias and the order, else one for each."""
        size = info.batch_size
        if size == 0:
            raise ConfigError("selective_scan: vmap over an axis of length 0; expected at least 1")
        if any(in_dims[i] is not None for i in _PARAMETERS):
            each = [Scan.apply(*call) for call in _calls(size, in_dims, arguments)]  # type: ignore
            return torch.stack(each), 0
        folded = list(arguments)
        for i in _ROWS:
            x, dim = arguments[i], in_dims[i]
            x = x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)
            folded[i] = x.flatten(0, 1)
        y = Scan.apply(*folded)  # type: ignore[no-untyped-call]
        return y.unflatten(0, (size, y.shape[0] // size)), 0


class Gradient(torch.autograd.Function):
    """The seven gradients, of the gradient of y and the ten inputs."""

    @staticmethod
    def forward(grad_y: Tensor, *arguments: Any) -> Any:
        return tuple(torch.ops.ssmdiff.selective_scan_backward(grad_y, None, *arguments))

    setup_context = staticmethod(_save)

    @staticmethod
    def backward(ctx: Any, *v: Any) -> Any:
        grad_y, *tensors = ctx.saved_tensors
        inputs = ScanInputs(*tensors, *ctx.options)
        return tangent(inputs, v), *_placed(second(inputs, v, grad_y))

    @staticmethod
    def jvp(ctx: Any, *changes: Any) -> Any:
        return _one_level_down(_change_of_gradient, ctx, changes)

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[int | None], *arguments: Any) -> tuple[Any, Any]:
        """One call for each: the gradients of A, D and delta_bias sum over a batch."""
        calls = _calls(info.batch_size, in_dims, arguments)
        each = (Gradient.apply(*call) for call in calls)  # type: ignore[no-untyped-call]
        found = tuple(torch.stack(gradients) for gradients in zip(*each, strict=True))
        return found, (0,) * len(found)


def _change_of_scan(saved: Any, options: Any, changes: Any) -> Tensor:
    return tangent(ScanInputs(*saved, *options), [changes[i] for i in TENSORS])


def _change_of_gradient(saved: Any, options: Any, changes: Any) -> Any:
    grad_y, *tensors = saved
    change_of_g, *rest = changes
    inputs = ScanInputs(*tensors, *options)
    by_x = second(inputs, [rest[i] for i in TENSORS], grad_y)
    along_g = Gradient.apply(change_of_g, *inputs)  # type: ignore[no-untyped-call]
    return tuple(a + b for a, b in zip(along_g, by_x, strict=True))


def _one_level_down(rule: Callable[..., Any], ctx: Any, changes: Any) -> Any:
    """A rule of forward mode, with forward mode at work in the transforms around this one.

    torch turns it off for all levels while a rule runs, so that jvp of jvp would be 0. So the rule
    is taken to the level below, as torch itself takes the forward pass there.
    """
    functorch, saved = torch._C._functorch, ctx.saved_tensors
    layer = functorch.peek_interpreter_stack()
    if layer is None:  # forward mode without transforms, which does not nest
        return rule(saved, ctx.options, changes)
    level = layer.level()
    below = tree_map_only(Tensor, lambda x: functorch._unwrap_for_grad(x, level), (saved, changes))
    with coerce_cinterpreter(layer).lower(), forward_ad._set_fwd_grad_enabled(True):
        found = rule(below[0], ctx.options, below[1])
    return tree_map_only(Tensor, lambda x: functorch._wrap_for_grad(x, level), found)


def _calls(
    size: int, in_dims: Sequence[int | None], arguments: Sequence[Any]
) -> Iterator[tuple[Any, ...]]:
    """The arguments of each call under vmap."""
    for v in range(size):
        pairs = zip(arguments, in_dims, strict=True)
        yield tuple(x if dim is None else x.select(dim, v) for x, dim in pairs)


def _placed(gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The gradients of the seven at their places among the ten inputs."""
    placed: list[Tensor | None] = [None] * 10
    for i, gradient in zip(TENSORS, gradients, strict=True):
        placed[i] = gradient
    return placed


def tangent(inputs: ScanInputs, changes: Sequence[Tensor]) -> Tensor:
    """T: how y changes with a change of each of the seven tensors.

    h'_t = a_t h'_{t-1} + a'_t h_{t-1} + g'_t B_t u_t + g_t (B_t u_t)', with a_t the decay, g_t the
    gain; all in the names and shapes of `reference.py`.
    """
    scan, zoh = Sequences(inputs), inputs.discretization == "zoh"
    du, ddelta, dA, dB, dC, dD, dbias = (x.to(scan.u.dtype) for x in changes)
    du, dB, dC = du[:, scan.order], scan.gather(dB), scan.gather(dC)
    ddelta = scan.gather(ddelta) + dbias[:, None]
    if inputs.delta_softplus:
        ddelta = ddelta * torch.sigmoid(scan.delta_raw)

    h, dh, dy = scan.start(), scan.start(), []
    for t in range(scan.length):
        d, dd = scan.delta[:, :, t, :, None], ddelta[:, :, t, :, None]
        B_t, C_t = scan.B[:, :, t, None, :], scan.C[:, :, t, None, :]
        u_t, du_t = scan.u[:, :, t, :, None], du[:, :, t, :, None]
        z = d * scan.A
        a = torch.exp(z)
        gain, dgain = d, dd
        if zoh:  # g = d m_0(z), and its derivatives by d and A are a and d^2 m_1(z)
            gain, dgain = d * zoh_moment(z, 0), a * dd + d * d * zoh_moment(z, 1) * dA
        h, dh = scan.after_restart(h, t), scan.after_restart(dh, t)
        dh = a * (dh + (dd * scan.A + d * dA) * h) + dgain * (B_t * u_t)
        dh = dh + gain * (dB[:, :, t, None, :] * u_t + B_t * du_t)
        h = a * h + gain * (B_t * u_t)
        dy.append((dh * C_t + h * dC[:, :, t, None, :]).sum(-1))
    y = torch.stack(dy, 2) + scan.u * dD[:, None]
    if scan.D is not None:
        y = y + du * scan.D[:, None]
    return scan.merge(y).to(inputs.u.dtype)


def second(inputs: ScanInputs, changes: Sequence[Tensor], grad_y: Tensor) -> Any:
    """H, in the dtypes of the inputs."""

    def along(*tensors: Tensor) -> Tensor:
        values: list[Any] = list(inputs)
        for i, tensor in zip(TENSORS, tensors, strict=True):
            values[i] = tensor
        return tangent(ScanInputs(*values), changes)

    return torch.func.vjp(along, *(inputs[i] for i in TENSORS))[1](grad_y)


def differentiate(*ops: Any) -> None:
    """Give the ops their gradient."""
    for op in ops:
        op.register_autograd(_backward, setup_context=_setup_context)


def _setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
    *tensors, softplus, discretization = inputs
    ctx.options = (softplus, discretization)
    states = None
    if isinstance(output, tuple):
        states = output[1]
        ctx.mark_non_differentiable(states)
        ctx.set_materialize_grads(False)  # zeros in the shape of the states, for nothing
    ctx.save_for_backward(states, *tensors)


def _backward(ctx, grad_y, _=None):  # type: ignore[no-untyped-def]
    if torch._C._functorch.is_legacy_batchedtensor(grad_y):
        raise ConfigError(
            "selective_scan: is_grads_batched, or vectorize of torch.autograd.functional, has no "
            "rule for a custom op in torch; use torch.func.jacrev or torch.func.vmap"
        )
    states, *tensors = ctx.saved_tensors
    inputs = ScanInputs(*tensors, *ctx.options)
    if torch.is_grad_enabled():  # it is to be derived once more
        found = Gradient.apply(grad_y, *_with_all(inputs))  # type: ignore[no-untyped-call]
    else:
        found = torch.ops.ssmdiff.selective_scan_backward(grad_y, states, *inputs)
    du, ddelta, dA, dB, dC, dD, dbias = found
    D, delta_bias = tensors[6:8]
    dD, dbias = (None if x is None else g for x, g in ((D, dD), (delta_bias, dbias)))
    return du, ddelta, dA, dB, dC, None, dD, dbias, None, None
