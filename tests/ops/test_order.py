"""The order of the op: refused where a kernel would leave its tensors, noted where it is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ssmdiff import order_tensors
from ssmdiff.errors import ConfigError
from ssmdiff.ops import (
    decode_order,
    kernels,
    note_order,
    order_rows,
    restarts_in,
    selective_scan,
    use_kernel,
)
from ssmdiff.orders.scan import ScanOrder
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

CPU = torch.device("cpu")


def scan(order: Tensor, state: int = 2, **changes: Any) -> Tensor:
    """A call along an order, of one image and three channels."""
    K, L = order.shape
    arguments = {
        "u": torch.ones(1, L, 3),
        "delta": torch.ones(1, K, L, 3),
        "A": -torch.ones(K, 3, state),
        "B": torch.ones(1, K, L, state),
        "C": torch.ones(1, K, L, state),
    }
    return selective_scan(**{**arguments, "order": order, **changes})


def rows(*tokens: list[int]) -> Tensor:
    return torch.tensor(tokens, dtype=torch.int32)


@st.composite
def orders(draw: st.DrawFn) -> ScanOrder:
    K, L = draw(st.integers(1, 3)), draw(st.integers(1, 9))
    index = np.array([draw(st.permutations(range(L))) for _ in range(K)])
    flags = draw(st.lists(st.booleans(), min_size=K * L, max_size=K * L))
    return ScanOrder(index, np.array(flags).reshape(K, L) if draw(st.booleans()) else None)


@given(orders())
def test_decoding_undoes_the_coding(order: ScanOrder) -> None:
    (noted,) = order_tensors([order], CPU)
    for tensor in (noted, noted.clone()):
        tokens, restart = decode_order(tensor)
        np.testing.assert_array_equal(tokens.numpy(), order.index)
        expected = np.zeros(order.index.shape, bool) if order.restart is None else order.restart
        found = np.zeros(order.index.shape, bool) if restart is None else restart.numpy()
        np.testing.assert_array_equal(found, expected)
    for k, row in enumerate(order_rows(noted)):
        np.testing.assert_array_equal(row.numpy(), order.coded[k : k + 1])
        assert restarts_in(row) is restarts_in(noted) is (order.restart is not None)


@pytest.mark.parametrize(
    "kernel", ["torch", pytest.param("numba", marks=pytest.mark.needs_plugin("ssmdiff_kernels"))]
)
@pytest.mark.parametrize(
    ("order", "said"),
    [
        (rows([0, 1, 3]), "direction 0 visits token 3 at time 2; tokens are 0 to 2"),
        (rows([0, 1, -4]), "direction 0 visits token 3 at time 2; tokens are 0 to 2"),
        (rows([0, 1, 2], [0, 2**31 - 1, 2]), "direction 1 visits token 2147483647 at time 1"),
        (rows([-(2**31), 1, 2]), "direction 0 visits token 2147483647 at time 0"),
        (rows([0, 1, 1]), "direction 0 is no permutation: token 1 is visited 2 times"),
        (rows([0, 1, -2]), "direction 0 is no permutation: token 1 is visited 2 times"),
        (rows([2, 1, 0], [0, 0, 0]), "direction 1 is no permutation: token 0 is visited 3 times"),
    ],
)
def test_an_order_that_is_none_is_refused(kernel: str, order: Tensor, said: str) -> None:
    with use_kernel(kernel), pytest.raises(ConfigError, match=f"selective_scan: order: {said}"):
        scan(order)


@pytest.mark.parametrize("order", [rows([2, 0, 1]), rows([-1, 1, -3]), rows([0], [-1])])
def test_an_order_with_any_restarts_is_accepted(order: Tensor) -> None:
    scan(order)
    scan(order.T.contiguous().T)


def test_a_note_holds_until_the_order_is_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []
    check = kernels.check_permutations
    monkeypatch.setattr(kernels, "check_permutations", lambda o: (checked.append(o), check(o)))
    (order,) = order_tensors([ScanOrder(np.array([[1, 0, 2]]))], CPU)
    scan(order)
    for row in order_rows(order):
        scan(row)
    with torch.inference_mode():
        scan(order)
    assert not checked
    scan(order.clone())
    assert len(checked) == 1
    order[0, 0] = 2
    assert restarts_in(order) is None
    with pytest.raises(ConfigError, match="token 2 is visited 2 times"):
        scan(order)


def test_a_note_stays_with_a_tensor_of_the_inference_mode() -> None:
    with torch.inference_mode():
        order = note_order(rows([1, 0]).clone(), restarts=False)
        assert restarts_in(order) is False
        assert decode_order(order)[1] is None


def test_the_kernel_sees_the_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward: an order that is known to have no restarts is not searched for them."""
    from ssmdiff.ops import reference

    seen = []
    decode = reference.decode_order

    def watched(order: Tensor) -> Any:
        seen.append(restarts_in(order))
        return decode(order)

    monkeypatch.setattr(reference, "decode_order", watched)
    (order,) = order_tensors([ScanOrder(np.array([[1, 0, 2]]))], CPU)
    with use_kernel("torch"):
        scan(order)
        seen.clear()  # the kernel's trial is among them
        scan(order, delta=torch.ones(1, 1, 3, 3, requires_grad=True)).sum().backward()
    assert seen[-2:] == [False, False]


def test_what_has_no_values_is_not_checked() -> None:
    bad = rows([0, 0])
    with FakeTensorMode() as mode:
        order = mode.from_tensor(bad)
        assert scan(order).shape == (1, 2, 3)
    with torch.device("meta"):
        assert scan(torch.zeros(1, 2, dtype=torch.int32)).shape == (1, 2, 3)
    compiled = torch.compile(scan, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(rows([1, 0])), scan(rows([1, 0])))


def test_no_directions_and_no_state_are_refused() -> None:
    none = torch.zeros(0, 3, dtype=torch.int32)
    empty = {"delta": torch.ones(1, 0, 3, 3), "A": -torch.ones(0, 3, 2)}
    empty |= {name: torch.ones(1, 0, 3, 2) for name in "BC"}
    with pytest.raises(ConfigError, match=r"A has shape \(K, D, N\) = \(0, 3, 2\): expected"):
        scan(none, u=torch.ones(1, 3, 3), **empty)
    with pytest.raises(ConfigError, match=r"A has shape \(K, D, N\) = \(1, 3, 0\): expected"):
        scan(rows([0, 1]), state=0)
