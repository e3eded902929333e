"""Small model files made by hand: one scan between a reshape and a tanh, with a valid card."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from ssmdiff.orders.group_shuffle import GroupShuffle
from ssmdiff.orders.scan import ScanOrder
from ssmdiff_export import function
from ssmdiff_export.runtime.card import ModelCard, Process, Slot

SIDE, CHANNELS, K = 4, 2, 2
L = SIDE * SIDE


def recipe() -> GroupShuffle:
    """There and back over a shuffled grid, beginning anew in the middle."""
    index = np.stack([np.arange(L), np.arange(L)[::-1]])
    return GroupShuffle(ScanOrder(index, index == L // 2), np.arange(L)[:, None])


def card(**changes: Any) -> ModelCard:
    plain = ModelCard(
        ssmdiff="0.1.0",
        components={"model.scan": "regenerate: ssmdiff 0.1.0"},
        scan={"name": "regenerate", "base": "bidirectional", "block": 1},
        block={"name": "mss"},
        backbone={"name": "vmddpm", "channels": 8},
        image_size=(SIDE, SIDE),
        channels=CHANNELS,
        class_names=(),
        class_conditional=False,
        diffusion=Process(1000, "linear", 1e-4, 0.02, "epsilon"),
        scheduler={"name": "ddim", "clip_sample": True},
        steps=4,
        precision="fp32",
        body="scan",
        checkpoint="step-00000010",
        weights_sha256="0" * 64,
        slots=(Slot((SIDE, SIDE), "order_0", "recipe_0"),),
        recipes={"recipe_0": recipe()},
    )
    return dataclasses.replace(plain, **changes)


def model(document: ModelCard | str | None = None, conditional: bool = False) -> onnx.ModelProto:
    """prediction = tanh(scan of x's tokens) + x / 2 + sin(timesteps) (+ context)."""
    rng = np.random.default_rng(0)

    def constant(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)

    def integers(name: str, *values: int) -> TensorProto:
        return numpy_helper.from_array(np.array(values, np.int64), name)

    A = numpy_helper.from_array(-np.exp(rng.standard_normal((K, CHANNELS, 3))).astype("f4"), "A")
    weights = [
        A, constant("B_of", CHANNELS, K * 3), constant("C_of", CHANNELS, K * 3),
        integers("tokens", 0, CHANNELS, L), integers("image", 0, CHANNELS, SIDE, SIDE),
        integers("rows", 0, L, K, 3), integers("to_K", 1, K, 1, 1), integers("one", 1),
        integers("column", -1, 1, 1, 1),
        numpy_helper.from_array(np.float32(0.5), "half"),
    ]  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Reshape", ["x", "tokens"], ["columns"]),
        node("Transpose", ["columns"], ["u"], perm=[0, 2, 1]),
        node("Softplus", ["u"], ["step"]),
        node("Unsqueeze", ["step", "one"], ["step1"]),
        node("Expand", ["step1", "to_K"], ["delta"]),
    ]
    for name in ("B", "C"):
        nodes += [
            node("MatMul", ["u", f"{name}_of"], [f"{name}_flat"]),
            node("Reshape", [f"{name}_flat", "rows"], [f"{name}_rows"]),
            node("Transpose", [f"{name}_rows"], [name], perm=[0, 2, 1, 3]),
        ]
    nodes += [
        node("SelectiveScan", ["u", "delta", "A", "B", "C", "order_0"], ["y"], domain="ssmdiff",
             plugin_namespace="ssmdiff", plugin_version="1", aot=1),
        node("ReduceSum", ["y", "one"], ["sum"], keepdims=0),
        node("Transpose", ["sum"], ["back"], perm=[0, 2, 1]),
        node("Reshape", ["back", "image"], ["mixed"]),
        node("Tanh", ["mixed"], ["bounded"]),
        node("Mul", ["x", "half"], ["kept"]),
        node("Add", ["bounded", "kept"], ["both"]),
        node("Sin", ["timesteps"], ["wave"]),
        node("Reshape", ["wave", "column"], ["waves"]),
        node("Add", ["both", "waves"], ["prediction" if not conditional else "unlabelled"]),
    ]  # fmt: skip
    value = helper.make_tensor_value_info
    image = ["batch", CHANNELS, SIDE, SIDE]
    inputs = [
        value("x", TensorProto.FLOAT, image),
        value("timesteps", TensorProto.FLOAT, ["batch"]),
        value("order_0", TensorProto.INT32, [K, L]),
    ]
    if conditional:
        inputs.insert(2, value("context", TensorProto.INT64, ["batch"]))
        nodes += [
            node("Cast", ["context"], ["label"], to=TensorProto.FLOAT),
            node("Reshape", ["label", "column"], ["labels"]),
            node("Add", ["unlabelled", "labels"], ["prediction"]),
        ]
    outputs = [value("prediction", TensorProto.FLOAT, image)]
    proto = helper.make_model(
        helper.make_graph(nodes, "handmade", inputs, outputs, weights),
        functions=[function.scan_function("SelectiveScan")],
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("ssmdiff", 1)],
        ir_version=10,
    )
    text = document if isinstance(document, str) else (document or card()).to_json()
    helper.set_model_props(proto, {"ssmdiff": text})
    return proto


def write(path: Path, proto: onnx.ModelProto | None = None) -> Path:
    path.write_bytes((proto or model()).SerializeToString())
    return path
