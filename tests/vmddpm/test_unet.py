from __future__ import annotations

import re
from typing import Any

import pytest
import ssmdiff
import torch
from networks import BLOCKS, SMALL, awakened, network, node_count, orders_for
from ssmdiff.errors import ConfigError
from ssmdiff_vmddpm.blocks import MSSBlock
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode


@pytest.mark.parametrize("block", BLOCKS)
def test_shapes_of_the_paper(block: str) -> None:
    with torch.device("meta"):
        model = network(block, scan="cross")  # the defaults: C = 64
        x, t = torch.empty(2, 1, 128, 128), torch.tensor(3)
        assert model.encode(x, t).shape == (2, 8 * 64, 128 // 32, 128 // 32)
        assert model(x, t).shape == x.shape
    assert 75e6 < sum(p.numel() for p in model.parameters()) < 95e6


def test_slots_of_the_paper() -> None:
    with torch.device("meta"):
        model = network()
    sides = [slot.grid for slot in model.scan_slots((128, 256))]
    encoder = [(64, 128)] * 2 + [(32, 64)] * 2 + [(16, 32)] * 2 + [(8, 16)] * 2
    decoder = [(4, 8)] * 2 + [(8, 16)] * 2 + [(16, 32)] * 2 + [(32, 64)] * 2
    assert sides == [*encoder, (4, 8), *decoder]
    assert network("conv", **SMALL).scan_slots((8, 8)) == []


@pytest.mark.parametrize("block", BLOCKS)
def test_starts_at_zero_and_every_parameter_learns(block: str) -> None:
    model = network(block, context_channels=3, **SMALL)
    x, t, label = torch.randn(2, 1, 16, 24), torch.tensor([0, 999]), torch.tensor([0, 2])
    y = model(x, t, label)
    assert y.shape == x.shape
    assert not y.any()
    awakened(model)(x, t, label).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("stem_stride", [1, 2, 4])
@pytest.mark.parametrize("widths", [[1], [2, 3]])
def test_widths_and_strides(stem_stride: int, widths: list[int]) -> None:
    model = network(channels=4, widths=widths, layers=1, stem_stride=stem_stride)
    side = stem_stride * 2 ** len(widths)
    x, t = torch.randn(1, 1, side, 2 * side), torch.tensor([5.0])
    assert model.encode(x, t).shape == (1, 4 * widths[-1], 1, 2)
    y = awakened(model)(x, t)
    assert y.shape == x.shape
    assert y.isfinite().all()


def test_every_pixel_reaches_its_own_noise() -> None:
    model = awakened(network("conv", stem_stride=4, **SMALL))
    x = torch.randn(1, 1, 32, 32, requires_grad=True)
    y = model(x, torch.tensor(1))
    for h, w in ((0, 0), (13, 18), (31, 31)):
        (grad,) = torch.autograd.grad(y[0, 0, h, w], x, retain_graph=True)
        assert grad[0, 0, h, w] != 0


def test_timesteps_of_every_form_agree() -> None:
    model = awakened(network(scan="cross", **SMALL))
    x = torch.randn(3, 1, 16, 16)
    expected = model(x, torch.tensor(7))
    for t in ([7], [7.0], 7.0, [7, 7, 7], [7.0, 7.0, 7.0]):
        torch.testing.assert_close(model(x, torch.tensor(t)), expected)
    assert not torch.allclose(model(x, torch.tensor(8)), expected)
    mixed = model(x, torch.tensor([7, 500, 7]))
    torch.testing.assert_close(mixed[[0, 2]], expected[[0, 2]])
    with pytest.raises(ConfigError, match=r"timesteps have shape \(2,\).*\(3,\)"):
        model(x, torch.tensor([1, 2]))


@pytest.mark.parametrize(
    ("size", "nearest"), [((63, 65), "64 x 64"), ((48, 96), "64 x 96"), ((2, 32), "32 x 32")]
)
def test_refuses_sizes_that_strides_do_not_divide(size: tuple[int, int], nearest: str) -> None:
    with torch.device("meta"):
        model = network(scan="cross")
    message = f"{size[0]} x {size[1]}: every side must be a multiple of 32.*nearest: {nearest}"
    with pytest.raises(ConfigError, match=message):
        model.scan_slots(size)
    with pytest.raises(ConfigError, match=message):
        model(torch.empty(1, 1, *size, device="meta"), torch.tensor(0))


def test_refuses_what_does_not_fit() -> None:
    model, t = network(**SMALL), torch.tensor(1)
    x = torch.zeros(2, 1, 8, 8)
    labels = torch.tensor([0, 1])
    with pytest.raises(ConfigError, match=re.escape("(B, 1, H, W)")):
        model(torch.zeros(2, 3, 8, 8), t)
    with pytest.raises(ConfigError, match="unconditional"):
        model(x, t, labels)
    with pytest.raises(ConfigError, match=r"5 S6 calls .* given 2 orders"):
        model(x, t, orders=orders_for(model, (8, 8))[:2])
    with pytest.raises(ConfigError, match=r"order 0 visits 64 tokens; slot 0 is a 4 x 4 grid"):
        model(x, t, orders=orders_for(model, (16, 16)))
    conditional = network(context_channels=2, **SMALL)
    with pytest.raises(ConfigError, match="needs context"):
        conditional(x, t)
    with pytest.raises(ConfigError, match=r"context is torch.float32 of shape \(2,\)"):
        conditional(x, t, labels.float())
    with pytest.raises(ConfigError, match=r"\(2,\) int64 or int32"):
        conditional(x, t, labels[:1])


@pytest.mark.parametrize(
    ("option", "value"),
    [("widths", []), ("stem_stride", 3), ("dropout", 1.0), ("channels", 7), ("widths", [0])],
)
def test_refuses_options_out_of_range(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=option):
        network(**{**SMALL, option: value})


def test_labels_change_the_prediction() -> None:
    model = awakened(network(context_channels=3, scan="cross", **SMALL))
    x, t = torch.randn(2, 1, 8, 8), torch.tensor(1)
    a, b = model(x, t, torch.tensor([0, 1])), model(x, t, torch.tensor([0, 2]))
    torch.testing.assert_close(a[0], b[0])
    assert not torch.allclose(a[1], b[1])


def test_orders_are_an_input() -> None:
    model = awakened(network(**SMALL))
    x, t = torch.randn(2, 1, 16, 16), torch.tensor(1)
    one, two = orders_for(model, (16, 16), seed=1), orders_for(model, (16, 16), seed=2)
    assert torch.equal(model(x, t, orders=one), model(x, t, orders=one))
    for i in range(len(one)):  # each of the calls uses its own order
        changed = [*one[:i], two[i], *one[i + 1 :]]
        assert not torch.allclose(model(x, t, orders=changed), model(x, t, orders=one))


def test_own_orders_follow_the_global_seed() -> None:
    model = awakened(network(**SMALL))
    x, t = torch.randn(1, 1, 16, 16), torch.tensor(1)
    draws = []
    for seed in (4, 4, 5):
        torch.manual_seed(seed)
        draws.append(model(x, t))
    assert torch.equal(draws[0], draws[1])
    assert not torch.allclose(draws[0], draws[2])
    fixed = awakened(network(scan="cross", **SMALL))
    explicit = fixed(x, t, orders=orders_for(fixed, (16, 16)))
    assert torch.equal(fixed(x, t), explicit)


def test_concat_carries_the_four_sets() -> None:
    """The mix sees x, CNN(x), CSM(x), CNN(CSM(x)): hidden one at a time, each is missed."""
    block = ssmdiff.create("block", BLOCKS["concat"], channels=4, time_channels=8, directions=4)
    assert isinstance(block, MSSBlock)
    seen: list[Tensor] = []
    block.mix.register_forward_pre_hook(lambda _, maps: seen.extend(maps))
    scan = ssmdiff.create("scan", "cross")
    orders = [torch.tensor(scan.order((4, 4)).index)]
    x, time = torch.randn(2, 4, 4, 4), torch.randn(2, 8)
    y = block(x, time, orders)
    h = x.flatten(2).transpose(1, 2)
    far = block.csm(block.csm_norm(h, time), (4, 4), orders[0])
    near = block.cnn(block.cnn_norm(h, time), (4, 4))
    both = block.cnn(block.cnn_norm(far, time), (4, 4))
    for got, expected in zip(seen, (h, near, far, both), strict=True):
        torch.testing.assert_close(got, expected)
    flat = torch.cat([h, near, far, both], -1)
    expected = flat @ block.mix.linear.weight.T + block.mix.linear.bias
    torch.testing.assert_close(y.flatten(2).transpose(1, 2), expected)


def test_cascade_is_two_residual_steps() -> None:
    block = ssmdiff.create("block", BLOCKS["cascade"], channels=4, time_channels=8, directions=1)
    orders = [torch.arange(16, dtype=torch.int32)[None]]
    x, time = torch.randn(2, 4, 4, 4), torch.randn(2, 8)
    h = x.flatten(2).transpose(1, 2)
    h = h + block.csm(block.csm_norm(h, time), (4, 4), orders[0])
    h = h + block.cnn(block.cnn_norm(h, time), (4, 4))
    torch.testing.assert_close(block(x, time, orders).flatten(2).transpose(1, 2), h)


def test_maps_stay_channels_last() -> None:
    model = awakened(network(**SMALL))
    formats: list[bool] = []
    for module in model.modules():
        if isinstance(module, MSSBlock):
            module.register_forward_hook(
                lambda _, given, y: formats.extend(
                    v.is_contiguous(memory_format=torch.channels_last) for v in (given[0], y)
                )
            )
    model(torch.randn(2, 1, 16, 16), torch.tensor(1))
    assert len(formats) == 10
    assert all(formats)


def test_bfloat16_autocast_trains() -> None:
    model = awakened(network(**SMALL))
    x, t = torch.randn(2, 1, 16, 16), torch.tensor(1)
    orders = orders_for(model, (16, 16))
    with torch.autocast("cpu", torch.bfloat16):
        y = model(x, t, orders=orders)
    y.float().square().mean().backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())
    exact = model(x, t, orders=orders)
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


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic batch"])
def test_export_keeps_one_node_per_scan(dynamic: bool) -> None:
    model = awakened(network(**SMALL)).eval()
    x, t = torch.randn(2, 1, 16, 16), torch.tensor([1, 2])
    one, two = (list(orders_for(model, (16, 16), seed)) for seed in (1, 2))
    batch = {0: torch.export.Dim("batch", min=2, max=64)} if dynamic else {}
    program = torch.export.export(
        WithOrders(model), (x, t, one), dynamic_shapes=(batch, batch, [None] * len(one))
    )
    assert node_count(program.graph) == len(model.scan_slots((16, 16))) == 5
    for index in (one, two):
        expected = WithOrders(model)(x, t, index)
        torch.testing.assert_close(program.module()(x, t, index), expected)
    if dynamic:
        x, t = torch.randn(3, 1, 16, 16), torch.tensor([1, 2, 3])
        torch.testing.assert_close(program.module()(x, t, one), WithOrders(model)(x, t, one))


