"""The op and its plain reference, held against the equations of the paper.

What each test compares with is written here, in plain numpy or from another formula. Every other
kernel is compared with the reference, so all of these run on it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from ssmdiff.errors import ConfigError
from ssmdiff.ops import selective_scan, use_kernel
from ssmdiff.orders.scan import ScanOrder
from ssmdiff.testing.probes import ProbeScan
from torch import Tensor

BOTH = pytest.mark.parametrize("discretization", ["euler", "zoh"])
OP = torch.ops.ssmdiff.selective_scan.default


@pytest.fixture(autouse=True)
def reference() -> Iterator[None]:
    with use_kernel("torch"):
        yield


@dataclass
class Case:
    """The arguments of one call."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    order: Tensor
    D: Tensor | None = None
    delta_bias: Tensor | None = None
    delta_softplus: bool = True
    discretization: str = "euler"

    def arguments(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def y(self) -> Tensor:
        return selective_scan(**self.arguments())

    def to(self, dtype: torch.dtype) -> Case:
        return self.map(lambda x: x.to(dtype))

    def map(self, change) -> Case:
        """The case with every floating tensor changed."""
        given = self.arguments().items()
        floating = {k: v for k, v in given if isinstance(v, Tensor) and v.is_floating_point()}
        return replace(self, **{k: change(v) for k, v in floating.items()})

    def leaves(self) -> Case:
        return self.map(lambda x: x.detach().clone().requires_grad_())

    def gradients(self, grad_y: Tensor) -> dict[str, Tensor]:
        """Of sum(y grad_y), by name."""
        case = self.leaves()
        (case.y() * grad_y).sum().backward()
        given = case.arguments().items()
        return {k: v.grad for k, v in given if isinstance(v, Tensor) and v.requires_grad}


def rows_and_columns(grid: tuple[int, ...], generator: np.random.Generator) -> ScanOrder:
    """Along the last axis first and along the first axis first, there and back."""
    tokens = np.arange(math.prod(grid)).reshape(grid)
    there = np.stack([tokens.ravel(), tokens.T.ravel()])
    return ScanOrder(np.concatenate([there, there[:, ::-1]]))


def raster(grid: tuple[int, ...], generator: np.random.Generator) -> ScanOrder:
    return ScanOrder(np.arange(math.prod(grid))[None])


def there_and_back(grid: tuple[int, ...], generator: np.random.Generator) -> ScanOrder:
    (there,) = raster(grid, generator).index
    return ScanOrder(np.stack([there, there[::-1]]))


ORDERS = {
    "raster": raster,
    "bidirectional": there_and_back,
    "cross": rows_and_columns,
    "random": ProbeScan(4).order,
}


def make(
    grid: tuple[int, ...] = (2, 3),
    scan: str = "cross",
    batch: int = 2,
    channels: int = 2,
    state: int = 3,
    seed: int = 0,
    **options: Any,
) -> Case:
    """Random inputs in float64 along an order; D, bias and restart where asked for."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    order = ORDERS[scan](grid, np.random.default_rng(seed))
    K, L = order.index.shape
    if options.pop("D", False):
        options["D"] = normal(K, channels)
    if options.pop("delta_bias", False):
        options["delta_bias"] = normal(K, channels)
    if options.pop("restart", False):
        order = ScanOrder(order.index, (torch.rand(K, L, generator=rng) < 0.3).numpy())
    delta = normal(batch, K, L, channels)
    return Case(
        u=normal(batch, L, channels),
        delta=delta if options.get("delta_softplus", True) else delta.abs(),
        A=-torch.exp(0.5 * normal(K, channels, state)),
        B=normal(batch, K, L, state),
        C=normal(batch, K, L, state),
        order=torch.tensor(order.coded),
        **options,
    )


OPTIONS = [
    {},
    {"D": True},
    {"delta_bias": True},
    {"restart": True},
    {"delta_softplus": False},
    {"D": True, "delta_bias": True, "restart": True},
    {"D": True, "delta_bias": True, "restart": True, "delta_softplus": False},
]
EVERY_OPTION = pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "+".join(o) or "plain")


def scalar_scan(case: Case) -> np.ndarray:
    """Equations 5 and 6, one number at a time: h = A_bar h + B_bar x, y = C h + D x."""
    given = {k: v.numpy() if isinstance(v, Tensor) else v for k, v in case.arguments().items()}
    u, A, B, C, order = (given[name] for name in ("u", "A", "B", "C", "order"))
    y = np.zeros_like(u)
    K, L = order.shape
    for b, k, d in np.ndindex(u.shape[0], K, u.shape[2]):
        h = [0.0] * A.shape[2]
        for t in range(L):
            p = int(order[k, t])
            if p < 0:
                p, h = -1 - p, [0.0] * A.shape[2]
            step = given["delta"][b, k, p, d]
            if case.delta_bias is not None:
                step += given["delta_bias"][k, d]
            if case.delta_softplus:
                step = math.log1p(math.exp(step))
            for n in range(A.shape[2]):
                A_bar = math.exp(step * A[k, d, n])
                if case.discretization == "zoh":
                    B_bar = (A_bar - 1) / (step * A[k, d, n]) * step * B[b, k, p, n]
                else:
                    B_bar = step * B[b, k, p, n]
                h[n] = A_bar * h[n] + B_bar * u[b, p, d]
                y[b, p, d] += C[b, k, p, n] * h[n]
            if case.D is not None:
                y[b, p, d] += given["D"][k, d] * u[b, p, d]
    return y


@BOTH
@EVERY_OPTION
@pytest.mark.parametrize("scan", ["cross", "random"])
def test_forward_is_the_recurrence_of_the_paper(scan: str, options, discretization: str) -> None:
    case = make((3, 4), scan, discretization=discretization, **options)
    np.testing.assert_allclose(case.y(), scalar_scan(case), rtol=1e-11, atol=1e-12)


@BOTH
@EVERY_OPTION
@pytest.mark.parametrize("grid", [(2, 3), (5, 1)])
def test_gradients_are_those_of_finite_differences(grid, options, discretization: str) -> None:
    case = make(grid, "bidirectional", batch=1, state=2, discretization=discretization, **options)
    case = case.leaves()
    given = case.arguments()
    names = [k for k, v in given.items() if isinstance(v, Tensor) and v.requires_grad]

    def scan(*values: Tensor) -> Tensor:
        return selective_scan(**{**given, **dict(zip(names, values, strict=True))})

    assert torch.autograd.gradcheck(scan, [given[name] for name in names])


def test_only_what_requires_a_gradient_gets_one() -> None:
    case = make(D=True)
    case.A.requires_grad_()
    case.y().sum().backward()
    assert case.A.grad.abs().sum() > 0
    assert case.u.grad is None
    assert case.D.grad is None


def constant(case: Case) -> Case:
    """The case with delta, B and C the same for all tokens: a time-invariant system."""
    first = {name: getattr(case, name) for name in ("delta", "B", "C")}
    same = {name: x[:, :, :1].expand_as(x).contiguous() for name, x in first.items()}
    return replace(case, **same)


def discretized(case: Case, b: int, d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A_bar, B_bar and C of a time-invariant system, with eq. 6 in its matrix form."""
    step = float(torch.nn.functional.softplus(case.delta[b, 0, 0, d]))
    A = torch.diag(case.A[0, d])
    B = case.B[b, 0, 0]
    A_bar = torch.matrix_exp(step * A)
    if case.discretization == "zoh":
        B_bar = torch.linalg.inv(step * A) @ (A_bar - torch.eye(len(A))) @ (step * B)
    else:
        B_bar = step * B
    return A_bar.numpy(), B_bar.numpy(), case.C[b, 0, 0].numpy()


@BOTH
def test_a_time_invariant_system_is_the_global_convolution_of_eq_7(discretization: str) -> None:
    case = constant(make((3, 5), "raster", discretization=discretization))
    y = case.y().numpy()
    for b, d in np.ndindex(2, 2):
        A_bar, B_bar, C = discretized(case, b, d)
        kernel = [C @ np.linalg.matrix_power(A_bar, t) @ B_bar for t in range(15)]
        convolved = np.convolve(case.u[b, :, d], kernel)[:15]
        np.testing.assert_allclose(y[b, :, d], convolved, rtol=1e-10, atol=1e-12)


@BOTH
def test_one_token_gives_c_times_b_bar_of_eq_6(discretization: str) -> None:
    case = make((1, 1), "raster", discretization=discretization)
    for b, d in np.ndindex(2, 2):
        _, B_bar, C = discretized(case, b, d)
        np.testing.assert_allclose(case.y()[b, 0, d], C @ B_bar * case.u[b, 0, d], rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("A", [-1e-3, -1e-8, -1e-30, 0.0])
def test_zoh_tends_to_euler_as_the_decay_tends_to_nothing(A: float, dtype) -> None:
    euler = make((3, 4), D=True).to(dtype)
    euler = replace(euler, A=torch.full_like(euler.A, A))
    zoh = replace(euler, discretization="zoh")
    near = {"rtol": 10 * abs(A) + 1e-5, "atol": 10 * abs(A) + 1e-5}
    torch.testing.assert_close(zoh.y(), euler.y(), **near)
    grad_y = torch.ones_like(euler.u)
    for name, gradient in zoh.gradients(grad_y).items():
        assert gradient.isfinite().all(), name
        if name != "A":  # B_bar depends on A in the one and not in the other
            torch.testing.assert_close(gradient, euler.gradients(grad_y)[name], **near)


@pytest.mark.parametrize("scale", [10.0, 1.0, 0.1, 1e-2, 1e-4, 1e-8])
def test_the_gradient_of_zoh_by_the_decay_does_not_cancel(scale: float) -> None:
    case = make((3, 4), discretization="zoh")
    case = replace(case, A=scale * case.A).to(torch.float32)
    grad_y = torch.ones_like(case.u)
    wanted = case.to(torch.float64).gradients(grad_y.double())["A"]
    torch.testing.assert_close(case.gradients(grad_y)["A"].double(), wanted, rtol=1e-4, atol=1e-5)


@BOTH
def test_a_large_decay_forgets_and_stays_finite(discretization: str) -> None:
    case = make((3, 4), D=True, discretization=discretization)
    case = replace(case, A=torch.full_like(case.A, -1e4))
    for name, gradient in case.gradients(torch.ones_like(case.u)).items():
        assert gradient.isfinite().all(), name
    assert case.y().isfinite().all()


@BOTH
def test_the_sum_over_directions_is_the_sum_of_separate_calls(discretization: str) -> None:
    case = make((3, 4), D=True, delta_bias=True, restart=True, discretization=discretization)
    total = torch.zeros_like(case.u)
    for k in range(4):
        of_k = {n: getattr(case, n)[k : k + 1] for n in ("A", "order", "D", "delta_bias")}
        of_k |= {n: getattr(case, n)[:, k : k + 1] for n in ("delta", "B", "C")}
        total += replace(case, **of_k).y()
    torch.testing.assert_close(case.y(), total)


def gathered(case: Case, tokens: Tensor) -> Case:
    """One direction of the case, its tokens taken in this order and visited one after another."""
    order = torch.arange(len(tokens), dtype=torch.int32)[None]
    per_token = {name: getattr(case, name)[:, :, tokens] for name in ("delta", "B", "C")}
    return replace(case, **per_token, u=case.u[:, tokens], order=order)


def test_walking_an_order_is_gathering_scanning_and_scattering() -> None:
    case = make((3, 4), "raster")
    tokens = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    walked = replace(case, order=tokens[None].int())
    torch.testing.assert_close(walked.y()[:, tokens], gathered(case, tokens).y())


def test_a_restart_begins_a_scan_of_its_own() -> None:
    case = make((3, 4), "raster", D=True)
    tokens = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    order = tokens[None].int()
    order[0, [5, 9]] = -1 - order[0, [5, 9]]
    y = replace(case, order=order).y()
    for part in (tokens[:5], tokens[5:9], tokens[9:]):
        torch.testing.assert_close(y[:, part], gathered(case, part).y())


def test_a_restart_at_the_first_token_changes_nothing() -> None:
    case = make((3, 4))
    order = case.order.clone()
    order[:, 0] = -1 - order[:, 0]
    assert torch.equal(replace(case, order=order).y(), case.y())


def test_images_of_a_batch_do_not_meet() -> None:
    case = make((3, 4), D=True)
    alone = {name: getattr(case, name)[1:] for name in ("u", "delta", "B", "C")}
    torch.testing.assert_close(case.y()[1:], replace(case, **alone).y())


def test_no_token_sees_what_is_visited_later() -> None:
    case = make((3, 4), "raster")
    changed = case.u.clone()
    changed[:, 7] += 1
    before, after = case.y(), replace(case, u=changed).y()
    assert torch.equal(before[:, :7], after[:, :7])
    assert (before[:, 7:] != after[:, 7:]).all()


@BOTH
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)]
)
def test_lower_precisions_agree_with_float64(dtype, tolerance, discretization: str) -> None:
    case = make((5, 7), D=True, delta_bias=True, discretization=discretization).to(dtype)
    case = replace(case, A=case.A.float())  # as blocks keep it: float32 or wider
    exact = case.to(torch.float64)
    assert case.y().dtype == dtype
    grad_y = torch.randn_like(case.u)
    low, high = case.gradients(grad_y), exact.gradients(grad_y.double())
    low["y"], high["y"] = case.y(), exact.y()
    for name, value in low.items():
        error = (value.double() - high[name]).norm() / high[name].norm()
        assert error < tolerance, name


