"""The node's function beside the float64 reference, in ONNX Runtime and in onnx's own runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.inliner
import onnx.reference
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper
from ssmdiff.ops.kernels import ScanInputs
from ssmdiff.ops.reference import TorchKernel
from ssmdiff_export.function import CHUNK, scan_function
from ssmdiff_export.runtime.card import (
    ATTRIBUTES,
    BODIES,
    DOMAIN,
    EULER,
    INPUTS,
    OPERATORS,
    OPSETS,
    ZOH,
)

# (B, K, L, D, N): one token, one state, K up to 8, lengths about a chunk and not a multiple of it.
SHAPES = [(1, 1, 1, 3, 1), (2, 3, 7, 5, 16), (1, 8, 35, 4, 2), (3, 4, CHUNK, 8, 16)]
SHAPES += [(2, 2, CHUNK + 1, 3, 5), (1, 4, 2 * CHUNK + 2, 2, 3)]
TYPES = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}


def one_node(operator: str, body: str, kind: int = TensorProto.FLOAT, opset: int = 20):
    """A model of one node whose every axis is open."""
    value, FLOAT = helper.make_tensor_value_info, TensorProto.FLOAT
    inputs = [
        value("u", kind, ["b", "l", "d"]),
        value("delta", FLOAT, ["b", "k", "l", "d"]),
        value("A", FLOAT, ["k", "d", "n"]),
        value("B", kind, ["b", "k", "l", "n"]),
        value("C", kind, ["b", "k", "l", "n"]),
        value("order", TensorProto.INT32, ["k", "l"]),
    ]
    node = helper.make_node(operator, list(INPUTS), ["y"], domain=DOMAIN, **ATTRIBUTES)
    outputs = [value("y", kind, ["b", "k", "l", "d"])]
    return helper.make_model(
        helper.make_graph([node], "scan", inputs, outputs),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1)],
        functions=[scan_function(operator, body, opset)],
        ir_version=10,
    )


def arrays(shape, restarts: bool, seed: int = 0):
    b, k, length, d, n = shape
    rng = np.random.default_rng(seed)

    def normal(*sides):
        return rng.standard_normal(sides).astype(np.float32)

    order = np.stack([rng.permutation(length) for _ in range(k)]).astype(np.int32)
    anew = rng.random((k, length)) < (0.2 if restarts else 0)
    return {
        "u": normal(b, length, d),
        "delta": np.log1p(np.exp(normal(b, k, length, d) - 2)),
        "A": -np.exp(normal(k, d, n)),
        "B": normal(b, k, length, n),
        "C": normal(b, k, length, n),
        "order": np.where(anew, -1 - order, order).astype(np.int32),
    }


def expected(inputs, discretization: str) -> np.ndarray:
    """The float64 reference, one direction at a time."""
    wide = {name: torch.from_numpy(np.asarray(inputs[name], np.float64)) for name in "uABC"}
    delta = torch.from_numpy(np.asarray(inputs["delta"], np.float64))
    order = torch.from_numpy(inputs["order"])
    rows = []
    for k in range(len(order)):
        row = slice(k, k + 1)
        rows.append(
            TorchKernel().forward(
                ScanInputs(
                    wide["u"], delta[:, row], wide["A"][row], wide["B"][:, row], wide["C"][:, row],
                    order[row], None, None, False, discretization,
                )
            )
        )  # fmt: skip
    return torch.stack(rows, 1).numpy()


def session(model) -> ort.InferenceSession:
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("discretization", OPERATORS)
def test_the_function_is_the_recurrence_in_onnx_runtime(discretization, body) -> None:
    model = one_node(OPERATORS[discretization], body)
    onnx.checker.check_model(model, full_check=True)
    run = session(model).run
    for shape in SHAPES:
        for restarts in (False, True):
            inputs = arrays(shape, restarts)
            y, wanted = run(None, inputs)[0], expected(inputs, discretization)
            assert np.abs(y - wanted).max() <= 1e-6 * np.abs(wanted).max(), (shape, restarts)


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("operator", OPERATORS.values())
def test_onnx_itself_and_its_inliner_agree(operator, body) -> None:
    model, inputs = one_node(operator, body), arrays((2, 3, 7, 5, 4), restarts=True)
    wanted = session(model).run(None, inputs)[0]
    inlined = onnx.inliner.inline_local_functions(model)
    assert not inlined.functions
    for one in (model, inlined):
        y = onnx.reference.ReferenceEvaluator(one).run(None, inputs)[0]
        np.testing.assert_allclose(y, wanted, atol=1e-5)


@pytest.mark.parametrize("body", BODIES)
def test_small_steps_keep_their_digits_under_zoh(body) -> None:
    """exp(d A) - 1 computed as such would lose half of them."""
    inputs = arrays((1, 1, 20, 4, 3), restarts=False)
    inputs["delta"] = np.full_like(inputs["delta"], 1e-6)
    y = session(one_node(ZOH, body)).run(None, inputs)[0]
    wanted = expected(inputs, "zoh")
    assert np.abs(y - wanted).max() <= 1e-6 * np.abs(wanted).max()


@pytest.mark.parametrize("body", BODIES)
def test_half_precision_rounds_the_inputs_and_the_output_alone(body) -> None:
    inputs = arrays((2, 4, 300, 3, 4), restarts=True)
    narrow = {k: v.astype(np.float16) if k in "uBC" else v for k, v in inputs.items()}
    y = session(one_node(EULER, body, TensorProto.FLOAT16)).run(None, narrow)[0]
    assert y.dtype == np.float16
    wanted = expected(narrow, "euler")
    assert np.abs(y - wanted).max() <= 1e-3 * np.abs(wanted).max()


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("operator", OPERATORS.values())
def test_what_is_gathered_is_float32_already(operator, body) -> None:
    """TensorRT for RTX 1.7 builds no file in which a cast to float32 stands behind the Gather."""
    nodes = scan_function(operator, body).node
    makers = {name: node for node in nodes for name in node.output}
    casts = set()
    for gather in (node for node in nodes if node.op_type == "Gather"):
        maker = makers[gather.input[0]]
        while maker.op_type in ("Reshape", "Transpose", "Scan", "Slice"):
            maker = makers.get(maker.input[0], maker)
            if maker.op_type == "Expand":  # the state, which is float32
                break
        assert maker.op_type in ("Cast", "Expand")
        casts.update(maker.input[:1])
    assert {"u", "B", "C"} <= casts
    behind = [
        n for n in nodes if n.op_type == "Cast" and makers.get(n.input[0], n).op_type == "Gather"
    ]
    assert not behind


@pytest.mark.parametrize("body", BODIES)
def test_gathering_first_gives_the_same_bits(body) -> None:
    """Casting widens exactly, so that its place is a matter of the builder's alone."""
    inputs = arrays((2, 4, 70, 3, 4), restarts=True)
    narrow = {k: v.astype(np.float16) if k in "uBC" else v for k, v in inputs.items()}
    first = session(one_node(EULER, body, TensorProto.FLOAT16)).run(None, narrow)[0]
    wide = {k: v.astype(np.float32) if k in "uBC" else v for k, v in narrow.items()}
    exact = session(one_node(EULER, body)).run(None, wide)[0]
    np.testing.assert_array_equal(first, exact.astype(np.float16))


@pytest.mark.parametrize("opset", sorted({*OPSETS.values()}))
def test_every_opset_in_use_is_read(opset) -> None:
    model, inputs = one_node(EULER, "scan", opset=opset), arrays((1, 2, 5, 3, 2), True)
    onnx.checker.check_model(model, full_check=True)
    wanted = expected(inputs, "euler")
    np.testing.assert_allclose(session(model).run(None, inputs)[0], wanted, atol=1e-5)


def test_nothing_flows_across_a_restart() -> None:
    inputs = arrays((1, 1, 9, 2, 3), restarts=False)
    inputs["order"][0, 4] = -1 - inputs["order"][0, 4]
    first, rest = inputs["order"][0, :4], inputs["order"][0, 5:]
    run = session(one_node(EULER, "scan")).run
    before = run(None, inputs)[0]
    inputs["u"][:, first] += 1
    after = run(None, inputs)[0]
    assert np.abs(after - before)[:, :, first].min() > 0
    np.testing.assert_array_equal(after[:, :, rest], before[:, :, rest])
