"""Kinds 21 and 22 through whole denoisers, in float64 against central differences."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from ssmdiff import build_backbone, load_preset, resolve
from ssmdiff.nn import recompute_activations
from ssmdiff.registry.registry import registry
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vjp, vmap

LIMIT = 1e-6
STEP = 1e-5
BACKBONES = {
    "isotropic": {"channels": 16, "depth": 2, "patch": 2},
    "vmddpm": {"channels": 32, "widths": [1, 2]},
}
OTHERS = [
    pytest.param(backbone, block, marks=pytest.mark.slow)
    for backbone in BACKBONES
    for block in registry().names("block")
    if block != "mss"
]
ALL = [("isotropic", "mss"), ("vmddpm", "mss"), *OTHERS]


def build(backbone: str, block: str) -> nn.Module:
    torch.manual_seed(0)
    options = {"name": backbone, **BACKBONES[backbone]}
    model = {"backbone": options, "block": {"name": block}, "scan": {"name": "cross"}}
    config = resolve(load_preset("tiny"), {"data": {"image_size": [8, 8]}, "model": model})
    network = build_backbone(config, 1).eval().double()
    for parameter in network.parameters():  # an untrained model predicts 0
        if not parameter.detach().any():
            nn.init.normal_(parameter, std=0.05)
    return network


def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, change = torch.randn(2, 2, 1, 8, 8, dtype=torch.float64, generator=generator)
    return x, change


def difference(f: Callable[[Tensor], Tensor], x: Tensor, change: Tensor) -> Tensor:
    with torch.no_grad():
        return (f(x + STEP * change) - f(x - STEP * change)) / (2 * STEP)


def error(got: Tensor, exact: Tensor) -> float:
    return float((got.detach() - exact.detach()).abs().max() / exact.detach().abs().max())


@pytest.mark.parametrize(("backbone", "block"), ALL)
def test_first_derivatives(backbone: str, block: str) -> None:
    network = build(backbone, block)
    (x, change), t = images(), torch.tensor([300.0, 20.0], dtype=torch.float64)

    def f(x: Tensor) -> Tensor:
        y: Tensor = network(x=x, timesteps=t)
        return y

    exact = difference(f, x, change)
    assert error(jvp(f, (x,), (change,))[1], exact) < LIMIT
    back = vjp(f, x)[1](change)[0]
    assert error((back * change).sum(), (exact * change).sum()) < LIMIT


@pytest.mark.parametrize(("backbone", "block"), ALL)
def test_gradients_of_each_image(backbone: str, block: str) -> None:
    network = build(backbone, block)
    (x, _), t = images(), torch.tensor([300.0, 20.0])

    def loss(parameters: dict[str, Tensor], x: Tensor, t: Tensor) -> Tensor:
        inputs = {"x": x[None], "timesteps": t[None]}
        y: Tensor = functional_call(network, parameters, (), inputs)
        return y.square().sum()

    parameters = {name: p.detach() for name, p in network.named_parameters()}
    each = vmap(grad(loss), (None, 0, 0))(parameters, x, t)
    for i in range(2):
        network.zero_grad()
        network(x=x[i : i + 1], timesteps=t[i : i + 1]).square().sum().backward()
        for name, p in network.named_parameters():
            if p.grad is not None and p.grad.any():
                assert error(each[name][i], p.grad) < LIMIT, name


@pytest.mark.parametrize(("backbone", "block"), ALL)
def test_second_derivatives(backbone: str, block: str) -> None:
    network = build(backbone, block)
    (x, change), t = images(), torch.tensor([300.0, 20.0])

    def gradient(x: Tensor) -> Tensor:
        found: Tensor = grad(lambda x: network(x=x, timesteps=t).square().sum())(x)
        return found

    _, got = jvp(gradient, (x,), (change,))
    assert error(got, difference(gradient, x, change)) < LIMIT


def test_activations_that_would_be_recomputed_change_nothing() -> None:
    """torch cannot recompute under its transforms, and said so in words of its own."""
    network = build("isotropic", "mss")
    (x, change), t = images(), torch.tensor([300.0])

    def back() -> Tensor:
        return vjp(lambda x: network(x=x, timesteps=t), x)[1](change)[0]

    kept = back()
    recompute_activations(network)
    assert torch.equal(back(), kept)