def test_gradients_come_in_the_dtype_of_their_input() -> None:
    case = make(D=True, delta_bias=True).to(torch.bfloat16)
    case = replace(case, A=case.A.float())
    for name, gradient in case.gradients(torch.ones_like(case.u)).items():
        assert gradient.dtype == getattr(case, name).dtype, name
        assert gradient.shape == getattr(case, name).shape, name


def strided(x: Tensor) -> Tensor:
    """The same values, laid out with the last two axes swapped, as a convolution leaves them."""
    return x.transpose(-1, -2).contiguous().transpose(-1, -2)


def test_the_layout_of_the_inputs_does_not_matter() -> None:
    case = make((3, 4), D=True, delta_bias=True)
    turned = case.map(strided)
    assert not turned.u.is_contiguous()
    torch.testing.assert_close(turned.y(), case.y())
    grad_y = torch.randn_like(case.u)
    for name, gradient in turned.gradients(grad_y).items():
        torch.testing.assert_close(gradient, case.gradients(grad_y)[name])


def test_outputs_and_gradients_have_the_layout_that_tracing_promises() -> None:
    turned = make((3, 4), D=True, delta_bias=True).map(strided)
    y = turned.y()
    assert y.is_contiguous()
    backward = torch.ops.ssmdiff.selective_scan_backward(y, None, **turned.arguments())
    assert [gradient.is_contiguous() for gradient in backward] == [True] * 7


