"""Finds in a translated graph what one of our operators computes, and puts it in its place.

The patterns are those that torch's exporter writes for the layers of :mod:`ssmdiff.nn` and the
blocks of the distribution; a block that is written otherwise keeps its nodes. Nothing here changes
what a graph computes: each operator is a function of the nodes that it replaces
(:mod:`ssmdiff_export.fused`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from ssmdiff_export.fused import (
    CROSS_SCANS,
    DEPTHWISE,
    DEPTHWISE_SILU,
    GROUP_NORM,
    SOFTPLUS,
    TIMED_GROUP_NORM,
)
from ssmdiff_export.runtime.card import DOMAIN

TO_TOKENS = (0, 2, 1)
SOFTPLUS_LINEAR = 20.0
"""torch's softplus is the identity above it, where both are the same float32."""


class _NoMatchError(Exception):
    """The nodes here are others than those looked for."""


@dataclass
class _Found:
    """What takes the place of a value: new nodes, the last of which gives it."""

    old: ir.Value
    nodes: list[ir.Node]


def fuse(model: ir.Model) -> None:
    """Put our operators in, wherever their nodes stand."""
    graph = model.graph
    simplify(model)
    finders: dict[str, Callable[[ir.Graph, ir.Node], _Found]] = {
        "Conv": _depthwise,
        "InstanceNormalization": _group_norm,
        **dict.fromkeys(CROSS_SCANS, _cross_scan),
    }
    for node in list(graph):
        finder = finders.get(node.op_type)
        if finder is not None:
            _try(graph, node, finder)
    _remove_unused(graph)
    for node in list(graph):
        if node.op_type == "Softplus" and not node.domain:
            _try(graph, node, _plain_softplus)
    _remove_unused(graph)


def simplify(model: ir.Model) -> None:
    """Leave out what changes nothing: a transposition and back, torch's cases of softplus."""
    graph = model.graph
    for node in list(graph):
        if node.op_type == "Where":
            _try(graph, node, _softplus)
        elif node.op_type == "Transpose":
            _try(graph, node, _there_and_back)
    _remove_unused(graph)


def _try(graph: ir.Graph, node: ir.Node, find: Callable[[ir.Graph, ir.Node], _Found]) -> None:
    try:
        found = find(graph, node)
    except _NoMatchError:
        return
    if not found.nodes:
        return
    new = found.nodes[-1].outputs[0]
    if new.shape is None:
        new.shape, new.type = found.old.shape, found.old.type
    producer = found.old.producer()
    assert producer is not None
    graph.insert_before(producer, [n for n in found.nodes if n.graph is None])
    found.old.replace_all_uses_with(new)


def _remove_unused(graph: ir.Graph) -> None:
    for node in reversed(list(graph)):
        if all(not v.uses() and not v.is_graph_output() for v in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]


# What the patterns are made of.


def _made_by(value: ir.Value | None, kind: str) -> ir.Node:
    node = None if value is None else value.producer()
    if node is None or node.op_type != kind:
        raise _NoMatchError
    return node


def _next(value: ir.Value, kind: str) -> ir.Node:
    """The one node that reads the value."""
    readers = {usage.node for usage in value.uses()}
    if value.is_graph_output() or len(readers) != 1:
        raise _NoMatchError
    (node,) = readers
    if node.op_type != kind:
        raise _NoMatchError
    return node


def _constant(value: ir.Value | None) -> np.ndarray:
    if value is None or value.const_value is None:
        raise _NoMatchError
    array: np.ndarray = value.const_value.numpy()
    return array


def _require(condition: bool) -> None:
    if not condition:
        raise _NoMatchError


def _perm(node: ir.Node) -> tuple[int, ...]:
    return tuple(node.attributes["perm"].as_ints())


def _other(node: ir.Node, value: ir.Value) -> ir.Value:
    """The other of two inputs."""
    rest = [v for v in node.inputs if v is not value]
    if len(node.inputs) != 2 or len(rest) != 1 or rest[0] is None:
        raise _NoMatchError
    return rest[0]


def _silu_of(value: ir.Value) -> ir.Value:
    """value sigmoid(value), where that is all that reads the value."""
    readers = {usage.node.op_type: usage.node for usage in value.uses()}
    _require(set(readers) == {"Sigmoid", "Mul"} and not value.is_graph_output())
    product = readers["Mul"]
    _require(_other(product, value).producer() is readers["Sigmoid"])
    _next(readers["Sigmoid"].outputs[0], "Mul")
    return product.outputs[0]


