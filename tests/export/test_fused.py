"""Operators of several nodes: as functions, in our library, and put into a graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from onnx import helper
from ssmdiff.ops.kernels import ScanInputs
from ssmdiff.ops.reference import TorchKernel
from ssmdiff_export import fused
from ssmdiff_export.function import scan_function
from ssmdiff_export.onnx_export import export_onnx
from ssmdiff_export.runtime import OnnxSampler
from ssmdiff_export.runtime.card import DOMAIN, FUSED, OPERATORS
from tiny_runs import STACK, UNET, tiny_run

Feeds = dict[str, np.ndarray]
EPSILON = 1e-3
DISCRETIZATIONS = {fused.CROSS_SCANS[scan]: name for name, scan in OPERATORS.items()}
# (B, K, L, D, N, R): lengths about a chunk of 32 steps, channels and states about a vector.
SCANS = [(1, 1, 1, 1, 1, 1), (2, 4, 33, 17, 16, 3), (1, 2, 70, 48, 5, 12), (3, 3, 32, 33, 4, 2)]
# (B, H, W, C, side)
MAPS = [(1, 1, 1, 1, 3), (2, 5, 4, 17, 3), (1, 3, 7, 33, 5), (1, 2, 2, 16, 7)]
# (B, C, H, W, groups)
NORMS = [(1, 4, 1, 1, 1), (2, 6, 5, 7, 3), (3, 16, 8, 8, 4), (1, 8, 33, 31, 2)]


def normal(seed: int, *sides: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(sides).astype(np.float32)


def scan_case(shape: tuple[int, ...], restarts: bool = False) -> Feeds:
    b, k, length, d, n, r = shape
    rng = np.random.default_rng(0)
    order = np.stack([rng.permutation(length) for _ in range(k)])
    anew = rng.random(order.shape) < (0.2 if restarts else 0)
    return {
        "u": normal(1, b, length, d),
        "x": normal(2, b, length, k * (r + 2 * n)),
        "W": normal(3, k, r, d),
        "bias": normal(4, k, d) * 8 - 2,  # both sides of softplus
        "A": -np.exp(normal(5, k, d, n)),
        "order": np.where(anew, -1 - order, order).astype(np.int32),
        "skip": normal(6, d),
    }


def cross_scan(feeds: Feeds, discretization: str) -> np.ndarray:
    wide = {k: torch.from_numpy(v).double() for k, v in feeds.items() if k != "order"}
    (k, r, _), n = wide["W"].shape, wide["A"].shape[2]
    rows = wide["x"].unflatten(2, (k, -1)).transpose(1, 2)
    low, B, C = rows.split([r, n, n], dim=-1)
    D = torch.zeros_like(wide["bias"])
    D[0] = wide["skip"]
    inputs = ScanInputs(
        wide["u"], low @ wide["W"], wide["A"], B, C, torch.from_numpy(feeds["order"]),
        D, wide["bias"], True, discretization,
    )  # fmt: skip
    return TorchKernel().forward(inputs).numpy()


def map_case(shape: tuple[int, ...]) -> Feeds:
    b, h, w, c, side = shape
    return {
        "x": normal(1, b, h, w, c) * 4,
        "weight": normal(2, c, 1, side, side),
        "bias": normal(3, c),
    }


def depthwise(feeds: Feeds, silu: bool) -> np.ndarray:
    x, weight, bias = (torch.from_numpy(feeds[k]).double() for k in ("x", "weight", "bias"))
    y = F.conv2d(
        x.permute(0, 3, 1, 2), weight, bias, padding=weight.shape[2] // 2, groups=len(bias)
    )
    y = y.permute(0, 2, 3, 1)
    return (F.silu(y) if silu else y).numpy()


def norm_case(shape: tuple[int, ...], timed: bool) -> Feeds:
    b, c, h, w, groups = shape
    feeds = {
        "x": normal(1, b, c, h, w) * 3 + 5,
        "gamma": normal(2, groups, c // groups),
        "beta": normal(3, groups, c // groups),
    }
    if timed:
        feeds |= {"factor": normal(4, b, c, 1, 1), "shift": normal(5, b, c, 1, 1)}
    return feeds


def group_norm(feeds: Feeds) -> np.ndarray:
    wide = {k: torch.from_numpy(v).double() for k, v in feeds.items()}
    gamma, beta = wide["gamma"].flatten(), wide["beta"].flatten()
    y = F.group_norm(wide["x"], len(wide["gamma"]), gamma, beta, EPSILON)
    if "factor" in wide:
        y = y * wide["factor"] + wide["shift"]
    return F.silu(y).numpy()


def softplus(feeds: Feeds) -> np.ndarray:
    return np.logaddexp(0, feeds["x"].astype(np.float64))


def attributes_of(operator: str, feeds: Feeds) -> dict[str, Any]:
    if "Norm" in operator:
        return {"epsilon": EPSILON}
    if "Conv" in operator:
        channels, _, side, _ = feeds["weight"].shape
        return {"group": channels, "pads": [side // 2] * 4}
    return {}


def run(operator: str, feeds: Feeds, library: str | None = None, threads: int = 1) -> np.ndarray:
    """A model of one node, by its function or by the library."""
    inputs = [
        helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), [None] * v.ndim)
        for k, v in feeds.items()
    ]
    attributes = attributes_of(operator, feeds)
    node = helper.make_node(operator, list(feeds), ["y"], domain=DOMAIN, **attributes)
    rank = next(iter(feeds.values())).ndim
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None] * rank)
    functions = [fused.fused_function(name, 20) for name in {operator, fused.SOFTPLUS}]
    functions += [scan_function(scan, "scan", 20) for scan in OPERATORS.values()]
    model = helper.make_model(
        helper.make_graph([node], "one", inputs, [y]),
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)],
        functions=functions,
        ir_version=10,
    )
    onnx.checker.check_model(model)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    if library:
        options.register_custom_ops_library(library)
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)[0]


def cases() -> list[Any]:
    """Every operator with feeds and the float64 answer."""
    found: list[tuple[str, Feeds, Callable[[Feeds], np.ndarray]]] = []
    for name, discretization in DISCRETIZATIONS.items():
        for shape in SCANS:
            wanted = lambda feeds, d=discretization: cross_scan(feeds, d)  # noqa: E731
            found += [(name, scan_case(shape, restarts), wanted) for restarts in (False, True)]
    for shape in MAPS:
        for name, silu in ((fused.DEPTHWISE, False), (fused.DEPTHWISE_SILU, True)):
            found.append((name, map_case(shape), lambda feeds, s=silu: depthwise(feeds, s)))
    for shape in NORMS:
        for name, timed in ((fused.GROUP_NORM, False), (fused.TIMED_GROUP_NORM, True)):
            found.append((name, norm_case(shape, timed), group_norm))
    x = np.concatenate([np.linspace(-90, 90, 4001), np.geomspace(1e-6, 1e4, 99)])
    for sign in (1, -1):
        feeds = {"x": (sign * x).astype("f4").reshape(1, 1, -1, 1)}
        found.append((fused.SOFTPLUS, feeds, lambda feeds: softplus(feeds)))
    return [pytest.param(*case, id=f"{case[0]}-{i}") for i, case in enumerate(found)]


def assert_close(got: np.ndarray, wanted: np.ndarray, tolerance: float) -> None:
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() <= tolerance * np.abs(wanted).max()


def test_every_operator_is_tested() -> None:
    assert {case.values[0] for case in cases()} == set(FUSED)


@pytest.mark.parametrize(("operator", "feeds", "wanted"), cases())
def test_the_function_and_the_library_compute_it(operator, feeds, wanted, library, isa) -> None:
    answer = wanted(feeds)
    if isa == "baseline":
        assert_close(run(operator, feeds), answer, 2e-6)
    assert_close(run(operator, feeds, library), answer, 2e-6)


def test_small_step_sizes_keep_their_digits(library, isa) -> None:
    feeds = {"x": np.linspace(-80, 10, 3001, dtype="f4").reshape(1, 1, -1, 1)}
    wanted = softplus(feeds)
    for y in (run(fused.SOFTPLUS, feeds), run(fused.SOFTPLUS, feeds, library)):
        assert np.abs(y / wanted - 1).max() < 6e-6 * 2  # the exponential of -80 in float32 has five


def test_the_same_bits_from_any_number_of_threads(library) -> None:
    for operator, feeds in (
        ("CrossScan", scan_case(SCANS[2], True)),
        (fused.DEPTHWISE_SILU, map_case(MAPS[1])),
        (fused.TIMED_GROUP_NORM, norm_case(NORMS[2], True)),
    ):
        first = run(operator, feeds, library)
        np.testing.assert_array_equal(run(operator, feeds, library, threads=3), first)


def test_a_constant_map_has_no_variance(library, isa) -> None:
    """The sum of squares minus the square of the sum would be noise, or below zero."""
    feeds = norm_case(NORMS[1], False)
    feeds["x"] = np.full_like(feeds["x"], 1000.1)
    assert_close(run(fused.GROUP_NORM, feeds, library), group_norm(feeds), 1e-6)
    feeds["x"] += normal(9, *feeds["x"].shape)
    assert_close(run(fused.GROUP_NORM, feeds, library), group_norm(feeds), 1e-6)
    feeds["x"][:, :, 0, 0] = -1e4  # the first of a group is far from all others
    assert_close(run(fused.GROUP_NORM, feeds, library), group_norm(feeds), 2e-5)


@pytest.mark.parametrize(
    ("operator", "change", "message"),
    [
        ("CrossScan", {"x": (2, 33, 5)}, r"input x has 5 numbers a token; expected .* = 140"),
        ("CrossScan", {"bias": (4, 16)}, r"input bias has shape \(4, 16\); expected \(K, D\)"),
        (fused.DEPTHWISE, {"weight": (17, 1, 4, 4)}, "a side of 4; expected an odd one"),
        (fused.DEPTHWISE, {"weight": (17, 2, 3, 3)}, r"weight has shape .* \(C, 1, S, S\)"),
        (fused.GROUP_NORM, {"gamma": (2, 2), "beta": (2, 2)}, "to be the 6 channels of x"),
    ],
)
def test_wrong_shapes_are_refused(operator, change, message, library) -> None:
    feeds = {"C": scan_case(SCANS[1]), "D": map_case(MAPS[1]), "G": norm_case(NORMS[1], False)}
    wrong = feeds[operator[0]] | {k: normal(0, *shape) for k, shape in change.items()}
    with pytest.raises(Exception, match=f"ssmdiff::{operator}: .*{message}"):
        run(operator, wrong, library)


@pytest.mark.slow
def test_a_graph_of_the_unet_is_fused_and_draws_the_same(tmp_path, library) -> None:
    run_ = tiny_run(tmp_path / "run", scan={"name": "regenerate", "base": "atrous"}, backbone=UNET)
    path = tmp_path / "model.onnx"
    report = export_onnx(run_, path, fuse=True)
    assert report.parity.max_rel < 1e-5
    graph = onnx.load(path).graph
    kinds = Counter(node.op_type for node in graph.node)
    blocks = sum(kinds[name] for name in fused.CROSS_SCANS.values())
    assert blocks == len(OnnxSampler(path).card.slots) > 0
    assert kinds[fused.DEPTHWISE] == kinds[fused.DEPTHWISE_SILU] == blocks
    assert kinds[fused.TIMED_GROUP_NORM] == blocks
    assert kinds[fused.GROUP_NORM] == blocks + 1
    assert not kinds["InstanceNormalization"] + kinds["SelectiveScan"] + kinds["Softplus"]
    read = {name for node in graph.node for name in node.input}
    assert {tensor.name for tensor in graph.initializer} <= read, "nothing is kept unread"
    wanted = run_.sample(2, seed=3, steps=3).numpy()
    for images in (OnnxSampler(path), OnnxSampler(path, library=Path(library))):
        np.testing.assert_allclose(images.sample(2, seed=3, steps=3), wanted, atol=1e-5)


NIGHT = pytest.mark.night
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "table",
    [
        pytest.param({"name": "mss", "discretization": "zoh"}, marks=SLOW),
        pytest.param({"name": "vss"}, marks=SLOW),
        pytest.param({"name": "mamba", "discretization": "zoh"}, marks=SLOW),
        pytest.param({"name": "conv"}, marks=SLOW),
        pytest.param({"name": "mss", "fusion": "concat"}, marks=NIGHT),
        pytest.param({"name": "vss", "discretization": "zoh"}, marks=NIGHT),
        pytest.param({"name": "mamba"}, marks=NIGHT),
        pytest.param({"name": "mamba2"}, marks=NIGHT),
        pytest.param({"name": "attention"}, marks=NIGHT),
    ],
    ids=lambda table: "-".join(table.values()),
)
def test_every_block_is_the_same_with_the_library(table, tmp_path, library) -> None:
    run_ = tiny_run(tmp_path / "run", scan="regenerate", block=table, backbone=STACK)
    path = tmp_path / "model.onnx"
    export_onnx(run_, path, fuse=True)
    wanted = run_.sample(2, seed=3, steps=3).numpy()
    drawn = OnnxSampler(path, library=Path(library)).sample(2, seed=3, steps=3)
    np.testing.assert_allclose(drawn, wanted, atol=1e-4)
