"""Kind 22: torch.func, vmap and second derivatives ended in torch's own words.

Held against a float64 loop of the recurrence, which torch differentiates by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import ssmdiff
import torch
from float64_loop import Case, error, like, loop, make
from ssmdiff.ops import use_kernel
from torch import Tensor
from torch.func import grad, hessian, jacrev, jvp, vjp, vmap

LIMIT = 1e-5
ALL = tuple(range(7))
MAPPED = 3
AXES = [
    (0, 0, 0, 0, 0, 0, 0),
    (0, None, None, None, None, None, None),  # folded into the batch
    (0, 0, None, 0, 0, None, None),
    (None, None, 0, None, None, 0, 0),  # an ensemble of parameters
    (None, None, 0, 0, None, None, None),
]
Function = Callable[..., Tensor]


@pytest.fixture(params=["euler", "zoh"])
def case(request: pytest.FixtureRequest) -> Case:
    return make(request.param)


def double(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(x.double() for x in tensors)


def close(got: Sequence[Tensor], exact: Sequence[Tensor]) -> bool:
    return max(error(g.detach(), e) for g, e in zip(got, exact, strict=True)) < LIMIT


def squares(f: Function) -> Function:
    return lambda *x: f(*x).square().sum()


@pytest.mark.parametrize("kernel", ["numba", "torch"])
def test_vjp(case: Case, kernel: str) -> None:
    x, g = tuple(case.tensors.values()), like(case.tensors)[0]
    with use_kernel(kernel):
        got = vjp(case.ours, *x)[1](g)
    assert close(got, vjp(case.exact, *double(x))[1](g.double()))


def test_grad(case: Case) -> None:
    x = tuple(case.tensors.values())
    exact = grad(squares(case.exact), ALL)(*double(x))
    assert close(grad(squares(case.ours), ALL)(*x), exact)


def test_jacrev_and_hessian(case: Case) -> None:
    u, delta, A, *rest = case.tensors.values()
    wide = double((u, delta)), double(rest)

    def ours(A: Tensor) -> Tensor:
        return case.ours(u, delta, A, *rest)

    def exact(A: Tensor) -> Tensor:
        return case.exact(*wide[0], A, *wide[1])

    assert error(jacrev(ours)(A), jacrev(exact)(A.double())) < LIMIT
    assert error(hessian(squares(ours))(A), hessian(squares(exact))(A.double())) < LIMIT


@pytest.mark.parametrize("axes", AXES, ids=str)
def test_vmap_of_the_op_its_gradient_and_its_tangent(
    case: Case, axes: tuple[int | None, ...]
) -> None:
    x, change = tuple(case.tensors.values()), like(case.tensors)
    stacked = tuple(
        one if axis is None else torch.stack([one * (1 + i / 10) for i in range(MAPPED)])
        for one, axis in zip(x, axes, strict=True)
    )

    def each(f: Callable[..., Tensor | tuple[Tensor, ...]]) -> list[Tensor]:
        found = []
        for i in range(MAPPED):
            pairs = zip(double(stacked), axes, strict=True)
            one = f(*[x if axis is None else x[i] for x, axis in pairs])
            found.append(one if isinstance(one, tuple) else (one,))
        return [torch.stack(values) for values in zip(*found, strict=True)]

    assert close([vmap(case.ours, axes)(*stacked)], each(case.exact))
    got = vmap(grad(squares(case.ours), ALL), axes)(*stacked)
    assert close(got, each(grad(squares(case.exact), ALL)))
    tangents = vmap(lambda *x: jvp(case.ours, x, change)[1], axes)(*stacked)
    assert close([tangents], each(lambda *x: jvp(case.exact, x, double(change))[1]))


def test_vmap_over_orders_and_along_any_axis(case: Case) -> None:
    x = tuple(case.tensors.values())
    orders = torch.stack([case.order, case.order.flip(1)], dim=1)  # (K, V, L)
    exact = [loop(*double(x), order, case.discretization) for order in orders.unbind(1)]
    got = vmap(
        lambda order: ssmdiff.selective_scan(
            *x[:5], order, *x[5:], discretization=case.discretization
        ),
        in_dims=1,
        out_dims=2,
    )(orders)
    assert close(got.unbind(2), exact)


def test_vmap_of_vmap(case: Case) -> None:
    u, delta, A, *rest = case.tensors.values()
    many_u, many_A = torch.stack([u, 2 * u]), torch.stack([A, A / 2, A / 3])
    got = vmap(lambda A: vmap(lambda u: case.ours(u, delta, A, *rest))(many_u))(many_A)
    for i, j in ((0, 0), (2, 1)):
        assert error(got[i, j], case.exact(*double((many_u[j], delta, many_A[i], *rest)))) < LIMIT


def test_vmap_checks_each_order() -> None:
    case = make("euler")
    x = tuple(case.tensors.values())
    orders = torch.stack([case.order, case.order])
    orders[1, 0, 0] = 2**31 - 1
    with pytest.raises(ssmdiff.ConfigError, match="direction 0 visits token 2147483647"):
        vmap(lambda order: ssmdiff.selective_scan(*x[:5], order, *x[5:]))(orders)


def second(f: Function, x: Sequence[Tensor], change: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The derivative of the gradient along a change, by two backward passes."""
    x = [one.clone().requires_grad_() for one in x]
    first = torch.autograd.grad(squares(f)(*x), x, create_graph=True)
    return torch.autograd.grad(sum((a * b).sum() for a, b in zip(first, change, strict=True)), x)


