"""The isotropic backbone: the form of DiT, the contract of backbones."""

from __future__ import annotations

import re
from typing import Any

import pytest
import ssmdiff
import torch
from ssmdiff import order_tensors
from ssmdiff.errors import ConfigError
from ssmdiff.networks.layers import to_tokens
from ssmdiff.orders.scan import OrderPlan
from torch import Tensor, nn

SMALL = {"channels": 8, "depth": 3, "patch": 2}
BLOCK = {"name": "mamba2", "state": 4, "head_channels": 8, "chunk": 16}


def network(
    scan: str = "regenerate", block: Any = BLOCK, context_channels: int = 0, **options: Any
) -> Any:
    strategy = ssmdiff.create("scan", scan)
    built: list[nn.Module] = []

    def factory(channels: int, time_channels: int, *, slot: int) -> nn.Module:
        wired = {"channels": channels, "time_channels": time_channels}
        made: nn.Module = ssmdiff.create("block", block, **wired, directions=strategy.directions(2))
        made.slot = slot
        built.append(made)
        return made

    model = ssmdiff.create(
        "backbone", "isotropic", in_channels=1, out_channels=1, scan=strategy, block=factory,
        context_channels=context_channels, **options,
    )  # fmt: skip
    assert built == [layer.block for layer in model.layers]
    assert [b.slot for b in built] == [b.scan_calls * i for i, b in enumerate(built)]
    return model


def orders_for(model: Any, size: tuple[int, int], seed: int = 0) -> tuple[Tensor, ...]:
    orders = OrderPlan(model.scan, tuple(model.scan_slots(size)), seed).draw(0)
    return order_tensors(orders, torch.device("cpu"))


def awakened(model: nn.Module) -> Any:
    """The model with every zero tensor random, so that all paths carry signal."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)
    return model


@pytest.mark.parametrize("long_skips", [True, False])
@pytest.mark.parametrize("depth", [1, 4, 5])
def test_starts_at_zero_and_every_parameter_learns(depth: int, long_skips: bool) -> None:
    model = network(context_channels=3, **{**SMALL, "depth": depth}, long_skips=long_skips)
    x, t, label = torch.randn(2, 1, 8, 12), torch.tensor([0, 999]), torch.tensor([0, 2])
    y = model(x, t, label)
    assert y.shape == x.shape
    assert not y.any()
    awakened(model)(x, t, label).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_a_layer_starts_as_the_identity_and_adds_what_its_block_adds() -> None:
    model = network(scan="raster", **SMALL)
    layer, (order, *_) = model.layers[0], orders_for(model, (8, 8))
    h, time = torch.randn(2, 16, 8), torch.randn(2, 8)
    assert torch.equal(layer(h, time, (4, 4), [order], None), h)
    awakened(layer)
    scale, shift = layer.norm.time(time)[:, None].chunk(2, -1)
    m = nn.functional.layer_norm(h, (8,)) * (1 + scale) + shift
    block = layer.block
    added = block.mixer(block.norm(m, time), (4, 4), order)
    expected = h + layer.gate(time)[:, None] * added
    torch.testing.assert_close(layer(h, time, (4, 4), [order], None), expected)


def test_long_skips_join_from_the_inside_out() -> None:
    model = awakened(network(scan="raster", **{**SMALL, "depth": 5}))
    joined: list[Tensor | None] = []
    outputs: list[Tensor] = []
    for layer in model.layers:
        layer.register_forward_pre_hook(lambda _, given: joined.append(given[-1]))
        layer.register_forward_hook(lambda _, given, y: outputs.append(y))
    model(torch.randn(1, 1, 8, 8), torch.tensor(1))
    assert [skip is not None for skip in joined] == [False, False, False, True, True]
    assert joined[3] is outputs[1]
    assert joined[4] is outputs[0]


def test_positions_are_those_of_dit() -> None:
    model = network(**SMALL)
    positions = model.positions((3, 5), torch.device("cpu"))
    omega = 1 / 10_000 ** (torch.arange(2) / 2)
    for token, (h, w) in enumerate((h, w) for h in range(3) for w in range(5)):
        angles = torch.cat([h * omega, w * omega])
        torch.testing.assert_close(positions[token], torch.cat([angles.sin(), angles.cos()]))


def test_a_patch_predicts_its_own_pixels() -> None:
    model = network(block={"name": "attention", "head_channels": 4}, **{**SMALL, "depth": 1})
    awakened(model)
    with torch.no_grad():
        model.layers[0].gate.weight.zero_()
        model.layers[0].gate.bias.zero_()
    x = torch.randn(1, 1, 6, 8, requires_grad=True)
    y = model(x, torch.tensor(1))
    (grad,) = torch.autograd.grad(y[0, 0, 3, 4], x)
    assert torch.nonzero(grad[0, 0]).tolist() == [[2, 4], [2, 5], [3, 4], [3, 5]]


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_slots(patch: int) -> None:
    model = network(**{**SMALL, "patch": patch})
    slots = model.scan_slots((8, 16))
    assert [slot.grid for slot in slots] == [(8 // patch, 16 // patch)] * 3
    assert network(block={"name": "conv"}, **SMALL).scan_slots((8, 8)) == []


def test_orders_labels_and_timesteps_are_inputs() -> None:
    model = awakened(network(context_channels=2, **SMALL))
    x, labels = torch.randn(2, 1, 8, 8), torch.tensor([0, 1])
    one, two = orders_for(model, (8, 8), 1), orders_for(model, (8, 8), 2)
    y = model(x, torch.tensor(7), labels, one)
    assert torch.equal(model(x, torch.tensor([7.0]), labels, one), y)
    for i in range(3):
        changed = [*one[:i], two[i], *one[i + 1 :]]
        assert not torch.allclose(model(x, torch.tensor(7), labels, changed), y)
    assert not torch.allclose(model(x, torch.tensor(7), labels.flip(0), one), y)
    assert not torch.allclose(model(x, torch.tensor(8), labels, one), y)
    draws = []
    for seed in (4, 4, 5):
        torch.manual_seed(seed)
        draws.append(model(x, torch.tensor(7), labels))
    assert torch.equal(draws[0], draws[1])
    assert not torch.allclose(draws[0], draws[2])


def test_refuses_what_does_not_fit() -> None:
    model, t = network(**SMALL), torch.tensor(1)
    x = torch.zeros(2, 1, 8, 8)
    with pytest.raises(
        ConfigError, match=r"9 x 8: every side must be a multiple of 2 \(patch 2\).*nearest: 10 x 8"
    ):
        model.scan_slots((9, 8))
    with pytest.raises(ConfigError, match=r"isotropic takes \(H, W\) images"):
        model.scan_slots((8, 8, 8))
    shape = re.escape("isotropic: x is torch.float32 of shape (2, 3, 8, 8)")
    with pytest.raises(ConfigError, match=shape):
        model(torch.zeros(2, 3, 8, 8), t)
    with pytest.raises(ConfigError, match="unconditional"):
        model(x, t, torch.tensor([0, 1]))
    with pytest.raises(ConfigError, match=r"3 S6 calls .* given 1 orders"):
        model(x, t, orders=orders_for(model, (8, 8))[:1])
    with pytest.raises(ConfigError, match=r"order 0 visits 64 tokens; slot 0 is a 4 x 4 grid"):
        model(x, t, orders=orders_for(model, (16, 16)))
    with pytest.raises(ConfigError, match="needs context"):
        network(context_channels=2, **SMALL)(x, t)


@pytest.mark.parametrize(
    ("option", "value"), [("channels", 6), ("depth", 0), ("patch", 0), ("long_skips", 1)]
)
def test_refuses_options_out_of_range(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=option):
        network(**{**SMALL, option: value})


def test_bfloat16() -> None:
    model = awakened(network(**SMALL))
    x, t, orders = torch.randn(2, 1, 8, 8), torch.tensor(1), orders_for(model, (8, 8))
    exact = model(x, t, orders=orders)
    with torch.autocast("cpu", torch.bfloat16):
        y = model(x, t, orders=orders)
    assert (y.float() - exact).norm() < 0.05 * exact.norm()
    half = model.to(torch.bfloat16)(x.bfloat16(), t, orders=orders)
    assert half.dtype == torch.bfloat16
    assert (half.float() - exact).norm() < 0.1 * exact.norm()


class WithOrders(nn.Module):
    """The backbone as a graph has it: orders are flat inputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, timesteps: Tensor, index: list[Tensor]) -> Tensor:
        y: Tensor = self.model(x, timesteps, orders=index)
        return y