@EVERY_OPTION
def test_the_registration_passes_opcheck(options) -> None:
    case = make(batch=1, **options).leaves()
    torch.library.opcheck(OP, tuple(case.arguments().values()))


def test_the_registration_of_the_backward_pass_passes_opcheck() -> None:
    case = make(batch=1, D=True).map(strided)
    arguments = (torch.ones_like(case.u), None, *case.arguments().values())
    backward = torch.ops.ssmdiff.selective_scan_backward.default
    torch.library.opcheck(backward, arguments)


def test_compile_sees_one_node_and_computes_the_same() -> None:
    case = make((3, 4), D=True, delta_bias=True, restart=True)
    graphs = []

    def backend(graph: torch.fx.GraphModule, example_inputs: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    y = torch.compile(selective_scan, fullgraph=True, backend=backend)(**case.arguments())
    torch.testing.assert_close(y, case.y())
    (graph,) = graphs
    calls = [node.target for node in graph.graph.nodes if node.op.startswith("call")]
    assert [str(target) for target in calls] == ["ssmdiff.selective_scan.default"]


@BOTH
def test_a_compiled_backward_pass_computes_the_same(discretization: str) -> None:
    case = make((3, 4), D=True, delta_bias=True, discretization=discretization)
    grad_y = torch.randn_like(case.u)
    wanted = case.gradients(grad_y)
    torch._dynamo.reset()
    compiled = torch.compile(selective_scan, fullgraph=True, backend="aot_eager")
    leaves = case.leaves()
    (compiled(**leaves.arguments()) * grad_y).sum().backward()
    for name, gradient in wanted.items():
        torch.testing.assert_close(getattr(leaves, name).grad, gradient)


class Twice(torch.nn.Module):
    """Two scans, the second over what the first gave."""

    def forward(self, u: Tensor, arguments: dict[str, Any]) -> Tensor:
        return selective_scan(selective_scan(u, **arguments), **arguments)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "any batch"])
