"""What is compared in `bench scan` computes the same scan: each way against the reference."""

from __future__ import annotations

import pytest
import torch
from ssmdiff.ops import TorchKernel, load_kernel, selective_scan
from ssmdiff_bench import scan
from ssmdiff_bench.scan_peers import LEAVES, ExpandScanMerge, mamba_reference, mambapy_forward

SHAPES = [
    scan.ScanShape(batch=2, channels=5, directions=4, states=3, order="raster"),
    scan.ScanShape(batch=1, channels=19, directions=3, states=16, order="random"),
]
TOKENS = (1, 2, 12, 35)  # 35: no power of two, which mamba.py pads


def float64(shape, tokens):
    return scan.make_inputs(shape, tokens).to("cpu", torch.float64)


def relative(got, expected):
    return float((got.double() - expected).abs().max() / expected.abs().max())


def forwards():
    yield scan.REFERENCE, mamba_reference
    yield scan.EXPAND, ExpandScanMerge(load_kernel("numba")).forward
    try:
        yield scan.PARALLEL, mambapy_forward()
    except ImportError:
        yield pytest.param(scan.PARALLEL, None, marks=pytest.mark.skip("mambapy is not installed"))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.order)
@pytest.mark.parametrize(("name", "forward"), list(forwards()))
def test_peers_equal_the_float64_reference(name, forward, shape):
    for tokens in TOKENS:
        expected = TorchKernel().forward(float64(shape, tokens))
        assert relative(forward(scan.make_inputs(shape, tokens)), expected) < 2e-6


@pytest.mark.parametrize("name", [scan.REFERENCE, scan.PARALLEL])
def test_gradients_of_the_peers_by_autograd_equal_those_of_the_reference(name):
    if name == scan.PARALLEL:
        pytest.importorskip("mambapy")
    shape = SHAPES[1]
    forward = mamba_reference if name == scan.REFERENCE else mambapy_forward()
    inputs = scan.make_inputs(shape, 12)
    grad_y = torch.randn(inputs.u.shape, generator=torch.Generator().manual_seed(1))
    leaves = {n: getattr(inputs, n).clone().requires_grad_() for n in LEAVES}
    y = forward(inputs._replace(**leaves))
    found = torch.autograd.grad(y, list(leaves.values()), grad_y)
    exact = TorchKernel().backward(grad_y.double(), float64(shape, 12))
    for leaf, gradient in zip(LEAVES, found, strict=True):
        assert relative(gradient, getattr(exact, leaf)) < 1e-5, leaf


def test_gradients_of_expand_scan_merge_equal_those_of_the_reference():
    shape = SHAPES[0]
    inputs = scan.make_inputs(shape, 35)
    grad_y = torch.randn(inputs.u.shape, generator=torch.Generator().manual_seed(1))
    _, found = ExpandScanMerge(load_kernel("numba")).both(inputs, grad_y)
    exact = TorchKernel().backward(grad_y.double(), float64(shape, 35))
    for leaf, gradient in zip(LEAVES, found, strict=True):
        assert relative(gradient, getattr(exact, leaf)) < 1e-5, leaf


@pytest.mark.parametrize("name", ["numba", "torch", scan.EXPAND, scan.PARALLEL, scan.REFERENCE])
def test_both_calls_of_a_way_give_the_output(name):
    if name == scan.PARALLEL:
        pytest.importorskip("mambapy")
    shape = SHAPES[0]
    inputs = scan.make_inputs(shape, 12)
    forward, both = scan.implementation(name, shape)
    expected = TorchKernel().forward(float64(shape, 12))
    assert relative(forward(inputs), expected) < 2e-6
    assert relative(both(inputs, torch.ones_like(inputs.u)), expected) < 2e-6


@pytest.mark.slow
def test_bfloat16_peers_stay_within_its_rounding():
    shape = scan.ScanShape(channels=8, states=4, dtype="bfloat16")
    inputs = scan.make_inputs(shape, 30)
    expected = TorchKernel().forward(inputs.to("cpu", torch.float64))
    for forward in (mamba_reference, ExpandScanMerge(load_kernel("numba")).forward):
        got = forward(inputs)
        assert got.dtype == torch.bfloat16
        assert relative(got, expected) < 2**-7


def test_orders_are_permutations_and_raster_is_rows_then_columns():
    for name in ("raster", "random"):
        order = scan.make_order(name, 5, 12)
        assert order.dtype == torch.int32
        assert (order.sort(1).values == torch.arange(12)).all()
    raster = scan.make_order("raster", 4, 6)  # 2 x 3
    assert raster.tolist() == [
        [0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5], [5, 4, 3, 2, 1, 0], [5, 2, 4, 1, 3, 0]
    ]  # fmt: skip


def test_inputs_are_those_of_the_op_and_counted():
    shape = SHAPES[1]
    inputs = scan.make_inputs(shape, 12)
    selective_scan(*inputs[:6], D=inputs.D, delta_bias=inputs.delta_bias)  # checks the shapes
    job = scan._load("numba", shape, {"series": "both", "size": 12})
    expected = sum(x.nbytes for x in inputs if isinstance(x, torch.Tensor))
    assert job.facts["inputs_bytes"] == expected
    assert relative(job.call(), TorchKernel().forward(float64(shape, 12))) < 2e-6


def test_every_kernel_is_a_way_or_says_why_not():
    ways = {way.name: way for way in scan.scan_ways(scan.ScanShape())}
    assert {"numba", "triton", "torch", "mamba-ssm"} <= ways.keys()
    assert ways["numba"].absent is None
    if not torch.cuda.is_available():
        assert (
            "selective_scan_cuda" in ways["mamba-ssm"].absent or "GPU" in ways["mamba-ssm"].absent
        )