def test_export_bakes_the_orders_of_a_fixed_scan() -> None:
    model = awakened(network(scan="cross", **SMALL)).eval()
    x, t = torch.randn(2, 1, 16, 16), torch.tensor([1, 2])
    program = torch.export.export(model, (x, t), strict=False)
    assert node_count(program.graph) == 5
    torch.testing.assert_close(program.module()(x, t), model(x, t))


@pytest.mark.slow
def test_compiles_in_one_graph() -> None:
    model = awakened(network(**SMALL))
    x, t = torch.randn(2, 1, 16, 16), torch.tensor([1, 2])
    orders = orders_for(model, (16, 16))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    results = []
    for run in (model, compiled):
        model.zero_grad()
        y = run(x, t, orders=orders)
        y.square().sum().backward()
        results.append([y, *(p.grad.clone() for p in model.parameters())])
    for eager, traced in zip(*results, strict=True):
        torch.testing.assert_close(traced, eager, atol=1e-4, rtol=1e-3)


def test_compiled_model_draws_its_own_orders() -> None:
    model = awakened(network(**SMALL))
    x, t = torch.randn(2, 1, 16, 16), torch.tensor([1, 2])
    compiled = torch.compile(model, backend="eager")
    results = []
    with torch.no_grad():
        for run, seed in ((model, 1), (compiled, 1), (compiled, 2)):
            torch.manual_seed(seed)
            results.append(run(x, t))
    torch.testing.assert_close(results[1], results[0])
    assert not torch.allclose(results[2], results[0])


def test_export_refuses_to_bake_a_random_order() -> None:
    with pytest.raises(GuardOnDataDependentSymNode):
        torch.export.export(
            network(**SMALL), (torch.randn(2, 1, 16, 16), torch.tensor(1)), strict=False
        )