def test_export_sees_one_node_for_each_call(dynamic: bool) -> None:
    case = make((3, 4), D=True)
    arguments = {k: v for k, v in asdict(case).items() if k != "u" and isinstance(v, Tensor)}
    shapes = None
    if dynamic:
        batch = torch.export.Dim("batch")
        of = {k: {0: batch} if k in ("delta", "B", "C") else None for k in arguments}
        shapes = {"u": {0: batch}, "arguments": of}
    program = torch.export.export(Twice(), (case.u, arguments), dynamic_shapes=shapes)
    calls = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert calls.count(OP) == 2
    torch.testing.assert_close(program.module()(case.u, arguments), Twice()(case.u, arguments))


def wrong_shapes() -> list[Any]:
    good = make(D=True, delta_bias=True, restart=True).arguments()
    cases = []
    for name, value in good.items():
        if isinstance(value, Tensor):
            for axis in range(value.dim()):
                if name != "u":
                    longer = torch.cat([value, value.narrow(axis, 0, 1)], axis)
                    cases.append(pytest.param(name, longer, id=f"{name} longer on axis {axis}"))
            cases.append(pytest.param(name, value[None], id=f"{name} with an axis more"))
            cases.append(pytest.param(name, value[0], id=f"{name} with an axis less"))
    return cases


