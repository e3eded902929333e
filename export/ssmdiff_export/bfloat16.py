"""The float32 twin of a bfloat16 file: the same graph and the same rounding, for CPUs.

Every bfloat16 tensor becomes a float32 tensor that holds bfloat16 values: constants are widened,
and what a node computes is rounded to bfloat16 and widened again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

NARROW, WIDE = TensorProto.BFLOAT16, TensorProto.FLOAT
MOVING = {"Reshape", "Transpose", "Split", "Concat", "Unsqueeze", "Squeeze", "Slice", "Gather"}
"""Operators that compute nothing: what is rounded already stays so."""


def write_twin(source: Path, target: Path) -> None:
    """Write the twin; its weights go into a file beside it.

    Args:
        source: An ONNX file whose values between the nodes are all typed.
        target: Where the twin goes.
    """
    model = onnx.load(source)
    graph = model.graph
    narrow = {v.name for v in graph.value_info if v.type.tensor_type.elem_type == NARROW}
    for tensor in graph.initializer:
        if tensor.data_type == NARROW:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    nodes = []
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == NARROW:
                attribute.i = WIDE
        nodes.append(node)
        if node.op_type not in MOVING:
            for i, name in enumerate(node.output):
                if name in narrow:
                    nodes += _rounded(node, i, name)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    onnx.save(model, target, save_as_external_data=True, location=f"{target.name}.data")


def _rounded(node: NodeProto, output: int, name: str) -> list[NodeProto]:
    """Nodes that give ``name`` the rounded value of the node's output."""
    exact, rounded = f"{name}/exact", f"{name}/rounded"
    node.output[output] = exact
    return [
        helper.make_node("Cast", [exact], [rounded], to=NARROW),
        helper.make_node("Cast", [rounded], [name], to=WIDE),
    ]
