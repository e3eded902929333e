"""Kind 21: forward mode was 0, without a word. Held against a float64 loop of the recurrence."""

from __future__ import annotations

import pytest
import ssmdiff
import torch
from float64_loop import NAMES, Case, error, like, make
from ssmdiff.ops import use_kernel
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import jacfwd, jvp

LIMIT = 1e-5
KERNELS = ("numba", "torch")


@pytest.fixture(params=["euler", "zoh"])
def case(request: pytest.FixtureRequest) -> Case:
    return make(request.param)


def double(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.double() for x in tensors)


@pytest.mark.parametrize("kernel", KERNELS)
def test_jvp_by_all_tensors(case: Case, kernel: str) -> None:
    x, change = tuple(case.tensors.values()), like(case.tensors)
    _, exact = jvp(case.exact, double(x), double(change))
    with use_kernel(kernel):
        y, got = jvp(case.ours, x, change)
    assert error(y, case.exact(*double(x))) < LIMIT
    assert error(got, exact) < LIMIT


@pytest.mark.parametrize("name", NAMES)
def test_jvp_by_one_tensor(case: Case, name: str) -> None:
    i, x, change = NAMES.index(name), list(case.tensors.values()), like(case.tensors)

    def along(f, x):
        return lambda one: f(*x[:i], one, *x[i + 1 :])

    _, got = jvp(along(case.ours, x), (x[i],), (change[i],))
    wide = list(double(tuple(x)))
    _, exact = jvp(along(case.exact, wide), (wide[i],), (change[i].double(),))
    assert error(got, exact) < LIMIT


def by_u(case: Case):
    rest = tuple(case.tensors.values())[1:]
    wide = double(rest)
    return (lambda u: case.ours(u, *rest)), (lambda u: case.exact(u, *wide))


def test_jacfwd(case: Case) -> None:
    ours, exact = by_u(case)
    u = case.tensors["u"]
    assert error(jacfwd(ours)(u), jacfwd(exact)(u.double())) < LIMIT


@pytest.mark.parametrize("learnt", [False, True], ids=["constants", "A-requires-grad"])
@pytest.mark.parametrize("grad_mode", [False, True], ids=["no-grad", "grad"])
def test_dual_numbers(case: Case, learnt: bool, grad_mode: bool) -> None:
    _, exact = by_u(case)
    u, change = case.tensors["u"], like(case.tensors)[0]
    case.tensors["A"].requires_grad_(learnt)
    with torch.set_grad_enabled(grad_mode), forward_ad.dual_level():
        y = by_u(case)[0](forward_ad.make_dual(u, change))
        got = forward_ad.unpack_dual(y).tangent
    assert got is not None
    assert error(got.detach(), exact(change.double())) < LIMIT  # y is linear in u


@pytest.mark.parametrize("way", ["jvp", "dual", "of-compiled"])
def test_in_a_compiled_function(way: str) -> None:
    case = make("euler")
    ours, exact = by_u(case)
    u, change = case.tensors["u"], like(case.tensors)[0]

    def tangent(u: Tensor, change: Tensor) -> Tensor | None:
        if way == "dual":
            with forward_ad.dual_level():
                return forward_ad.unpack_dual(ours(forward_ad.make_dual(u, change))).tangent
        return jvp(ours, (u,), (change,))[1]

    if way == "of-compiled":  # traced before, and without a change
        compiled = torch.compile(ours, backend="aot_eager")
        assert error(compiled(u), exact(u.double())) < LIMIT
        ours = compiled
        got = jvp(ours, (u,), (change,))[1]
        way = "dual"
        assert error(tangent(u, change), exact(change.double())) < LIMIT
    else:
        got = torch.compile(tangent, backend="aot_eager")(u, change)
    assert got is not None
    assert error(got, exact(change.double())) < LIMIT


def test_jvp_of_jvp(case: Case) -> None:
    """torch turns forward mode off within a rule of forward mode: it was 0 at first."""
    x, change = tuple(case.tensors.values()), like(case.tensors)

    def twice(f, x, change):
        return jvp(lambda *x: jvp(f, x, change)[1], x, change)[1]

    assert error(twice(case.ours, x, change), twice(case.exact, double(x), double(change))) < LIMIT


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_dtypes_keep_theirs(dtype: torch.dtype) -> None:
    case = make("euler")
    narrow = [x if n in ("A", "D", "delta_bias") else x.to(dtype) for n, x in case.tensors.items()]
    change = like(case.tensors)[0].to(dtype)
    y, got = jvp(lambda u: case.ours(u, *narrow[1:]), (narrow[0],), (change,))
    assert y.dtype == got.dtype == dtype
    assert error(got, case.exact(change.double(), *double(tuple(narrow[1:])))) < 0.02


def test_the_op_of_a_graph_refuses_forward_mode() -> None:
    """An opened .pt2 calls the op itself, where the change would be lost without a word."""
    case = make("euler")
    u, *rest = case.tensors.values()

    def raw(u: Tensor) -> Tensor:
        y: Tensor = torch.ops.ssmdiff.selective_scan(u, *rest[:4], case.order)
        return y

    with pytest.raises(ssmdiff.ConfigError, match="has no forward mode"):
        jvp(raw, (u,), (torch.ones_like(u),))