@pytest.mark.parametrize(("name", "value"), wrong_shapes())
def test_a_wrong_shape_is_a_config_error_that_names_what_disagrees(name: str, value) -> None:
    arguments = make(D=True, delta_bias=True, restart=True).arguments()
    with pytest.raises(ConfigError, match=r"^selective_scan: ") as raised:
        selective_scan(**{**arguments, name: value})
    assert f"{name} " in str(raised.value)
    assert str(tuple(value.shape)) in str(raised.value)


@pytest.mark.parametrize(
    ("name", "dtype", "expected"),
    [
        ("order", torch.int64, "expected torch.int32"),
        ("order", torch.float32, "expected torch.int32"),
        *[
            (name, dtype, "expected floating point")
            for name in ("u", "delta", "A", "B", "C", "D", "delta_bias")
            for dtype in (torch.int64, torch.bool, torch.complex64)
        ],
    ],
)
def test_a_wrong_dtype_is_a_config_error_that_names_it(name: str, dtype, expected: str) -> None:
    arguments = make(D=True, delta_bias=True, restart=True).arguments()
    arguments[name] = arguments[name].to(dtype)
    with pytest.raises(ConfigError, match=f"selective_scan: {name} is {dtype}; {expected}"):
        selective_scan(**arguments)


def test_tensors_on_two_devices_are_refused() -> None:
    arguments = make().arguments()
    arguments["order"] = arguments["order"].to("meta")
    with pytest.raises(ConfigError, match="selective_scan: order is on meta; u is on cpu"):
        selective_scan(**arguments)


def test_an_unknown_discretization_is_refused() -> None:
    with pytest.raises(ConfigError, match="'bilinear'; expected one of euler, zoh"):
        make(discretization="bilinear").y()


def test_no_tokens_are_refused() -> None:
    case = make((1, 1), "raster")
    nothing = {name: getattr(case, name)[:, :, :0] for name in ("delta", "B", "C")}
    with pytest.raises(ConfigError, match="no tokens"):
        replace(case, **nothing, u=case.u[:, :0], order=case.order[:, :0]).y()


def test_nan_does_not_pass_a_restart() -> None:
    """The state is dropped, not multiplied by zero."""
    length = 6
    u = torch.ones(1, length, 2, dtype=torch.float64)
    u[0, 1] = torch.nan
    one = torch.ones(1, 1, length, 2, dtype=torch.float64)
    A = -torch.ones(1, 2, 2, dtype=torch.float64)
    order = torch.tensor([[0, 1, 2, -4, 4, 5]], dtype=torch.int32)
    y = selective_scan(u, one, A, one, one, order)
    assert y.isnan()[0, :, 0].tolist() == [False, True, True, False, False, False]
