"""The node of the selective scan in an exported graph, and the function that says what it computes.

Node ``ssmdiff::SelectiveScan`` (Euler, B_bar = d B) or ``ssmdiff::SelectiveScanZoh``
(B_bar = (exp(d A) - 1) / A B), version 1 of the domain:

    inputs    u (B, L, D)   delta (B, K, L, D) float32, step sizes after bias and softplus
              A (K, D, N) float32, negative   B, C (B, K, L, N)   order (K, L) int32
    output    y (B, K, L, D) in grid order, one direction after the other

u, B, C and y share one type, float32, float16 or bfloat16; the state is float32. An entry
``-1 - token`` of the order visits ``token`` with a state that starts anew. Bias, softplus, the sum
over the directions and D's skip are plain operators around the node.

A file carries a model-local function of the node's name, so that every runtime can run it; one
with an operator of that name uses the operator. It knows no shapes and serves all nodes. Bodies:

    scan      ONNX Scan over the L tokens: least memory
    chunked   the chunks of T = 64 tokens at once, three times Scan: 2 T + L / T steps in a row
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import FunctionProto, GraphProto, NodeProto, TensorProto, helper, numpy_helper

from ssmdiff_export.runtime.card import ATTRIBUTES, DOMAIN, INPUTS, ZOH

CHUNK = 64
STEP_OF_RESTART = 1e30
"""Step size that stands in the decay at a restart: exp(1e30 A) = 0, and 1e30 is finite."""


def scan_function(operator: str, body: str = "scan", opset: int = 20) -> FunctionProto:
    """The function of one operator.

    Args:
        operator: ``SelectiveScan`` or ``SelectiveScanZoh``.
        body: ``scan`` or ``chunked``.
        opset: Of the graph that it goes into, 20 or later.
    """
    function = _Function(zoh=operator == ZOH)
    function.enter()
    (function.scan if body == "scan" else function.chunked)()
    function.leave()
    return helper.make_function(
        DOMAIN,
        operator,
        list(INPUTS),
        ["y"],
        function.nodes,
        [helper.make_opsetid("", opset)],
        attribute_protos=[helper.make_attribute(k, v) for k, v in ATTRIBUTES.items()],
    )


class _Nodes:
    """Nodes in order, with names for what lies between them."""

    def __init__(self, prefix: str = "") -> None:
        self.nodes: list[NodeProto] = []
        self.prefix = prefix

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Append a node; the name of its first output."""
        return self.ops(kind, *inputs, outputs=1, **attributes)[0]

    def ops(self, kind: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        stem = f"{self.prefix}{kind.lower()}_{len(self.nodes)}"
        names = [stem if i == 0 else f"{stem}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def constant(self, value: Any) -> str:
        return self.op("Constant", value=numpy_helper.from_array(np.asarray(value)))

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))