def _initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    if name not in graph.initializers:
        graph.register_initializer(
            ir.Value(
                name=name,
                const_value=ir.tensor(np.ascontiguousarray(array), name=name),
                shape=ir.Shape(array.shape),
                type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            )
        )
    return graph.initializers[name]


def _reshaped(graph: ir.Graph, value: ir.Value, *sides: int) -> ir.Node:
    name = "sides_" + "_".join(str(s).replace("-", "m") for s in sides)
    shape = _initializer(graph, name, np.array(sides, np.int64))
    return ir.node("Reshape", [value, shape])


def _ours(operator: str, inputs: Sequence[ir.Value], **attributes: Any) -> ir.Node:
    return ir.node(operator, inputs, attributes, domain=DOMAIN)


# The patterns. Each takes the node that it is recognised by.


def _softplus(graph: ir.Graph, where: ir.Node) -> _Found:
    """Where(x > 20, x, softplus(x)) is softplus(x)."""
    condition, x, smooth = where.inputs
    node, greater = _made_by(smooth, "Softplus"), _made_by(condition, "Greater")
    _require(node.inputs[0] is x and greater.inputs[0] is x)
    _require(float(_constant(greater.inputs[1])) == SOFTPLUS_LINEAR)
    return _Found(where.outputs[0], [node])


def _there_and_back(graph: ir.Graph, back: ir.Node) -> _Found:
    """Tokens to a map and back to tokens."""
    reshape = _made_by(back.inputs[0], "Reshape")
    there = _made_by(reshape.inputs[0], "Transpose")
    _require(_perm(there) == TO_TOKENS == _perm(back))
    tokens = there.inputs[0]
    assert tokens is not None
    before, after = there.outputs[0].shape, reshape.outputs[0].shape
    _require(before is not None and after is not None and list(before) == list(after))
    back.outputs[0].replace_all_uses_with(tokens)
    return _Found(back.outputs[0], [])


def _depthwise(graph: ir.Graph, conv: ir.Node) -> _Found:
    """Tokens to a map, a convolution of each channel by itself, silu or not, and back to tokens."""
    if len(conv.inputs) != 3:
        raise _NoMatchError
    weight, bias = conv.inputs[1:]
    if weight is None or bias is None:
        raise _NoMatchError
    channels, one, side, width = _constant(weight).shape
    reach = side // 2
    _require(one == 1 and side == width and side % 2 == 1 and weight.dtype == ir.DataType.FLOAT)
    _require(conv.attributes["group"].as_int() == channels)
    for name, value in (("strides", 1), ("dilations", 1), ("pads", reach)):
        given = conv.attributes.get(name)
        _require(given is not None and set(given.as_ints()) == {value})
    reshape = _made_by(conv.inputs[0], "Reshape")
    turn = _made_by(reshape.inputs[0], "Transpose")
    sides = _constant(reshape.inputs[1]).tolist()
    _require(_perm(turn) == TO_TOKENS and len(sides) == 4 and sides[1] == channels)
    tokens = turn.inputs[0]
    result, operator = conv.outputs[0], DEPTHWISE
    with contextlib.suppress(_NoMatchError):
        result, operator = _silu_of(result), DEPTHWISE_SILU
    flat = _next(result, "Reshape")
    back = _next(flat.outputs[0], "Transpose")
    length = sides[2] * sides[3]
    _require(_perm(back) == TO_TOKENS)
    _require(_constant(flat.inputs[1]).tolist()[1:] == [channels, length])
    assert tokens is not None
    into = _reshaped(graph, tokens, -1, *sides[2:], channels)
    node = _ours(operator, [into.outputs[0], weight, bias], group=channels, pads=[reach] * 4)
    out = _reshaped(graph, node.outputs[0], -1, length, channels)
    return _Found(back.outputs[0], [into, node, out])


