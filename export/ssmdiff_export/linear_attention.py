"""Body ``linear-attention``: the scans as ONNX's own ``LinearAttention`` (opset 27), for GPUs.

    S_t = exp(g_t) S_{t-1} + k_t v_t^T        o_t = S_t^T q_t        update_rule "gated", scale 1

S is (d_k, d_v), one for each head. Both of our recurrences are of this form:

    selective scan, Euler   a head a channel   d_k = N, d_v = 1   g = delta A (N numbers a head)
    state space duality     H heads            d_k = N, d_v = P   g = delta A (one number a head)

    k = B, v = delta u, q = C

The operator knows no order: tokens are gathered into visiting order before it and put back behind
it. Nor does it know restarts: there the logarithm of the decay is :data:`RESTART`. Everything is
float32, whatever the precision of the file, as in the node that it stands for. ``past_state`` is
given though it is zero, since NVIDIA's kernels ask for it.
"""

from __future__ import annotations

import math

import onnx_ir as ir
import torch
import torch.nn.functional as F
from ssmdiff import ExportError, decode_order
from torch import Tensor

from ssmdiff_export.runtime.card import LINEAR_ATTENTION

OPERATOR = "LinearAttention"
OPSET = 27
"""The first that has the operator."""
RESTART = -128.0
"""exp(-128) is 0 in float32. No larger, because a kernel may add up the logarithms of a chunk, and
-1e30 among them would take the digits of all others."""


def selective_scan(
    u: Tensor,
    steps: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    order: Tensor,
    discretization: str = "euler",
) -> Tensor:
    """What the node ``ssmdiff::SelectiveScan`` computes; its inputs and its output.

    Args:
        u: (B, L, D).
        steps: (B, K, L, D) float32, after bias and softplus.
        A: (K, D, N) float32.
        B: (B, K, L, N).
        C: (B, K, L, N).
        order: (K, L) int32.
        discretization: ``euler``.

    Returns:
        (B, K, L, D) float32 in grid order.

    Raises:
        ExportError: The discretization is another.
    """
    if discretization != "euler":
        raise ExportError(
            f"body {LINEAR_ATTENTION!r}: ONNX's {OPERATOR} has no input factor "
            f"(exp(delta A) - 1) / A, so it is the scan under discretization 'euler' alone, and "
            f"this block has {discretization!r}. Give --body scan or chunked"
        )
    tokens, restart = decode_order(order)
    channels, state = A.shape[1:]
    value = _visit(steps * u.float()[:, None], tokens)
    decay = _visit(steps, tokens)[..., None] * A[:, None]  # (B, K, L, D, N)
    if restart is not None:
        decay = decay.masked_fill(restart[:, :, None, None], RESTART)
    key, query = (_visit(x.float(), tokens) for x in (B, C))
    y = _attend(query, key, value[..., None], decay, channels, state)
    return _leave(y.flatten(3), tokens)


def state_space_duality(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    dt_bias: Tensor,
    restart: Tensor | None = None,
    chunk: int = 64,
) -> Tensor:
    """Mamba-2's recurrence, in the place of the function that a block marks by this name.

    Args:
        x: (B, K, L, H, P) in visiting order.
        dt: (B, K, L, H) step sizes before bias and softplus.
        A: (K, H) negative.
        B: (B, K, L, N), shared by the heads.
        C: (B, K, L, N), shared by the heads.
        D: (K, H).
        dt_bias: (K, H).
        restart: (K, L) bool or None.
        chunk: Of no meaning here.

    Returns:
        (B, K, L, H, P) in x's dtype.
    """
    wide = x.float()
    steps = F.softplus(dt.float() + dt_bias.float()[:, None])
    decay = steps * A.float()[:, None]
    if restart is not None:
        decay = decay.masked_fill(restart[:, :, None], RESTART)
    value = wide * steps[..., None]
    y = _attend(C.float(), B.float(), value, decay[..., None], A.shape[1], B.shape[3])
    return (y + D.float()[:, None, :, None] * wide).to(x.dtype)


REPLACED = {"state-space-duality": state_space_duality}
"""For ``ssmdiff.nn.replacing``."""


def raise_opset(model: ir.Model) -> None:
    """Say that a model with the operator is of the opset that has it, and name its nodes.

    Between the opsets that we write and this one, operators that torch's exporter emits gained
    types and attributes with the old meaning as default; GroupNormalization, which did not, is not
    among them. The comparison with torch looks at the result.
    """
    nodes = [node for node in model.graph if node.op_type == OPERATOR and not node.domain]
    for i, node in enumerate(nodes):
        node.name = f"linear_attention_{i}"
    if nodes:
        model.opset_imports[""] = OPSET


def _attend(
    query: Tensor, key: Tensor, value: Tensor, decay: Tensor, heads: int, state: int
) -> Tensor:
    """The operator over (B, K, L, ...) in visiting order; directions lie beside the batch.

    Args:
        query: (B, K, L, N), the same for all heads.
        key: Likewise.
        value: (B, K, L, H, P).
        decay: (B, K, L, H, N), or (B, K, L, H, 1) for one number a head.
        heads: H.
        state: N.

    Returns:
        (B, K, L, H, P).
    """
    directions, length, _, width = value.shape[1:]
    packed = [
        x[:, :, :, None].expand(-1, -1, -1, heads, -1).reshape(-1, length, heads * state)
        for x in (query, key)
    ]
    packed += [x.reshape(-1, length, math.prod(x.shape[3:])) for x in (value, decay)]
    query, key, value, decay = packed
    past = value.new_zeros(value.shape[0], heads, state, width)
    # Without a version: torch's converter would have to lower it to the opset of the rest.
    y, _ = torch.onnx.ops.symbolic_multi_out(
        OPERATOR,
        (query, key, value, past, decay),
        {"update_rule": "gated", "scale": 1.0, "q_num_heads": heads, "kv_num_heads": heads},
        dtypes=(torch.float32, torch.float32),
        shapes=(value.shape, past.shape),
    )
    return y.reshape(-1, directions, length, heads, width)


def _visit(x: Tensor, tokens: Tensor) -> Tensor:
    """(B, K, L, D) in grid order to the same shape, each row in its own visiting order."""
    directions, length = tokens.shape
    first = torch.arange(directions, dtype=tokens.dtype)[:, None] * length
    rows = x.flatten(1, 2).index_select(1, (tokens + first).flatten())
    visited: Tensor = rows.unflatten(1, (directions, length))
    return visited


def _leave(x: Tensor, tokens: Tensor) -> Tensor:
    """(B, K, L, D) in visiting order back to grid order."""
    times = torch.arange(tokens.shape[1], dtype=tokens.dtype).expand_as(tokens)
    return _visit(x, torch.zeros_like(tokens).scatter(1, tokens.long(), times))
