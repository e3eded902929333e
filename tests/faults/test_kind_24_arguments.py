"""Kinds 23 and 24: what the op and a denoiser are given in the library is checked in a sentence."""

from __future__ import annotations

from typing import Any

import pytest
import ssmdiff
import torch
from ssmdiff import Condition, Conditions, ConfigError, build_backbone, load_preset, resolve
from torch import Tensor, nn

L = 6
LABEL = Conditions([Condition("label", "label", ("a", "b", "c"))])


def scan(order: Tensor, directions: int = 1, states: int = 3) -> Tensor:
    u, A = torch.ones(1, L, 2), -torch.ones(directions, 2, states)
    rows = torch.ones(1, directions, L, states)
    return ssmdiff.selective_scan(u, u[:, None].expand(1, directions, L, 2), A, rows, rows, order)


@pytest.mark.parametrize("wrong", [L, 2**31 - 1, -1 - L, -(2**31)])
def test_an_order_that_leaves_the_tensors_is_refused(wrong: int) -> None:
    order = torch.arange(L, dtype=torch.int32)[None].clone()
    order[0, 2] = wrong
    with pytest.raises(ConfigError, match="selective_scan: order: direction 0"):
        scan(order)


def test_an_order_that_repeats_a_token_is_refused() -> None:
    with pytest.raises(ConfigError, match="selective_scan: order"):
        scan(torch.tensor([[0, 1, 2, 3, 4, 4]], dtype=torch.int32))


@pytest.mark.parametrize(("directions", "states"), [(0, 3), (1, 0)])
def test_empty_axes_are_refused(directions: int, states: int) -> None:
    order = torch.arange(L, dtype=torch.int32).expand(directions, L)
    with pytest.raises(ConfigError, match="at least one direction K and one component N"):
        scan(order, directions, states)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    model = {"backbone": {"channels": 16, "depth": 1, "patch": 2, "name": "isotropic"}}
    config = resolve(load_preset("tiny"), {"data": {"image_size": [8, 8]}, "model": model})
    return build_backbone(config, 1, LABEL).eval()


def call(network: nn.Module, **changes: Any) -> Tensor:
    inputs = {"x": torch.zeros(2, 1, 8, 8), "timesteps": torch.tensor([5])}
    y: Tensor = network(**{**inputs, "context": torch.tensor([0, 2]), **changes})
    return y


def test_labels_and_timesteps_that_fit(network: nn.Module) -> None:
    assert call(network, context=torch.tensor([0, 2], dtype=torch.int32)).shape == (2, 1, 8, 8)
    assert torch.equal(call(network), call(network, timesteps=torch.tensor(5.0)))


@pytest.mark.parametrize("wrong", [-1, 3, 10**9])
def test_labels_out_of_range(network: nn.Module, wrong: int) -> None:
    with pytest.raises(ConfigError, match=f"label {wrong}; the model has 3 classes, labels 0 to 2"):
        call(network, context=torch.tensor([1, wrong]))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.float32])
def test_labels_of_a_dtype_that_no_embedding_takes(network: nn.Module, dtype: torch.dtype) -> None:
    with pytest.raises(ConfigError, match=f"context is {dtype}.*int64 or int32 class labels"):
        call(network, context=torch.tensor([0, 1]).to(dtype))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("timesteps", 5, r"timesteps is int; .*torch\.tensor\(\[5\]\)"),
        ("timesteps", 0.5, r"timesteps is float; .*torch\.tensor\(\[0\.5\]\)"),
        ("timesteps", [5, 5], "timesteps is list; expected a tensor"),
        ("timesteps", None, "timesteps is NoneType; expected a tensor"),
        ("context", 1, "context is int; expected a tensor"),
        ("context", [0, 1], "context is list; expected a tensor"),
        ("x", [[0.0]], "x is list; expected a tensor"),
        ("x", torch.zeros(2, 1, 8, 8, dtype=torch.uint8), r"x is torch\.uint8"),
    ],
)
def test_what_is_no_tensor(network: nn.Module, name: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        call(network, **{name: value})
