"""The states that a forward pass keeps for the backward pass: their use, and that they are right.

That they equal the reference's is a check of the contract suite of kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from ssmdiff.errors import ConfigError
from ssmdiff.ops import (
    ScanInputs,
    StateKeepingKernel,
    TorchKernel,
    backward_from,
    kept_every,
    kept_shape,
    load_kernel,
    selective_scan,
    states_of,
    use_kernel,
)
from ssmdiff.testing.kernel_cases import RESULTS, gradient_of_y, make_inputs, results
from torch import Tensor

pytestmark = pytest.mark.needs_plugin("ssmdiff_kernels")  # numba keeps states

KEEPING = torch.ops.ssmdiff.selective_scan_keeping.default
SHAPE = (2, 70, 17, 2, 5)  # B, L, D, K, N: states before steps 32 and 64


class Spied:
    """A kernel that writes down what it is asked for, and whether there were states."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.calls = inner, []
        self.name, self.preference = inner.name, inner.preference

    def unavailable(self, device: torch.device, dtype: torch.dtype) -> str | None:
        return self.inner.unavailable(device, dtype)

    def forward(self, inputs: ScanInputs) -> Tensor:
        self.calls.append("forward")
        return self.inner.forward(inputs)

    def forward_keeping(self, inputs: ScanInputs) -> tuple[Tensor, Tensor]:
        self.calls.append("forward_keeping")
        return self.inner.forward_keeping(inputs)

    def backward(self, grad_y: Tensor, inputs: ScanInputs, states: Tensor | None = None) -> Any:
        self.calls.append("backward" if states is None else "backward from states")
        return self.inner.backward(grad_y, inputs, states)


@pytest.fixture
def spied() -> Iterator[Spied]:
    kernel = Spied(load_kernel("numba"))
    with use_kernel(kernel):
        yield kernel


def float32(shape: tuple[int, ...] = SHAPE, **options: Any) -> ScanInputs:
    return make_inputs(shape, **options).to("cpu", torch.float32)


def leaves(inputs: ScanInputs) -> ScanInputs:
    made = {name: getattr(inputs, name).clone().requires_grad_() for name in RESULTS[1:]}
    return inputs._replace(**made)


def gradients(inputs: ScanInputs) -> dict[str, Tensor]:
    return {name: getattr(inputs, name).grad for name in RESULTS[1:]}


def test_training_keeps_states_and_nothing_else_does(spied: Spied) -> None:
    inputs = leaves(float32())
    y = selective_scan(*inputs)
    y.backward(torch.ones_like(y))
    assert spied.calls == ["forward_keeping", "backward from states"]
    spied.calls.clear()
    selective_scan(*float32())
    with torch.no_grad():
        selective_scan(*inputs)
    with torch.inference_mode():
        selective_scan(*inputs)
    assert spied.calls == ["forward"] * 3


def test_one_input_that_needs_a_gradient_is_enough(spied: Spied) -> None:
    for name in RESULTS[1:]:
        inputs = float32()
        selective_scan(*inputs._replace(**{name: getattr(inputs, name).requires_grad_()}))
    assert spied.calls == ["forward_keeping"] * 7


def test_a_traced_graph_has_no_states_in_it(spied: Spied) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(selective_scan, fullgraph=True, backend="aot_eager")
    inputs, plain = leaves(float32()), leaves(float32())
    compiled(*inputs).backward(gradient_of_y(inputs))
    assert spied.calls == ["forward", "backward"]
    selective_scan(*plain).backward(gradient_of_y(plain))
    for name, gradient in gradients(plain).items():
        assert torch.equal(gradients(inputs)[name], gradient), name


@pytest.mark.parametrize("method", ["euler", "zoh"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("components", [1, 5, 16, 20, 40])
@pytest.mark.parametrize("length", [1, 31, 32, 33, 64, 65, 200])
def test_gradients_from_kept_states_have_the_bits_of_those_without(
    length: int, components: int, dtype: torch.dtype, method: str
) -> None:
    inputs = make_inputs((2, length, 19, 2, components), discretization=method).to("cpu", dtype)
    kernel = load_kernel("numba")
    kept, plain = results(kernel, inputs), results(kernel, inputs, kept=False)
    for name in RESULTS:
        assert torch.equal(kept[name], plain[name]), name  # type: ignore[arg-type]


@pytest.mark.parametrize(("first", "then"), [("numba", "torch"), ("torch", "numba")])
def test_another_kernel_may_run_the_backward_pass(first: str, then: str) -> None:
    inputs = leaves(float32())
    with use_kernel(first):
        y = selective_scan(*inputs)
    with use_kernel(then):
        y.backward(gradient_of_y(inputs))
    exact = results(TorchKernel(), inputs.to("cpu", torch.float64))
    for name, gradient in gradients(inputs).items():
        assert (gradient - exact[name]).abs().max() < 3e-5 * exact[name].abs().max(), name


@pytest.mark.parametrize("kernel", ["numba", "torch"])
def test_the_registration_passes_opcheck(kernel: str) -> None:
    inputs = leaves(float32((1, 40, 3, 2, 2)))
    with use_kernel(kernel):
        torch.library.opcheck(KEEPING, tuple(inputs))


def test_a_kernel_that_keeps_none_gives_the_reference_s() -> None:
    inputs = make_inputs(SHAPE)
    with use_kernel("torch"):
        y, states = KEEPING(*inputs)
    assert torch.equal(y, TorchKernel().forward(inputs))
    assert torch.equal(states, states_of(inputs))
    assert not isinstance(TorchKernel(), StateKeepingKernel)
    wanted = TorchKernel().backward(y, inputs)
    for got, expected in zip(backward_from(TorchKernel(), y, inputs, states), wanted, strict=True):
        assert torch.equal(got, expected)


def test_a_state_is_what_the_scan_of_the_tokens_before_it_ends_with() -> None:
    """Read by C = 1 of one component, along raster order, where y is the state itself."""
    inputs = make_inputs((1, 100, 3, 1, 2), restarts=False, D=None)
    inputs = inputs._replace(order=torch.arange(100, dtype=torch.int32)[None])
    states = states_of(inputs)
    assert states.shape == (1, 1, 3, 2, 3)
    for n in range(2):
        C = torch.zeros_like(inputs.C)
        C[..., n] = 1
        y = TorchKernel().forward(inputs._replace(C=C))
        torch.testing.assert_close(states[:, 0, :, n], y[:, [31, 63, 95]])


def test_states_of_other_inputs_are_refused() -> None:
    inputs, shorter = float32(), float32((2, 60, 17, 2, 5))
    kernel = load_kernel("numba")
    _, states = kernel.forward_keeping(shorter)  # type: ignore[attr-defined]
    with pytest.raises(
        ConfigError, match=r"shape \(2, 2, 1, 5, 17\); expected .*\(2, 2, 2, 5, 17\)"
    ):
        backward_from(kernel, gradient_of_y(inputs), inputs, states)


def test_states_need_no_gradient_and_get_none() -> None:
    y, states = KEEPING(*leaves(float32()))
    assert y.requires_grad
    assert not states.requires_grad


@pytest.mark.parametrize("components", [1, 3, 16, 17, 24, 32, 100, 256])
def test_kept_states_are_at_most_half_as_large_as_delta(components: int) -> None:
    assert kept_every(components) % 32 == 0
    inputs = make_inputs((1, 2000, 3, 2, components))
    batch, directions, count, rows, channels = kept_shape(inputs)
    assert (batch, directions, rows, channels) == (1, 2, components, 3)
    assert count * rows * channels * directions <= inputs.delta.numel() / 2
    assert count == 1999 // kept_every(components)
