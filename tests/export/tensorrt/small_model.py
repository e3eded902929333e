"""A file as ``ssmdiff export`` writes it, with one scan and little else: built in milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from ssmdiff_export.function import scan_function
from ssmdiff_export.runtime.card import (
    ATTRIBUTES,
    DOMAIN,
    DOMAIN_VERSION,
    EULER,
    METADATA,
    ModelCard,
    Process,
    Slot,
)

OPSET = 20
L, D, K, N = 16, 1, 2, 16
BATCH = (1, 4, 8)
ONNX_TYPES = {
    "fp32": TensorProto.FLOAT,
    "fp16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
}


def card(precision: str = "fp32", random: bool = True, **changes: Any) -> ModelCard:
    values: dict[str, Any] = {
        "ssmdiff": "0.1.0",
        "components": {},
        "scan": {"name": "regenerate"},
        "block": {"name": "mss"},
        "backbone": {"name": "vmddpm"},
        "image_size": (4, 4),
        "channels": 1,
        "class_names": (),
        "class_conditional": False,
        "diffusion": Process(1000, "linear", 1e-4, 0.02, "epsilon"),
        "scheduler": {"name": "ddim"},
        "steps": 3,
        "precision": precision,
        "body": "scan",
        "checkpoint": "step-00000001",
        "weights_sha256": "0" * 64,
        "slots": (Slot((4, 4), "order_0" if random else None, None),),
    }
    return ModelCard(**values | changes)


def write(
    path: Path,
    precision: str = "fp32",
    operator: str = EULER,
    random: bool = True,
    seed: int = 0,
    namespace: str = "ssmdiff",
    body: str = "scan",
) -> Path:
    """x (batch, 1, 4, 4) and timesteps to the sum over two directions of one scan."""
    g = np.random.default_rng(seed)
    real = ONNX_TYPES[precision]
    node_attributes = ATTRIBUTES | {"plugin_namespace": namespace}
    constants = {
        "A": -g.uniform(0.1, 2, (K, D, N)).astype(np.float32),
        "step": np.full((1, K, L, D), 0.3, np.float32),
        "mix": g.standard_normal((1, K, L, N)).astype(np.float32),
        "to_tokens": np.array([-1, L, D], np.int64),
        "to_image": np.array([-1, 1, 4, 4], np.int64),
        "to_states": np.array([-1, 1, L, D], np.int64),
        "one": np.array([1], np.int64),
        "to_batch": np.array([-1, 1, 1, 1], np.int64),
        "small": np.array(1e-3, np.float32),
    }
    if not random:
        constants["order_0"] = np.stack([np.arange(L), np.arange(L)[::-1]]).astype(np.int32)
    node = helper.make_node
    nodes = [
        node("Reshape", ["timesteps", "to_batch"], ["t"], "reshape_t"),
        node("Mul", ["t", "small"], ["t_small"], "mul_t"),
        node("Add", ["x", "t_small"], ["shifted"], "add_t"),
        node("Reshape", ["shifted", "to_tokens"], ["tokens"], "reshape_x"),
        node("Cast", ["tokens"], ["u"], "cast_u", to=real),
        node("Reshape", ["tokens", "to_states"], ["states"], "reshape_d"),
        node("Mul", ["states", "states"], ["square"], "square"),
        node("Add", ["square", "step"], ["delta"], "add_d"),
        node("Mul", ["states", "mix"], ["mixed"], "mix_b"),
        node("Cast", ["mixed"], ["B"], "cast_b", to=real),
        node("Cast", ["mixed"], ["C"], "cast_c", to=real),
        node(
            operator,
            ["u", "delta", "A", "B", "C", "order_0"],
            ["y"],
            "scan_0",
            domain=DOMAIN,
            **node_attributes,
        ),
        node("Cast", ["y"], ["wide"], "cast_y", to=TensorProto.FLOAT),
        node("ReduceSum", ["wide", "one"], ["summed"], "sum_k", keepdims=0),
        node("Reshape", ["summed", "to_image"], ["prediction"], "reshape_y"),
    ]
    value = helper.make_tensor_value_info
    inputs = [
        value("x", TensorProto.FLOAT, ["batch", 1, 4, 4]),
        value("timesteps", TensorProto.FLOAT, ["batch"]),
    ]
    if random:
        inputs.append(value("order_0", TensorProto.INT32, [K, L]))
    graph = helper.make_graph(
        nodes,
        "small",
        inputs,
        [value("prediction", TensorProto.FLOAT, ["batch", 1, 4, 4])],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    model = helper.make_model(
        graph,
        opset_imports=[
            helper.make_opsetid("", OPSET),
            helper.make_opsetid(DOMAIN, DOMAIN_VERSION),
        ],
        functions=[scan_function(operator, body)],
        ir_version=10,
    )
    helper.set_model_props(model, {METADATA: card(precision, random).to_json()})
    onnx.save(model, path)
    return path
