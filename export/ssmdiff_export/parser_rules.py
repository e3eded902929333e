"""Would TensorRT take this file? Each node against a table of what its parser takes.

The table is the parser's documentation, corrected where the real parser and builder of TensorRT for
RTX say otherwise (``benchmarks/parser_rules.py`` compares them). It is no TensorRT: a file that
passes may still be refused there, and one that fails here is told why, node by node. Nodes inside
functions and loops are checked as well; our own nodes are taken by the plugin, and by their
function where the plugin is missing.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto
from ssmdiff import ExportError

from ssmdiff_export.runtime.card import DOMAIN

SHOWN = 10
_TYPES = {
    TensorProto.FLOAT: "FP32",
    TensorProto.FLOAT16: "FP16",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.UINT8: "UINT8",
    TensorProto.INT8: "INT8",
    TensorProto.BOOL: "BOOL",
    TensorProto.DOUBLE: "FP32",  # which is what the parser makes of it, with a warning
}
_CONSTANT_INPUT = {"CumSum": 1, "Squeeze": 1, "Unsqueeze": 1, "Hardmax": 1, "OneHot": 1}
_CONSTANT_INPUT |= {
    f"Reduce{kind}": 1
    for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum")
}
_CONSTANT_INPUT["ReduceSumSquare"] = 1
"""Which input has to be known when the engine is built."""
_RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
# The type that counts is that of the value, not of the condition or the index before it.
_VALUE_INPUT = {"Where": 1}
# The parser turns these into tensors of their own kind, whatever the value is.
_ANY_TYPE = ("Shape", "Size", "Constant", "ConstantOfShape", "Scan", "Loop", "If", "Cast")
_ANY_INPUT = ("BlackmanWindow", "HammingWindow", "HannWindow")


class Finding(NamedTuple):
    """A node that the table does not allow."""

    node: str
    operator: str
    problem: str

    def __str__(self) -> str:
        return f"{self.node} ({self.operator}): {self.problem}"


@dataclass(frozen=True)
class Rules:
    """The operators that are taken, with the types of each."""

    tensorrt: str
    opsets: range
    operators: dict[str, tuple[str, ...]]


@functools.cache
def rules() -> Rules:
    """The table of ``parser_operators.json``."""
    table = json.loads((files("ssmdiff_export") / "parser_operators.json").read_text("utf-8"))
    first, last = table["opsets"]
    operators = {name: tuple(types.split()) for name, types in table["operators"].items()}
    return Rules(table["tensorrt"], range(first, last + 1), operators)


def check_parser_rules(path: Path) -> None:
    """Refuse a file that TensorRT would refuse by the table.

    Raises:
        ExportError: Every node that is not allowed, by name, up to ten of them.
    """
    found = parser_findings(onnx.load(path, load_external_data=False))
    if found:
        more = f"\nand {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        listed = "\n".join(f"  {finding}" for finding in found[:SHOWN])
        raise ExportError(
            f"{path.name} has {len(found)} nodes that are not in the table of TensorRT's parser "
            f"({rules().tensorrt}):\n{listed}{more}"
        )


def parser_findings(model: ModelProto) -> list[Finding]:
    """Every node of the graph, its subgraphs and functions that is not allowed."""
    found = []
    functions = {(f.domain, f.name) for f in model.functions}
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version not in rules().opsets:
            expected = f"{rules().opsets[0]} to {rules().opsets[-1]}"
            found.append(Finding("file", "opset", f"{opset.version}; expected {expected}"))
    found += _Scope(model.graph, functions).findings()
    for function in model.functions:
        scope = _Scope(function, functions)
        found += [Finding(f"{function.name}/{f.node}", *f[1:]) for f in scope.findings()]
    return found


class _Scope:
    """The nodes of one graph or function, with what is known of the values around them."""

    def __init__(
        self, graph: Any, functions: set[tuple[str, str]], above: _Scope | None = None
    ) -> None:
        self.nodes: Iterable[NodeProto] = graph.node
        self.functions = functions
        self.constants: set[str] = set(above.constants) if above else set()
        self.types: dict[str, int] = dict(above.types) if above else {}
        values = [*graph.value_info, *_values(graph)]
        self.types |= {v.name: v.type.tensor_type.elem_type for v in values}
        for tensor in getattr(graph, "initializer", ()):
            self.constants.add(tensor.name)
            self.types[tensor.name] = tensor.data_type

    def findings(self) -> Iterator[Finding]:
        for i, node in enumerate(self.nodes):
            self._learn(node)
            name = node.name or f"node {i}"
            for problem in self._problems(node):
                yield Finding(name, node.op_type, problem)
            for attribute in node.attribute:
                if attribute.type == AttributeProto.GRAPH:
                    inner = _Scope(attribute.g, self.functions, self)
                    for finding in inner.findings():
                        yield Finding(f"{name}/{finding.node}", *finding[1:])

    def _learn(self, node: NodeProto) -> None:
        """A node that reads constants alone gives constants."""
        if all(name in self.constants for name in node.input if name):
            self.constants.update(node.output)

    def _problems(self, node: NodeProto) -> Iterator[str]:
        if node.domain == DOMAIN and (node.domain, node.op_type) in self.functions:
            return
        if node.domain not in ("", "ai.onnx"):
            yield f"of the domain {node.domain!r}, which neither ONNX nor ssmdiff has"
            return
        types = rules().operators.get(node.op_type)
        if types is None:
            yield "no such operator in the parser"
            return
        yield from self._types(node, types)
        place = _CONSTANT_INPUT.get(node.op_type)
        if place is not None and len(node.input) > place:
            name = node.input[place]
            if name and name not in self.constants:
                yield f"input {place} ({name}) is not known when the engine is built"
        yield from self._special(node)

    def _types(self, node: NodeProto, types: tuple[str, ...]) -> Iterator[str]:
        place = _VALUE_INPUT.get(node.op_type, 0)
        watched = [node.input[place]] if len(node.input) > place else []
        if node.op_type in _ANY_INPUT:
            watched = []
        for name in (*watched, *node.output[:1]):
            kind = self.types.get(name)
            if kind is None or kind == TensorProto.UNDEFINED:
                continue
            word = _TYPES.get(kind, TensorProto.DataType.Name(kind))
            comparison = name in node.output and word == "BOOL"
            if word in types or comparison or node.op_type in _ANY_TYPE:
                continue
            yield f"{name!r} is {word}; the parser takes {', '.join(types)}"
            return

    def _special(self, node: NodeProto) -> Iterator[str]:
        attributes = {a.name: a for a in node.attribute}
        if node.op_type in _RANDOM:
            yield "random numbers are drawn anew with a seed that the parser ignores"
        if node.op_type in ("ScatterND", "ScatterElements"):
            reduction = attributes.get("reduction")
            if reduction is not None and reduction.s not in (b"", b"none"):
                yield f"reduction {reduction.s.decode()!r} is not supported"
        if node.op_type == "LayerNormalization" and len(node.output) > 1 and any(node.output[1:]):
            yield "only its first output is supported"
        if node.op_type == "Loop" and node.input[0] and node.input[0] not in self.constants:
            stacked = len(node.output) - (len(node.input) - 2)
            if stacked > 0:
                yield "its trip count is dynamic, and so is the length of what it stacks"


def _values(graph: Any) -> list[Any]:
    """Inputs and outputs with their types; a function has names alone."""
    return [*graph.input, *graph.output] if isinstance(graph, GraphProto) else []
