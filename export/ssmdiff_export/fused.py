"""Operators of more than one node of ONNX, each a function of plain ones.

Our library for ONNX Runtime computes each in one pass over the graph's own layout, channels last
between projections; every other runtime runs the function. All float32.

    CrossScan, CrossScanZoh   inputs  u (B, L, D)   x (B, L, K (R + 2 N))   W (K, R, D)
                                      bias (K, D)   A (K, D, N)   order (K, L)   skip (D,)
                              output  y (B, L, D), the sum of all directions, and u skip

A row of x holds the low rank of delta, B and C of each direction, one after the other:
delta = softplus(low W + bias), and the scan is that of ``SelectiveScan``, a node in the function.

    DepthwiseConv, DepthwiseConvSilu        x (B, H, W, C), weight (C, 1, side, side), bias (C)
    GroupNormSilu, TimedGroupNormSilu       x (B, C, H, W), gamma and beta (groups, C / groups),
                                            and factor, shift (B, C, 1, 1), after the norm
    Softplus                                x (B, K, L, D)
"""

from __future__ import annotations

from onnx import FunctionProto, parser

from ssmdiff_export.runtime.card import ATTRIBUTES, DOMAIN, DOMAIN_VERSION, OPERATORS

CROSS_SCANS = {scan: scan.replace("Selective", "Cross") for scan in OPERATORS.values()}
"""The operator with the projections, by that of the scan alone."""
DEPTHWISE, DEPTHWISE_SILU = "DepthwiseConv", "DepthwiseConvSilu"
GROUP_NORM, TIMED_GROUP_NORM = "GroupNormSilu", "TimedGroupNormSilu"
SOFTPLUS = "Softplus"

_CROSS_SCAN = """
    K = Shape <start = 0, end = 1> (A)
    R = Shape <start = 1, end = 2> (W)
    N = Shape <start = 2, end = 3> (A)
    kept = Constant <value_ints = [0, 0]> ()
    rest = Constant <value_ints = [-1]> ()
    sides = Concat <axis = 0> (kept, K, rest)
    rows = Reshape (x, sides)
    parts = Transpose <perm = [0, 2, 1, 3]> (rows)
    sizes = Concat <axis = 0> (R, N, N)
    low, B, C = Split <axis = 3> (parts, sizes)
    raw = MatMul (low, W)
    one = Constant <value_ints = [1]> ()
    offset = Unsqueeze (bias, one)
    moved = Add (raw, offset)
    delta = ssmdiff.Softplus (moved)
    each = ssmdiff.{scan} <{attributes}> (u, delta, A, B, C, order)
    sum = ReduceSum <keepdims = 0> (each, one)
    skipped = Mul (u, skip)
    y = Add (sum, skipped)
"""
# ONNX Runtime's own node takes 32 ns for a number, the whole of this two. With w = exp(-|x|) and
# s = w / (2 + w), log(1 + exp(x)) is max(x, 0) + 2 atanh(s); error of the polynomial 1.7e-7.
_SOFTPLUS = """
    size = Abs (x)
    below = Neg (size)
    w = Exp (below)
    two = Constant <value_float = 2.0> ()
    more = Add (w, two)
    s = Div (w, more)
    v = Mul (s, s)
    c3 = Constant <value_float = 0.34226051> ()
    c2 = Constant <value_float = 0.39589462> ()
    c1 = Constant <value_float = 0.66676003> ()
    c0 = Constant <value_float = 1.99999964> ()
    p3 = Mul (v, c3)
    p2 = Add (p3, c2)
    q2 = Mul (v, p2)
    p1 = Add (q2, c1)
    q1 = Mul (v, p1)
    p0 = Add (q1, c0)
    rest = Mul (s, p0)
    kept = Relu (x)
    y = Add (kept, rest)
"""
_DEPTHWISE = """
    map = Transpose <perm = [0, 3, 1, 2]> (x)
    mixed = Conv <group: int = @group, pads: ints = @pads> (map, weight, bias)
    {y} = Transpose <perm = [0, 2, 3, 1]> (mixed)
"""
_SILU = """
    open = Sigmoid (z)
    y = Mul (z, open)
"""
_GROUP_NORM = """
    groups = Shape <start = 0, end = 1> (gamma)
    kept = Constant <value_ints = [0]> ()
    rest = Constant <value_ints = [-1]> ()
    sides = Concat <axis = 0> (kept, groups, rest)
    rows = Reshape (x, sides)
    ones = ConstantOfShape <value = float[1] {{1.0}}> (groups)
    zeros = ConstantOfShape <value = float[1] {{0.0}}> (groups)
    normed = InstanceNormalization <epsilon: float = @epsilon> (rows, ones, zeros)
    shape = Shape (x)
    map = Reshape (normed, shape)
    column = Constant <value_ints = [-1, 1, 1]> ()
    slopes = Reshape (gamma, column)
    offsets = Reshape (beta, column)
    sloped = Mul (map, slopes)
    {z} = Add (sloped, offsets)
"""
_TIMED = """
    timed = Mul (plain, factor)
    z = Add (timed, shift)
"""


def _attributes() -> str:
    quoted = (f'{k} = "{v}"' if isinstance(v, str) else f"{k} = {v}" for k, v in ATTRIBUTES.items())
    return ", ".join(quoted)


_BODIES: dict[str, tuple[str, str, str]] = {
    **{
        cross: (
            "u, x, W, bias, A, order, skip",
            "",
            _CROSS_SCAN.format(scan=scan, attributes=_attributes()),
        )
        for scan, cross in CROSS_SCANS.items()
    },
    SOFTPLUS: ("x", "", _SOFTPLUS),
    DEPTHWISE: ("x, weight, bias", "<group, pads>", _DEPTHWISE.format(y="y")),
    DEPTHWISE_SILU: ("x, weight, bias", "<group, pads>", _DEPTHWISE.format(y="z") + _SILU),
    GROUP_NORM: ("x, gamma, beta", "<epsilon>", _GROUP_NORM.format(z="z") + _SILU),
    TIMED_GROUP_NORM: (
        "x, gamma, beta, factor, shift",
        "<epsilon>",
        _GROUP_NORM.format(z="plain") + _TIMED + _SILU,
    ),
}
"""Inputs, attributes and nodes of each."""


def fused_function(operator: str, opset: int) -> FunctionProto:
    """The function of one of these operators, for a graph of an opset of ONNX."""
    inputs, attributes, nodes = _BODIES[operator]
    opsets = f'"" : {opset}, "{DOMAIN}" : {DOMAIN_VERSION}'
    text = (
        f'<domain: "{DOMAIN}", opset_import: [{opsets}]>\n'
        f"{operator} {attributes} ({inputs}) => (y) {{{nodes}}}"
    )
    function: FunctionProto = parser.parse_function(text)
    return function