class _Function(_Nodes):
    """Builds a body. Time-major sequences; a state is (..., N, D).

    Letters: T tokens of a chunk, c chunks. ``before`` of a shape is its leading axes: B, K, or
    B, K, c.
    """

    def __init__(self, zoh: bool) -> None:
        super().__init__()
        self.zoh = zoh

    def enter(self) -> None:
        """Gather everything into visiting order, (B, K, L, .) float32.

        The casts to float32 stand before the Gathers: with one behind, TensorRT for RTX 1.7 moves
        it into the loop, and then refuses to build what its parser took.
        """
        self.batch, self.length, self.channels = (self._side("u", i) for i in range(3))
        self.directions, self.state = self._side("A", 0), self._side("A", 2)
        self.one, self.rest = self.integers(1), self.integers(-1)
        self.rows = self.op("Mul", self.directions, self.length)
        zero = self.constant(np.int64(0))
        coded = self.op("Cast", "order", to=TensorProto.INT64)
        anew = self.op("Less", coded, zero)
        order = self.op("Where", anew, self.op("Sub", self.constant(np.int64(-1)), coded), coded)
        scalar = self.op("Squeeze", self.length, self.integers(0))
        times = self.op("Range", zero, scalar, self.constant(np.int64(1)))
        scalar = self.op("Squeeze", self.directions, self.integers(0))
        row = self.op("Range", zero, scalar, self.constant(np.int64(1)))
        first = self.op("Mul", self.op("Unsqueeze", row, self.one), self.length)
        self.flat = self.op("Reshape", self.op("Add", order, first), self.rest)
        times = self.op("Expand", times, self.op("Shape", order))
        inverse = self.op("ScatterElements", order, order, times, axis=1)
        self.inverse = self.op("Reshape", self.op("Add", inverse, first), self.rest)

        every = self.op("Reshape", order, self.rest)
        visited = self.op("Gather", self._float("u"), every, axis=1)
        u = self._split(visited, self.channels)
        self.B, self.C = (self._visit(x, self.state) for x in ("B", "C"))
        self.delta = self._visit("delta", self.channels)
        self.A = self.op("Transpose", "A", perm=[0, 2, 1])  # (K, N, D)
        anew = self.op("Unsqueeze", anew, self.integers(0, 3))  # (1, K, L, 1)
        if self.zoh:
            self.drive = u
            self.mask = self._float(self.op("Not", anew))
        else:
            self.drive = self.op("Mul", self.delta, u)
        big = self.constant(np.float32(STEP_OF_RESTART))
        self.decay = self.op("Where", anew, big, self.delta)

    def scan(self) -> None:
        """One Scan over L, the state (B, K, N, D)."""
        before = (self.batch, self.directions)

        def sequence(x: str, *shape: str) -> str:
            reshaped = self.op("Reshape", x, self._shape(*shape))
            return self.op("Transpose", reshaped, perm=[2, 0, 1, 3, 4])

        steps = self._sequences(sequence, (*before, self.length))
        ahead = sequence(self.C, *before, self.length, self.one, self.state)
        _, y = self._scan(self._zeros(*before), self.A, steps, ahead)
        self.y = self.op("Transpose", y, perm=[1, 2, 0, 3, 4])

    def chunked(self) -> None:
        """The last state of each chunk, the states between chunks, the outputs."""
        self.T = self.op("Min", self.length, self.integers(CHUNK))
        size = self.constant(np.int64(1))
        last = self.op("Sub", self.op("Add", self.length, self.T), size)
        self.c = self.op("Div", last, self.T)
        fill = self.op("Sub", self.op("Mul", self.c, self.T), self.length)
        zeros = self.integers(0, 0, 0, 0, 0, 0)
        pads = self.op("Concat", zeros, fill, self.integers(0), axis=0)
        before = (self.batch, self.directions, self.c)

        def chunk(x: str) -> str:
            return self.op("Pad", x, pads)

        def sequence(x: str, *shape: str) -> str:
            reshaped = self.op("Reshape", x, self._shape(*shape))
            return self.op("Transpose", reshaped, perm=[3, 0, 1, 2, 4, 5])

        self.B, self.C, self.drive = chunk(self.B), chunk(self.C), chunk(self.drive)
        self.decay, self.delta = chunk(self.decay), chunk(self.delta)
        if self.zoh:
            self.mask = chunk(self.mask)  # its padding keeps nothing and meets no output
        A = self.op("Unsqueeze", self.A, self.one)  # (K, 1, N, D)
        steps = self._sequences(sequence, (*before, self.T))
        # What a chunk adds to a state of zero, (B, K, c, N, D), and how it decays what enters it.
        (added,) = self._scan(self._zeros(*before), A, steps)
        long = self.op("Reshape", self.decay, self._shape(*before, self.T, self.channels))
        total = self.op("ReduceSum", long, self.integers(3), keepdims=1)  # (B, K, c, 1, D)
        turn = [2, 0, 1, 3, 4]
        between = [self.op("Transpose", x, perm=turn) for x in (total, added)]
        entering = self.op("Transpose", self._between(between), perm=[1, 2, 0, 3, 4])
        ahead = sequence(self.C, *before, self.T, self.one, self.state)
        _, y = self._scan(entering, A, steps, ahead)
        y = self.op("Transpose", y, perm=[1, 2, 3, 0, 4, 5])
        whole = self._shape(self.batch, self.directions, self.rest, self.channels)
        y = self.op("Reshape", y, whole)
        self.y = self.op("Slice", y, self.integers(0), self.length, self.integers(2))

    def leave(self) -> None:
        """Back to grid order and to u's type."""
        shape = self._shape(self.batch, self.rows, self.channels)
        y = self.op("Gather", self.op("Reshape", self.y, shape), self.inverse, axis=1)
        y = self._split(y, self.channels)
        self.nodes.append(helper.make_node("CastLike", [y, "u"], ["y"]))

    def _sequences(self, sequence: Any, lead: tuple[str, ...]) -> list[str]:
        """What a step reads, time-major: see :meth:`_step`."""
        wide = (*lead, self.one, self.channels)
        steps = [sequence(x, *wide) for x in (self.decay, self.drive)]
        steps.append(sequence(self.B, *lead, self.state, self.one))
        if self.zoh:
            steps[0] = sequence(self.delta, *wide)
            steps.append(sequence(self.mask, *(self.one, *lead[1:]), self.one, self.one))
        return steps

    def _scan(self, h: str, A: str, steps: list[str], ahead: str | None = None) -> list[str]:
        """ONNX Scan of the recurrence: the last state, and C h of each step if C is given."""
        inner = _Nodes("in_")
        names = ["in_h", "in_d", "in_x", "in_B"] + ["in_keep"] * self.zoh
        after = self._step(inner, A)
        outputs = [after]
        if ahead is not None:
            names.append("in_C")
            outputs.append(inner.op("MatMul", "in_C", after))
        return self.ops(
            "Scan",
            h,
            *steps,
            *([ahead] if ahead else []),
            outputs=len(outputs),
            body=_graph(inner.nodes, names, outputs),
            num_scan_inputs=len(names) - 1,
        )

    def _step(self, inner: _Nodes, A: str) -> str:
        """h_t from h_{t-1}, d_t, x_t, B_t (and keep_t)."""
        z = inner.op("Mul", "in_d", A)
        if not self.zoh:
            kept = inner.op("Mul", inner.op("Exp", z), "in_h")
            return inner.op("Add", kept, inner.op("Mul", "in_x", "in_B"))
        # exp(z) - 1 = 2 t / (1 - t) with t = tanh(z / 2): no digits are lost near 0.
        t = inner.op("Tanh", inner.op("Mul", z, inner.constant(np.float32(0.5))))
        one = inner.constant(np.float32(1))
        change = inner.op("Div", inner.op("Add", t, t), inner.op("Sub", one, t))
        kept = inner.op("Mul", inner.op("Add", change, one), inner.op("Mul", "in_h", "in_keep"))
        gain = inner.op("Mul", inner.op("Div", change, A), "in_B")
        return inner.op("Add", kept, inner.op("Mul", gain, "in_x"))

    def _between(self, steps: list[str]) -> str:
        """The state that enters each chunk, (c, B, K, N, D), from sums of steps and additions."""
        inner = _Nodes("in_")
        before = inner.op("Identity", "in_h")
        decay = inner.op("Exp", inner.op("Mul", "in_d", self.A))
        after = inner.op("Add", inner.op("Mul", decay, "in_h"), "in_x")
        body = _graph(inner.nodes, ["in_h", "in_d", "in_x"], [after, before])
        zeros = self._zeros(self.batch, self.directions)
        return self.ops("Scan", zeros, *steps, outputs=2, body=body, num_scan_inputs=2)[1]

    def _side(self, x: str, axis: int) -> str:
        return self.op("Shape", x, start=axis, end=axis + 1)

    def _shape(self, *sides: str) -> str:
        return self.op("Concat", *sides, axis=0)

    def _float(self, x: str) -> str:
        return self.op("Cast", x, to=TensorProto.FLOAT)

    def _split(self, x: str, last: str) -> str:
        """(B, K L, .) to (B, K, L, .)."""
        shape = self._shape(self.batch, self.directions, self.length, last)
        return self.op("Reshape", x, shape)

    def _visit(self, x: str, last: str) -> str:
        """(B, K, L, .) of the grid in visiting order, float32."""
        flat = self.op("Reshape", self._float(x), self._shape(self.batch, self.rows, last))
        return self._split(self.op("Gather", flat, self.flat, axis=1), last)

    def _zeros(self, *before: str) -> str:
        shape = self._shape(*before, self.state, self.channels)
        return self.op("Expand", self.constant(np.float32(0)), shape)


def _graph(nodes: list[NodeProto], inputs: list[str], outputs: list[str]) -> GraphProto:
    """The body of a Scan: float32, shapes left open."""

    def value(name: str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)

    return helper.make_graph(nodes, "step", [*map(value, inputs)], [*map(value, outputs)])
