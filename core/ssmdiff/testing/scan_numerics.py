"""The proofs about scans that need tensors: kernels, graphs, gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ssmdiff.errors import PluginError
from ssmdiff.ops import ScanInputs, TorchKernel, load_kernel, selective_scan
from ssmdiff.orders.scan import Grid, ScanOrder, size_text
from ssmdiff.registry.registry import registry
from ssmdiff.testing.report import ViolationError

TOLERANCE = 1e-5  # of the largest value, float32 against float64
BATCH, CHANNELS, STATE = 2, 5, 3


def inputs_along(order: ScanOrder, dtype: torch.dtype = torch.float32) -> ScanInputs:
    """Random inputs of the op with that order, the same for the same shape."""
    g = torch.Generator().manual_seed(order.length)
    K, L = order.index.shape

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g).to(dtype)

    return ScanInputs(
        normal(BATCH, L, CHANNELS),
        normal(BATCH, K, L, CHANNELS),
        -torch.rand(K, CHANNELS, STATE, generator=g).to(dtype) - 0.05,
        normal(BATCH, K, L, STATE),
        normal(BATCH, K, L, STATE),
        torch.tensor(order.coded),
        normal(K, CHANNELS),
        normal(K, CHANNELS),
    )


def kernels_agree(orders: Mapping[Grid, ScanOrder]) -> str:
    """Every kernel that runs on the CPU in float32, against the reference in float64."""
    cpu = torch.device("cpu")
    ran, largest = [], 0.0
    for name in registry().names("kernel"):
        try:
            kernel = load_kernel(name)
        except PluginError:
            continue  # the kernel's own fault, which is shown by `ssmdiff plugins check`
        if kernel.unavailable(cpu, torch.float32):
            continue
        ran.append(name)
        for grid, order in orders.items():
            inputs = inputs_along(order)
            expected = TorchKernel().forward(inputs.to(cpu, torch.float64))
            error = kernel.forward(inputs).double() - expected
            relative = float(error.abs().max() / expected.abs().max())
            if not relative <= TOLERANCE:
                raise ViolationError(
                    f"kernel {name!r} is off by {relative:.1e} along the order of a "
                    f"{size_text(grid)} grid",
                    f"at most {TOLERANCE:g} of the largest value of the float64 reference",
                )
            largest = max(largest, relative)
    return f"{', '.join(ran)} within {largest:.0e} of float64 on {_grids(orders)}"


def graphs_agree(orders: Mapping[Grid, ScanOrder]) -> str:
    """The op called plainly, in a compiled graph and in an exported one, outputs and gradients."""
    for grid, order in orders.items():
        inputs = inputs_along(order)
        eager = _results(_scan, inputs)
        for name, function in (("compiled", _compiled()), ("exported", _exported(order, inputs))):
            for got, expected in zip(_results(function, inputs), eager, strict=True):
                if not torch.equal(got, expected):
                    raise ViolationError(
                        f"the {name} graph differs from the op along the order of a "
                        f"{size_text(grid)} grid by {float((got - expected).abs().max()):.1e}",
                        "equal bits, as the order is an input of the graph",
                    )
    return f"op, compiled and exported graph equal to the bit on {_grids(orders)}"


def gradient_of_expand_is_merge(orders: Mapping[Grid, ScanOrder]) -> str:
    """In whole numbers, so that sums are exact whatever their order."""
    for grid, order in orders.items():
        index = torch.tensor(order.index).long()
        x = torch.zeros(order.length, dtype=torch.float64, requires_grad=True)
        g = torch.Generator().manual_seed(0)
        grad_y = torch.randint(-1000, 1000, index.shape, generator=g).double()
        x[index].backward(grad_y)
        inverse = torch.tensor(order.inverse).long()
        if x.grad is None or not torch.equal(x.grad, grad_y.gather(1, inverse).sum(0)):
            raise ViolationError(
                f"the gradient of expand is not merge of the gradient on a {size_text(grid)} grid",
                "each token's own gradients from all directions, summed",
            )
    return f"exact on {_grids(orders)}"


def _scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    order: Tensor,
    D: Tensor,
    delta_bias: Tensor,
) -> Tensor:
    return selective_scan(u, delta, A, B, C, order, D, delta_bias)


class _ScanModule(nn.Module):
    def forward(self, *tensors: Tensor) -> Tensor:
        return _scan(*tensors)  # type: ignore[arg-type]


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    """One graph for all shapes: it is the order that varies, and that is an input."""
    return torch.compile(_scan, backend="aot_eager", dynamic=True)


_programs: dict[tuple[int, int], Callable[..., Tensor]] = {}


def _exported(order: ScanOrder, inputs: ScanInputs) -> Callable[..., Tensor]:
    """One graph for all orders of a shape."""
    key = (order.directions, order.length)
    if key not in _programs:
        _programs[key] = torch.export.export(_ScanModule(), inputs[:8]).module()  # type: ignore[arg-type]
    return _programs[key]


def _results(function: Callable[..., Tensor], inputs: ScanInputs) -> list[Tensor]:
    """The output, and the gradients of u, delta, B and C."""
    tensors = (*inputs[:6], inputs.D, inputs.delta_bias)
    leaves = [
        x.detach().clone().requires_grad_() if x is not None and x.is_floating_point() else x
        for x in tensors
    ]
    y = function(*leaves)
    y.backward(torch.ones_like(y))
    grads = [leaves[i].grad for i in (0, 1, 3, 4)]  # type: ignore[union-attr]
    return [y.detach(), *(g for g in grads if g is not None)]


def _grids(orders: Mapping[Grid, ScanOrder]) -> str:
    return ", ".join(size_text(grid) for grid in orders)
