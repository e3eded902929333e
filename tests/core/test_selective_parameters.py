"""The parameters of a recurrence: their order, their start, and that they stay float32."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from ssmdiff.nn import SelectiveParameters
from torch import nn


class Module(SelectiveParameters):
    def __init__(self, state: int | None = 3, rank: int | None = 2) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.zeros(1))
        self.add_recurrence(2, 500, state, rank)
        self.linear = nn.Linear(4, 4)
        self.reset_recurrence()


def test_parameters_are_registered_in_the_order_that_optimisers_remember() -> None:
    names = [name for name, _ in Module().named_parameters()]
    recurrence = ["dt_weight", "dt_bias", "A_log", "D"]
    assert names == ["first", *recurrence, "linear.weight", "linear.bias"]
    assert "dt_weight" not in dict(Module(state=None, rank=None).named_parameters())
    assert Module(state=None, rank=None).A_log.shape == (2, 500)


def test_they_start_as_in_mamba() -> None:
    module = Module()
    assert torch.equal(module.D, torch.ones(2, 500))
    torch.testing.assert_close(module.A, -torch.arange(1.0, 4).expand(2, 500, 3))
    delta = F.softplus(module.dt_bias.detach())
    assert 0.99e-3 < delta.min() < 1.2e-3
    assert 0.85e-1 < delta.max() < 1.01e-1
    assert delta.log().mean() == pytest.approx(math.log(1e-2), abs=0.3)  # log-uniform
    assert module.dt_weight.detach().abs().max() <= 2**-0.5
    assert module.dt_weight.detach().abs().mean() == pytest.approx(2**-0.5 / 2, rel=0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_recurrence_is_never_narrowed(dtype: torch.dtype) -> None:
    module = copy.deepcopy(Module()).to(dtype)
    for name in ("dt_bias", "A_log", "D"):
        assert getattr(module, name).dtype == torch.float32
        assert getattr(module, name)._no_weight_decay
    assert module.linear.weight.dtype == module.dt_weight.dtype == dtype
    assert not hasattr(module.dt_weight, "_no_weight_decay")
    assert module.double().A_log.dtype == torch.float64
