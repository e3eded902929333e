"""The inputs that kernels are checked with, hostile ones among them, and how close they must come.

Everything here is data: :mod:`ssmdiff.testing.kernel` has the checks. Values are drawn in float64
and rounded to bfloat16, so that most dtypes see the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssmdiff.ops import Kernel, ScanInputs, both_passes, decode_order, note_order
from ssmdiff.testing.probes import coded

Shape = tuple[int, int, int, int, int]
"""(B, L, D, K, N)."""


class Tolerance(NamedTuple):
    """How far each result may be from the float64 reference, and why so far.

    The error of y and of the gradients of u, delta, A, B and C is relative to the largest value of
    the same channel (of B and C: the same state); that of D and delta_bias, to the tensor's.
    """

    y: float
    u: float
    delta: float
    A: float
    B: float
    C: float
    D: float
    delta_bias: float
    reason: str


TOLERANCE: Mapping[torch.dtype, Tolerance] = MappingProxyType(
    {
        torch.float64: Tolerance(
            *(1e-9,) * 8,
            "the reference's own arithmetic in another order: 1e-16 for each of 8,192 steps, and "
            "a thousandfold for sums that cancel",
        ),
        torch.float32: Tolerance(
            y=1e-5,
            u=3e-5,
            delta=3e-5,
            A=3e-5,
            B=1e-5,
            C=1e-5,
            D=1e-5,
            delta_bias=3e-5,
            reason="6e-8 for each step, which adds up over 8,192 of them where a state hardly "
            "decays (the reference itself, run in float32, is off by 1.3e-5 there); more for u, "
            "delta and what is summed from it, whose terms cancel",
        ),
        torch.bfloat16: Tolerance(
            *(2**-6,) * 2,
            *(2**-7,) * 6,
            "the result's own 8 bits, cut off or rounded (2^-7 or 2^-8), from float32 "
            "arithmetic; y and u twice that, as each direction may be rounded before the sum",
        ),
        torch.float16: Tolerance(
            *(2**-9,) * 2,
            *(2**-10,) * 6,
            "the result's own 11 bits, cut off or rounded (2^-10 or 2^-11), from float32 "
            "arithmetic; y and u twice that, as each direction may be rounded before the sum",
        ),
    }
)
"""For results in each dtype. The one table: reports quote it, and docs/write-a-kernel.md."""

RESULTS = ("y", "u", "delta", "A", "B", "C", "D", "delta_bias")
"""The output, and the inputs that have a gradient."""

SHAPES: tuple[Shape, ...] = (
    (1, 1, 1, 1, 1),
    (2, 35, 19, 3, 5),
    (1, 64, 16, 4, 16),
    (3, 7, 33, 2, 8),
    (2, 20, 5, 1, 3),
)
"""One of everything, odd, even, more channels than tokens."""

KEPT: tuple[Shape, ...] = (
    (2, 35, 19, 3, 5),
    (1, 97, 17, 2, 1),
    (2, 130, 5, 2, 20),
    (1, 32, 3, 1, 2),
)
"""Of the kept states: several of them, not at the end of a vector; every 64 steps; and none."""

SMALL: tuple[Shape, ...] = ((2, 40, 17, 3, 5), (1, 35, 17, 2, 1))
"""Of the hostile cases: one channel more than a vector of 16, and with a single state."""

NAN: Shape = (2, 9, 19, 2, 5)
"""Of the cases with NaN in one number; other vectors, images and directions lie beside it."""

LONG = 8192
"""Tokens of the longest case; few channels, as the reference takes a Python step for each."""

METHODS = ("euler", "zoh")
_LARGEST_STEP, _SMALLEST_STEP, _LARGEST_A = 50.0, 1e-6, 1e4


def make_inputs(
    shape: Shape, seed: int = 0, restarts: bool = True, extras: bool = True, **options: Any
) -> ScanInputs:
    """Random inputs in float64 that are exact in bfloat16, so that no dtype rounds them.

    Args:
        shape: B, L, D, K, N.
        seed: Of all numbers.
        restarts: A tenth of the places, at random, starts the state anew.
        extras: Whether there are D and delta_bias.
        **options: Arguments of the op that take the place of these. Without softplus the step
            sizes are positive as they are.
    """
    batch, L, D, K, N = shape
    g = torch.Generator().manual_seed(seed)

    def normal(*sides: int) -> Tensor:
        return rounded(torch.randn(sides, generator=g))

    inputs = ScanInputs(
        normal(batch, L, D),
        normal(batch, K, L, D),
        rounded(-torch.rand(K, D, N, generator=g) - 0.05),
        normal(batch, K, L, N),
        normal(batch, K, L, N),
        torch.stack([torch.randperm(L, generator=g) for _ in range(K)]).int(),
        normal(K, D) if extras else None,
        normal(K, D) if extras else None,
    )
    if not options.get("delta_softplus", True):
        inputs = inputs._replace(
            delta=inputs.delta.abs(),
            delta_bias=None if inputs.delta_bias is None else inputs.delta_bias.abs(),
        )
    if restarts:
        inputs = restarted(inputs, torch.rand(K, L, generator=g) < 0.1)
    return inputs._replace(**options)


def restarted(inputs: ScanInputs, restart: Tensor) -> ScanInputs:
    """The same tokens, with the state anew where (K, L) bool ``restart`` is True."""
    return inputs._replace(order=coded(decode_order(inputs.order)[0], restart))


def without_restarts(inputs: ScanInputs) -> ScanInputs:
    """The same tokens, each row in one sequence."""
    return inputs._replace(order=decode_order(inputs.order)[0])


def rounded(x: Tensor) -> Tensor:
    """The nearest bfloat16, in float64."""
    return x.bfloat16().double()


def edges() -> Iterator[tuple[str, ScanInputs]]:
    """Sizes at their least, every K up to 8, and restarts at the first token and at all."""
    for case, shape in (
        ("L = 1", (2, 1, 17, 3, 5)),
        ("D = 1", (2, 33, 1, 2, 4)),
        ("N = 1", (2, 33, 17, 2, 1)),
        *((f"K = {K}", (1, 9, 5, K, 3)) for K in range(1, 9)),
        *((f"L = {L}", (1, L, 7, 2, 3)) for L in (31, 32, 33, 65)),  # powers of 2, and beside them
    ):
        yield case, make_inputs(shape)
    plain = make_inputs(SMALL[0])
    first = torch.zeros_like(plain.order, dtype=torch.bool)
    first[:, 0] = True
    yield "restart at t = 0", restarted(plain, first)
    yield "restart everywhere", restarted(plain, torch.ones_like(first))
    none = without_restarts(plain)
    yield "restart nowhere", none
    noted = note_order(none.order.clone(), restarts=False)
    yield "restart nowhere, and so noted", none._replace(order=noted)
    for shape in SMALL:
        inputs = make_inputs(shape)
        equal = inputs.A[:, :1].expand(inputs.A.shape)
        yield f"A equal over channels, {shape}", inputs._replace(A=equal.contiguous())


def hostile(dtype: torch.dtype) -> Iterator[tuple[str, ScanInputs]]:
    """Steps from 1e-6 to 50, A from 0 to -1e4, large and tiny B and C; finite in the dtype."""
    for shape in SMALL:
        for case, inputs in _hostile(shape, dtype):
            yield f"{case}, {shape}", inputs


def _hostile(shape: Shape, dtype: torch.dtype) -> Iterator[tuple[str, ScanInputs]]:
    plain = make_inputs(shape, delta_bias=None)
    steps = _between(_SMALLEST_STEP, _LARGEST_STEP, plain.delta)
    decays = -_between(1e-8, _LARGEST_A, plain.A)
    raw = rounded(torch.where(steps > 20, steps, torch.log(torch.expm1(steps))))
    yield "delta from 1e-6 to 50, A to -1e4", plain._replace(delta=raw, A=decays)
    without = plain._replace(delta=steps, A=decays, delta_softplus=False)
    yield "the same without softplus", without
    raw = rounded(torch.linspace(-80, 60, raw.numel())).view(raw.shape)
    yield "delta before softplus from -80 to 60", plain._replace(delta=raw)
    yield "every decay underflows", plain._replace(A=torch.full_like(decays, -_LARGEST_A))
    for value in (0.0, -1e-38, -1e-8):
        yield f"A = {value:g}", plain._replace(A=rounded(torch.full_like(decays, value)))
    # Opposite powers for B and C of a state: large states that y sees small, and the reverse.
    power = 4 if dtype == torch.float16 else 40  # float16 ends at 65,504
    signs = torch.tensor([1, -1, 0]).repeat(shape[1])
    state = torch.exp2(power * signs[: shape[4]].double())
    token = torch.exp2(power * signs[: shape[1], None].double())
    for case, scale in (("state", state), ("token", token)):
        # One sign, so that a sum of few large terms does not cancel, which no float32 could bear.
        scaled = plain._replace(u=plain.u.abs(), B=plain.B.abs() * scale, C=plain.C.abs() / scale)
        yield f"B and C from 2^-{power} to 2^{power} by {case}", scaled


def long() -> tuple[str, ScanInputs]:
    """:data:`LONG` tokens: states that decay at once, slowly, and hardly at all."""
    inputs = make_inputs((1, LONG, 3, 2, 2), restarts=False)
    return f"L = {LONG}", inputs._replace(
        A=-_between(1e-4, 10, inputs.A), delta=rounded(inputs.delta - 2)
    )


def _between(low: float, high: float, like: Tensor) -> Tensor:
    """Values of that shape from low to high, evenly in their logarithm, in random order."""
    values = torch.logspace(math.log10(low), math.log10(high), like.numel(), dtype=torch.float64)
    places = torch.randperm(like.numel(), generator=torch.Generator().manual_seed(2))
    return rounded(values[places].view(like.shape))


def gradient_of_y(inputs: ScanInputs) -> Tensor:
    """A random gradient of y, exact in bfloat16, in the dtype and on the device of u."""
    g = torch.Generator().manual_seed(1)
    return torch.randn(inputs.u.shape, generator=g).bfloat16().to(inputs.u)


def results(
    kernel: Kernel, inputs: ScanInputs, grad_y: Tensor | None = None, kept: bool = True
) -> dict[str, Tensor | None]:
    """The output and every gradient, by the names of :data:`RESULTS`.

    As in training, by way of the states that the kernel keeps, if any; or without them.
    """
    grad_y = gradient_of_y(inputs) if grad_y is None else grad_y
    if kept:
        y, gradients = both_passes(kernel, inputs, grad_y)
    else:
        y, gradients = kernel.forward(inputs), kernel.backward(grad_y, inputs)
    return dict(zip(RESULTS, (y, *gradients), strict=True))


def error_of(name: str, got: Tensor, exact: Tensor) -> float:
    """The largest error relative to the scales of :class:`Tolerance`, in got's dtype; infinite
    where got is not finite and the exact value, rounded to that dtype, is.
    """
    got, exact = got.detach().cpu(), exact.detach().cpu()
    finite = exact.to(got.dtype).isfinite()
    if not finite.any():
        return 0.0
    if not got[finite].isfinite().all():
        return float("inf")
    exact = exact.double().where(finite, 0.0)
    error = (got.double().where(finite, 0.0) - exact).abs()
    scale = exact.abs()
    if name in ("D", "delta_bias"):
        scale = scale.amax()
    else:
        others = (0, 2) if name == "A" else tuple(range(exact.dim() - 1))
        scale = scale.amax(others, keepdim=True)
    # What underflow may leave for 0: a subnormal of the result, or in float32 arithmetic an exp
    # that stops at 2^-126, times A and what else is large.
    info = torch.finfo(got.dtype)
    least = max(info.smallest_normal * info.eps, 2.0**-100)
    return float((error / scale.clamp_min(least / limit_of(name, got.dtype))).max())


def limit_of(name: str, dtype: torch.dtype) -> float:
    """The largest error that a result of that name and dtype may have."""
    limit: float = getattr(TOLERANCE[dtype], name)
    return limit
