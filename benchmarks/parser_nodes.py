"""Synthetic models of one node each, for asking a parser: operators, types, opsets, odd inputs.

Imported by ``benchmarks/parser_rules.py`` and by the test of the table; needs onnx alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper, shape_inference

TYPES = {
    "FP32": TensorProto.FLOAT,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "DOUBLE": TensorProto.DOUBLE,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "BOOL": TensorProto.BOOL,
}
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
UNARY = (
    "Abs Acos Acosh Asin Asinh Atan Atanh Ceil Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid "
    "HardSwish Identity LeakyRelu Log Mish Neg Reciprocal Relu Round Selu Sigmoid Sign Sin Sinh "
    "Softplus Softsign Sqrt Tan Tanh"
)
OF_INTEGERS = "Abs Add CumSum Div Gather Greater Max Mod Mul Neg Relu Sign Sub TopK Where"
MISSING = "BitShift Col2Im Compress Det MatMulInteger MaxUnpool Multinomial StringNormalizer Unique"


@dataclass(frozen=True)
class Case:
    """One model and what it is about."""

    name: str
    model: ModelProto


def model(
    operator: str,
    *inputs: Any,
    opset: int = 20,
    outputs: int = 1,
    **attributes: Any,
) -> ModelProto:
    """A graph of one node.

    Args:
        operator: Of ONNX's own domain.
        inputs: Each a pair of type and shape, an array for a constant, or None for none.
        opset: Of the graph.
        outputs: How many the node has.
        attributes: Of the node.
    """
    names, values, constants = [], [], []
    for i, given in enumerate(inputs):
        name = "" if given is None else f"x{i}"
        names.append(name)
        if isinstance(given, np.ndarray | np.generic):
            constants.append(numpy_helper.from_array(np.asarray(given), name))
        elif given is not None:
            kind, shape = given
            values.append(helper.make_tensor_value_info(name, TYPES[kind], shape))
    made = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(operator, names, made, operator.lower(), **attributes)
    results = [helper.make_empty_tensor_value_info(made[0])]
    graph = helper.make_graph([node], "one", values, results, constants)
    ir = 10 if opset < 23 else 12
    made_model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=ir,
        producer_name="ssmdiff",
    )
    inferred = shape_inference.infer_shapes(made_model)  # the output gets its type
    output = inferred.graph.output[0].type.tensor_type
    if not output.elem_type and values:
        output.elem_type = values[0].type.tensor_type.elem_type
    return inferred


def cases() -> list[Case]:
    """Every case, in a fixed order, each under a name of its own."""
    found = [Case(name, made) for name, made in _cases()]
    assert len({case.name for case in found}) == len(found)
    return found


def _cases() -> Iterator[tuple[str, ModelProto]]:
    real, image = ("FP32", [2, 3]), ("FP32", [1, 4, 8, 8])
    for operator in UNARY.split():
        yield operator, model(operator, ("FP32", [2, 3]))
    for kind in ("FP16", "BF16", "DOUBLE"):
        for operator in ("Exp", "Softplus", "Mish", "Gelu"):
            yield f"{operator} {kind}", model(operator, (kind, [2, 3]))
    for operator in OF_INTEGERS.split():
        for kind in ("INT32", "INT64"):
            yield f"{operator} {kind}", _integers(operator, kind)
    for operator in MISSING.split():
        yield operator, _missing(operator)
    for opset in (6, 7, 8, 9, 13, 18, 20, 22, 23, 24, 25, 26, 27, 28):
        yield f"Relu opset {opset}", model("Relu", real, opset=opset)
    yield "Swish opset 24", model("Swish", real, opset=24)
    axis = np.array(1, np.int64)
    yield "CumSum", model("CumSum", real, axis)
    yield "CumSum dynamic axis", model("CumSum", real, ("INT64", []))
    yield "ReduceSum", model("ReduceSum", real, np.array([1], np.int64))
    yield "ReduceSum dynamic axes", model("ReduceSum", real, ("INT64", [1]))
    yield "ReduceMean opset 17", model("ReduceMean", real, opset=17, axes=[1])
    yield "Squeeze dynamic axes", model("Squeeze", ("FP32", [2, 1]), ("INT64", [1]))
    yield "Unsqueeze dynamic axes", model("Unsqueeze", real, ("INT64", [1]))
    yield "OneHot", model("OneHot", ("INT64", [3]), np.array([4], np.int64), np.float32([0, 1]))
    yield (
        "OneHot dynamic depth",
        model("OneHot", ("INT64", [3]), ("INT64", [1]), np.float32([0, 1])),
    )
    for reduction in ("none", "add", "max"):
        places = np.array([[0], [1]], np.int64)
        yield f"ScatterND {reduction}", model("ScatterND", real, places, real, reduction=reduction)
        yield (
            f"ScatterElements {reduction}",
            model("ScatterElements", real, ("INT64", [2, 3]), real, axis=1, reduction=reduction),
        )
    for kind in ("DOUBLE", "BF16", "UINT8", "BOOL"):
        yield f"Cast to {kind}", model("Cast", real, to=getattr(TensorProto, _word(kind)))
    yield "RandomNormal", model("RandomNormal", shape=[2, 3])
    yield "RandomUniformLike", model("RandomUniformLike", real)
    yield "LayerNormalization", model("LayerNormalization", real, np.ones(3, np.float32))
    yield (
        "LayerNormalization three outputs",
        model("LayerNormalization", real, np.ones(3, np.float32), outputs=3),
    )
    yield (
        "GroupNormalization opset 21",
        model("GroupNormalization", image, *[np.ones(4, np.float32)] * 2, opset=21, num_groups=2),
    )
    yield (
        "RMSNormalization opset 23",
        model("RMSNormalization", real, np.ones(3, np.float32), opset=23),
    )
    yield "InstanceNormalization", model("InstanceNormalization", image, *[np.ones(4, "f4")] * 2)
    yield "Conv", model("Conv", image, np.ones((4, 4, 3, 3), np.float32), pads=[1, 1, 1, 1])
    yield "Conv depthwise", model("Conv", image, np.ones((4, 1, 3, 3), np.float32), group=4)
    yield (
        "ConvTranspose",
        model("ConvTranspose", image, np.ones((4, 4, 2, 2), "f4"), strides=[2, 2]),
    )
    yield (
        "DeformConv",
        model("DeformConv", image, np.ones((4, 4, 3, 3), "f4"), ("FP32", [1, 18, 6, 6])),
    )
    yield "MatMul", model("MatMul", real, ("FP32", [3, 4]))
    yield "MatMul DOUBLE", model("MatMul", ("DOUBLE", [2, 3]), ("DOUBLE", [3, 4]))
    yield "Einsum", model("Einsum", real, ("FP32", [3, 4]), equation="ab,bc->ac")
    yield "Gemm", model("Gemm", real, ("FP32", [3, 4]))
    heads = ("FP32", [2, 4, 8, 16])
    yield "Attention opset 23", model("Attention", heads, heads, heads, opset=23)
    several = ("FP32", ["batch", 4, 8, 16])
    yield "Attention dynamic batch", model("Attention", several, several, several, opset=23)
    yield "LinearAttention opset 27", model(
        "LinearAttention", *[("FP32", [1, 8, 16])] * 3, ("FP32", [1, 4, 4, 4]),
        ("FP32", [1, 8, 16]), opset=27, outputs=2, q_num_heads=4, kv_num_heads=4,
        update_rule="gated",
    )  # fmt: skip
    yield "CausalConvWithState opset 27", model(
        "CausalConvWithState", ("FP32", [1, 4, 8]), np.ones((4, 1, 3), np.float32), opset=27,
        outputs=2,
    )  # fmt: skip
    yield (
        "RotaryEmbedding opset 23",
        model("RotaryEmbedding", heads, *[("FP32", [2, 8, 8])] * 2, opset=23),
    )
    yield "Resize", model("Resize", image, None, np.float32([1, 1, 2, 2]))
    yield "GridSample", model("GridSample", image, ("FP32", [1, 4, 4, 2]))
    yield "Pad", model("Pad", real, np.array([0, 1, 0, 1], np.int64))
    yield "Slice", model("Slice", real, np.array([0]), np.array([2]), np.array([1]))
    yield "Tile", model("Tile", real, np.array([2, 1], np.int64))
    yield "Trilu", model("Trilu", real)
    yield "NonZero", model("NonZero", real)
    yield "EyeLike", model("EyeLike", real)
    yield "DFT", model("DFT", ("FP32", [1, 8, 1]))
    yield "STFT", model("STFT", ("FP32", [1, 64, 1]), np.array(8), None, np.array(16))
    yield "BlackmanWindow", model("BlackmanWindow", np.array(16, np.int64))
    yield "Softmax", model("Softmax", real, axis=1)
    yield "LogSoftmax", model("LogSoftmax", real, axis=1)
    yield "Hardmax", model("Hardmax", real, axis=1)
    yield "Not", model("Not", ("BOOL", [2]))
    yield "BitwiseAnd", model("BitwiseAnd", ("INT32", [2]), ("INT32", [2]))
    yield "IsNaN", model("IsNaN", real)
    yield "Range", model("Range", *map(np.int64, (0, 8, 1)))
    yield "Range dynamic", model("Range", np.int64(0), ("INT64", []), np.int64(1))
    yield "LSTM", model(
        "LSTM", ("FP32", [4, 1, 3]), np.ones((1, 8, 3), "f4"), np.ones((1, 8, 2), "f4"),
        hidden_size=2,
    )  # fmt: skip
    yield "Loop", _loop(np.array(4, np.int64))
    yield "Loop dynamic count", _loop(("INT64", []))
    yield "Loop stacking", _loop(np.array(4, np.int64), stack=True)
    yield "Loop stacking, dynamic count", _loop(("INT64", []), stack=True)
    yield "Scan", _scan("FP32")
    yield "Scan FP16", _scan("FP16")
    yield "If", _if()


def _word(kind: str) -> str:
    return {"BF16": "BFLOAT16"}.get(kind, kind)


def _integers(operator: str, kind: str) -> ModelProto:
    x, width = (kind, [2, 3]), {"INT32": np.int32, "INT64": np.int64}[kind]
    if operator == "CumSum":
        return model(operator, x, np.array(1, np.int64))
    if operator == "Gather":
        return model(operator, x, np.array([1, 0], np.int64), axis=1)
    if operator == "TopK":
        return model(operator, x, np.array([2], np.int64), outputs=2)
    if operator == "Where":
        return model(operator, ("BOOL", [2, 3]), x, x)
    if operator in ("Abs", "Neg", "Relu", "Sign"):
        return model(operator, x)
    return model(operator, x, np.ones((2, 3), width))


def _missing(operator: str) -> ModelProto:
    real = ("FP32", [2, 3])
    given: dict[str, ModelProto] = {
        "BitShift": model("BitShift", *[np.ones(3, np.uint32)] * 2, direction="LEFT"),
        "Col2Im": model("Col2Im", ("FP32", [1, 4, 4]), np.array([4, 4]), np.array([2, 2])),
        "Compress": model("Compress", real, ("BOOL", [2]), axis=0),
        "Det": model("Det", ("FP32", [3, 3])),
        "MatMulInteger": model("MatMulInteger", *[np.ones((2, 2), np.uint8)] * 2),
        "MaxUnpool": model("MaxUnpool", ("FP32", [1, 1, 2, 2]), ("INT64", [1, 1, 2, 2]),
                           kernel_shape=[2, 2], strides=[2, 2]),
        "Multinomial": model("Multinomial", real, sample_size=2),
        "StringNormalizer": model("StringNormalizer", np.array(["a", "b"], object)),
        "Unique": model("Unique", real),
    }  # fmt: skip
    return given[operator]


def _loop(count: Any, stack: bool = False) -> ModelProto:
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Identity", ["more"], ["on"]),
        helper.make_node("Mul", ["h", "h"], ["h2"]),
    ]
    body = helper.make_graph(
        nodes,
        "step",
        [value("i", INT64, []), value("more", BOOL, []), value("h", FLOAT, [2, 3])],
        [value("on", BOOL, []), value("h2", FLOAT, [2, 3])],
    )
    if stack:
        body.node.append(helper.make_node("Identity", ["h2"], ["kept"]))
        body.output.append(value("kept", FLOAT, [2, 3]))
    return model("Loop", count, np.array(True), ("FP32", [2, 3]), outputs=1 + stack, body=body)


def _scan(kind: str) -> ModelProto:
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Add", ["h", "x"], ["h2"]),
        helper.make_node("Identity", ["h2"], ["out"]),
    ]
    wide = TYPES[kind]
    body = helper.make_graph(
        nodes,
        "step",
        [value("h", wide, [3]), value("x", wide, [3])],
        [value("h2", wide, [3]), value("out", wide, [3])],
    )
    return model("Scan", (kind, [3]), (kind, [5, 3]), outputs=2, body=body, num_scan_inputs=1)


def _if() -> ModelProto:
    def branch(value: float) -> GraphProto:
        constant = numpy_helper.from_array(np.full((2,), value, np.float32))
        node = helper.make_node("Constant", [], ["r"], value=constant)
        return helper.make_graph(
            [node], "branch", [], [helper.make_tensor_value_info("r", FLOAT, [2])]
        )

    return model("If", ("BOOL", []), then_branch=branch(1), else_branch=branch(2))