def _group_norm(graph: ir.Graph, norm: ir.Node) -> _Found:
    """Groups of channels as instances, slope and offset, time's factor and shift or not, silu."""
    rows = _made_by(norm.inputs[0], "Reshape")
    x = rows.inputs[0]
    ones, zeros = _constant(norm.inputs[1]), _constant(norm.inputs[2])
    _require((ones == 1).all() and (zeros == 0).all())
    _require(x is not None and x.dtype == ir.DataType.FLOAT and x.shape is not None)
    assert x is not None
    assert x.shape is not None
    _require(len(x.shape) == 4 and _constant(rows.inputs[1]).tolist() == [0, len(ones), -1])
    back = _next(norm.outputs[0], "Reshape")
    shape = _made_by(back.inputs[1], "Shape")
    _require(shape.inputs[0] is x)
    sloped = _next(back.outputs[0], "Mul")
    gamma = _constant(_other(sloped, back.outputs[0]))
    moved = _next(sloped.outputs[0], "Add")
    beta = _constant(_other(moved, sloped.outputs[0]))
    channels = int(gamma.size)
    _require(x.shape[1] == channels)
    _require(gamma.shape == beta.shape == (channels, 1, 1))
    epsilon = norm.attributes["epsilon"].as_float()
    table = (len(ones), channels // len(ones))
    names = [f"{norm.outputs[0].name}_{part}" for part in ("gamma", "beta")]
    weights = [
        _initializer(graph, name, array.reshape(table))
        for name, array in zip(names, (gamma, beta), strict=True)
    ]
    result, operator = moved.outputs[0], GROUP_NORM
    try:
        timed = _next(result, "Mul")
        factor = _other(timed, result)
        shifted = _next(timed.outputs[0], "Add")
        shift = _other(shifted, timed.outputs[0])
        for one in (factor, shift):
            _require(one.shape is not None and list(one.shape)[1:] == [channels, 1, 1])
            _require(one.producer() is not None)
        result, operator = shifted.outputs[0], TIMED_GROUP_NORM
        weights += [factor, shift]
    except _NoMatchError:
        pass
    return _Found(_silu_of(result), [_ours(operator, [x, *weights], epsilon=epsilon)])


def _cross_scan(graph: ir.Graph, scan: ir.Node) -> _Found:
    """The projections before a scan, the sum of its directions, and the skip."""
    u, delta, A, B, C, order = scan.inputs
    _require(u is not None and u.dtype == ir.DataType.FLOAT)
    assert u is not None
    assert A is not None
    assert order is not None
    moved = _made_by(_made_by(delta, "Softplus").inputs[0], "Add")
    raw = next(v.producer() for v in moved.inputs if v is not None and v.producer() is not None)
    _require(raw is not None and raw.op_type == "MatMul")
    assert raw is not None
    bias = _constant(_other(moved, raw.outputs[0]))
    low, weight = raw.inputs
    split = _made_by(low, "Split")
    _require((low, B, C) == tuple(split.outputs))
    turned = _made_by(split.inputs[0], "Transpose")
    rows = _made_by(turned.inputs[0], "Reshape")
    directions, channels, states = _constant(A).shape
    k, rank, d = _constant(weight).shape
    _require((k, d) == (directions, channels) and bias.shape == (directions, 1, channels))
    _require(_perm(turned) == (0, 2, 1, 3) and split.attributes["axis"].as_int() in (3, -1))
    _require(_constant(split.inputs[1]).tolist() == [rank, states, states])
    _require(_constant(rows.inputs[1]).tolist()[2:] == [directions, rank + 2 * states])
    total = _next(scan.outputs[0], "ReduceSum")
    _require(_constant(total.inputs[1]).tolist() == [1])
    _require(total.attributes["keepdims"].as_int() == 0)
    merged = _next(total.outputs[0], "Add")
    skipped = _made_by(_other(merged, total.outputs[0]), "Mul")
    skip = _other(skipped, u)
    _require(_constant(skip).shape == (channels,))
    name = scan.outputs[0].name
    inputs = [
        u,
        rows.inputs[0],
        weight,
        _initializer(graph, f"{name}_bias", bias[:, 0]),
        A,
        order,
        skip,
    ]
    assert all(value is not None for value in inputs)
    node = _ours(CROSS_SCANS[scan.op_type], [v for v in inputs if v is not None])
    return _Found(merged.outputs[0], [node])


def _plain_softplus(graph: ir.Graph, softplus: ir.Node) -> _Found:
    """The step sizes of a scan whose projections are others."""
    (x,) = softplus.inputs
    _require(x is not None and x.dtype == ir.DataType.FLOAT)
    assert x is not None
    _require(x.shape is not None and len(x.shape) == 4)
    return _Found(softplus.outputs[0], [_ours(SOFTPLUS, [x])])