@pytest.mark.parametrize("kernel", ["numba", "torch"])
def test_second_derivatives_by_two_backward_passes(case: Case, kernel: str) -> None:
    x, change = tuple(case.tensors.values()), like(case.tensors)
    with use_kernel(kernel):
        got = second(case.ours, x, change)
    assert close(got, second(case.exact, double(x), double(change)))


def test_second_derivatives_by_transforms(case: Case) -> None:
    x, change = tuple(case.tensors.values()), like(case.tensors)
    exact = second(case.exact, double(x), double(change))
    assert close(jvp(grad(squares(case.ours), ALL), x, change)[1], exact)

    def along(*x: Tensor) -> Tensor:
        return jvp(squares(case.ours), x, change)[1]

    assert close(grad(along, ALL)(*x), exact)


def test_second_derivatives_where_closed_forms_cancel() -> None:
    """(exp(d A) - 1) / A has none of its digits left in float32 when it is derived twice there."""
    case = make("zoh")
    case.tensors["A"][:, ::2] = -1e-3
    x, change = tuple(case.tensors.values()), like(case.tensors)
    exact = second(case.exact, double(x), double(change))
    assert close(second(case.ours, x, change), exact)
    case.tensors["A"][:, ::2] = 0.0  # where the loop has no value
    limit = second(case.ours, tuple(case.tensors.values()), change)
    assert all(error(got, near) < 0.02 for got, near in zip(limit, exact, strict=True))


def test_absent_inputs(case: Case) -> None:
    u, delta, A, B, C, D, bias = case.tensors.values()
    none = torch.zeros_like(D), torch.zeros_like(bias)

    def ours(u: Tensor, A: Tensor) -> Tensor:
        return ssmdiff.selective_scan(
            u, delta, A, B, C, case.order, discretization=case.discretization
        )

    def exact(u: Tensor, A: Tensor) -> Tensor:
        return case.exact(u, delta, A, B, C, *none)

    change = like({"u": u, "A": A})
    wide = double((u, A)), double(change)
    assert close([jvp(ours, (u, A), change)[1]], [jvp(exact, *wide)[1]])
    assert close(second(ours, (u, A), change), second(exact, *wide))


def test_the_limits_are_sentences() -> None:
    case = make("euler")
    u, *rest = case.tensors.values()

    def ours(u: Tensor) -> Tensor:
        return case.ours(u, *rest)

    with pytest.raises(ssmdiff.ConfigError, match=r"use torch\.func\.jacrev"):
        torch.autograd.functional.jacobian(ours, u, vectorize=True)
    with pytest.raises(ssmdiff.ConfigError, match="vmap over an axis of length 0"):
        vmap(ours)(u[None][:0])