@pytest.mark.slow
@pytest.mark.parametrize(
    "block",
    [BLOCK, {"name": "mamba", "state": 2}, {"name": "vss", "state": 2}, {"name": "attention"}],
    ids=lambda block: block["name"],
)
def test_export_takes_the_orders_as_inputs(block: dict[str, Any]) -> None:
    model = awakened(network(block=block, **SMALL)).eval()
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([1, 2])
    one, two = (list(orders_for(model, (8, 8), seed)) for seed in (1, 2))
    batch = {0: torch.export.Dim("batch", min=2, max=64)}
    program = torch.export.export(
        WithOrders(model), (x, t, one), dynamic_shapes=(batch, batch, [None] * len(one))
    )
    expected = [WithOrders(model)(x, t, index) for index in (one, two)]
    for index, y in zip((one, two), expected, strict=True):
        torch.testing.assert_close(program.module()(x, t, index), y)
    if one:
        assert not torch.allclose(*expected)
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([1, 2, 3])
    torch.testing.assert_close(program.module()(x, t, one), WithOrders(model)(x, t, one))
    calls = sum(n.target == torch.ops.ssmdiff.selective_scan.default for n in program.graph.nodes)
    directions = model.scan.directions(2)
    assert calls == {"mamba": 3 * directions, "vss": 3}.get(block["name"], 0)


@pytest.mark.slow
def test_compiles_in_one_graph() -> None:
    model = awakened(network(**SMALL))
    x, t, orders = torch.randn(2, 1, 8, 8), torch.tensor([1, 2]), orders_for(model, (8, 8))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        compiled(x, t, orders=orders), model(x, t, orders=orders), atol=1e-4, rtol=1e-3
    )


def test_tokens_are_the_patches_in_raster_order() -> None:
    model, x = network(**SMALL), torch.zeros(1, 1, 4, 6)
    x[0, 0, 2:, 4:] = 1
    tokens = to_tokens(model.patches(x))[0]
    assert torch.nonzero((tokens != model.patches.bias).any(1)).tolist() == [[5]]
