# mypy: allow-untyped-defs, allow-incomplete-defs
"""What the passes of `triton_scan.py` share: the arithmetic of a step, and what a program reads.

Symbols as in `ssmdiff.ops.reference`. A program has h as a block (BLOCK_D, BLOCK_N) in registers,
channels by states; what belongs to a channel is spread over the second axis, what belongs to a
state over the first.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ssmdiff_kernels import constants

LOG2_E, LN_2 = tl.constexpr(constants.LOG2_E), tl.constexpr(constants.LN_2)
L0, L1, L2, L3, L4 = map(tl.constexpr, constants.ATANH)


@triton.jit
def step_size(raw, SOFTPLUS: tl.constexpr):
    """d and its derivative by delta + delta_bias, both relatively accurate on either side of 0.

    With w = exp(-|x|) and s = w / (2 + w): softplus = max(x, 0) + 2 atanh(s).
    """
    if SOFTPLUS:
        w = tl.exp2(-tl.abs(raw) * LOG2_E)
        s = w / (w + 2.0)
        v = s * s
        log1p = L0 + v * (L1 + v * (L2 + v * (L3 + v * L4)))
        d = tl.where(raw < 0, 0.0, raw) + s * log1p
        slope = tl.where(raw < 0, w, 1.0) / (w + 1.0)
    else:
        d = raw
        slope = tl.zeros_like(raw) + 1.0
    return d, slope


@triton.jit
def zoh_gain(d, a, A2):
    """b over B for zoh: (a - 1) / A, which is d in the limit A = 0. A2 = A log2(e)."""
    z = d[:, None] * (A2 * LN_2)
    # The sum of z^n / (n + 1)!, where a - 1 cancels
    near = 1 / 5040 + z * (1 / 40320 + z * (1 / 362880))
    near = 1 / 6 + z * (1 / 24 + z * (1 / 120 + z * (1 / 720 + z * near)))
    near = 1 + z * (1 / 2 + z * near)
    far = (a - 1.0) / tl.where(z == 0, 1.0, z)
    return d[:, None] * tl.where(tl.abs(z) < 0.5, near, far)


@triton.jit
def driven(d, a, A2, B_t, x, ZOH: tl.constexpr):
    """b u: what a step adds to the state."""
    if ZOH:
        bu = zoh_gain(d, a, A2) * (B_t[None, :] * x[:, None])
    else:
        bu = B_t[None, :] * (d * x)[:, None]
    return bu


@triton.jit
def zoh_gain_slope(d, a, A2):
    """The derivative of the zoh gain by A: d^2 (z a - a + 1) / z^2."""
    z = d[:, None] * (A2 * LN_2)
    # The sum of z^n / (n! (n + 2)), where the closed form cancels
    near = 1 / 5760 + z * (1 / 45360 + z * (1 / 403200))
    near = 1 / 8 + z * (1 / 30 + z * (1 / 144 + z * (1 / 840 + z * near)))
    near = 1 / 2 + z * (1 / 3 + z * near)
    far = (z * a - (a - 1.0)) / tl.where(z == 0, 1.0, z * z)
    return (d * d)[:, None] * tl.where(tl.abs(z) < 0.5, near, far)


@triton.jit
def place(blocks, chunks):
    """(image, direction) as one number, chunk and block of this program; all in one grid axis."""
    program = tl.program_id(0)
    return program // (chunks * blocks), (program // blocks) % chunks, program % blocks


@triton.jit
def numbers(block, D, N, BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr):
    """Channels, states, where each of a block lies within (D, N), and whether it exists."""
    channel, state = block * BLOCK_D + tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_N)
    inside = (channel < D)[:, None] & (state < N)[None, :]
    return channel, state, channel[:, None] * N + state[None, :], inside


@triton.jit
def load_A(A, inside):
    """A of a block times log2(e), zeros outside; no infinity, since steps behind the end are 0."""
    A2 = tl.load(A, inside, other=0.0) * LOG2_E
    return tl.where(A2 < -3e38, -3e38, A2)


@triton.jit
def load_tokens(order, time, left, SPAN: tl.constexpr):
    """The tokens of SPAN steps, of which ``left`` exist."""
    tokens = ()
    for i in tl.static_range(SPAN):
        coded = tl.load(order + time + i, i < left, other=0)
        token = (coded ^ (coded >> 31)).to(tl.int64)  # -1 - token has all bits turned
        tokens = tokens + (token,)  # type: ignore[assignment] # noqa: RUF005
    return tokens


@triton.jit
def load_rows(pointer, tokens, left, stride, index, size, SPAN: tl.constexpr):
    """The rows of these tokens, zeros outside and for steps that do not exist."""
    rows = ()
    for i in tl.static_range(SPAN):
        mask = index < tl.where(i < left, size, 0)
        values = tl.load(pointer + tokens[i] * stride + index, mask, other=0.0)
        rows = rows + (values,)  # type: ignore[assignment] # noqa: RUF005
    return rows


@triton.jit
def step(raw, offset, exists, SOFTPLUS: tl.constexpr):
    """d and its derivative; a step that does not exist is 0 and changes nothing."""
    d, slope = step_size(raw.to(tl.float32) + offset, SOFTPLUS)
    return tl.where(exists, d, 0.0), slope


@triton.jit
def restarts_at(order, time, stop):
    """Whether the state is zeroed before this time."""
    return tl.load(order + time, time < stop, other=0) < 0


@triton.jit
def passed(total, A2, RESTART: tl.constexpr):
    """What is left of a state after steps of this sum; an infinite one tells of a restart."""
    if RESTART:
        broken = total == float("inf")
        decay = tl.where(broken, 0.0, tl.exp2(A2 * tl.where(broken, 0.0, total)))
    else:
        decay = tl.exp2(A2 * total)
    return decay
