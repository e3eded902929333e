# mypy: allow-untyped-defs, allow-incomplete-defs
"""The passes of the selective scan in Triton; `triton_kernel.py` launches them.

The tokens of a direction, in the order of its walk, are cut into chunks of T, and the channels into
blocks of BLOCK_D. A program, a warp where N is at most 16, does one chunk of one block of one
(image, direction), and has h as a block (N, BLOCK_D) in registers.

    chunk_ends       h at the end of each chunk that starts from h = 0, and the sum of d
    chunk_adjoints   the same for dh, backwards in time: dh before each chunk that ends with dh = 0
    carry            from these, h (or dh) at the start (or end) of each chunk: the decay over a
                     chunk is exp(A sum d), or 0 where a restart lies in it
    outputs          y of each direction, (B, K, L, D): no two programs write to one place
    merge            y, summed over k in a fixed order
    gradients        all gradients of a chunk; what is summed over channels, chunks or images is
                     left as one part for each program

Symbols as in `ssmdiff.ops.reference`. Arithmetic is float32. There are no atomics, and each sum has
one order. Arrays that are N x D for a chunk are stored with D last.
"""

from __future__ import annotations

import os

import triton
import triton.language as tl

from ssmdiff_kernels import constants

LOG2_E, LN_2 = tl.constexpr(constants.LOG2_E), tl.constexpr(constants.LN_2)
L0, L1, L2, L3, L4 = map(tl.constexpr, constants.ATANH)

# Only where nothing is summed over n or channels within a program: a sum's order, and so its last
# bit, follows from how the compiler lays a block out over lanes and warps.
_CONFIGS = [
    triton.Config({"BLOCK_D": 32}, num_warps=1),
    triton.Config({"BLOCK_D": 64}, num_warps=1),
    triton.Config({"BLOCK_D": 64}, num_warps=2),
    triton.Config({"BLOCK_D": 128}, num_warps=4),
]
# The interpreter has nothing to time.
_tuned = triton.autotune(
    _CONFIGS[:1] if os.environ.get("TRITON_INTERPRET") == "1" else _CONFIGS,
    key=["D", "N", "ZOH", "SOFTPLUS", "RESTART"],
)


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
    z = d[None, :] * (A2 * LN_2)
    # The sum of z^n / (n + 1)!, where a - 1 cancels
    near = 1 / 5040 + z * (1 / 40320 + z * (1 / 362880))
    near = 1 / 6 + z * (1 / 24 + z * (1 / 120 + z * (1 / 720 + z * near)))
    near = 1 + z * (1 / 2 + z * near)
    far = (a - 1.0) / tl.where(z == 0, 1.0, z)
    return d[None, :] * tl.where(tl.abs(z) < 0.5, near, far)


@triton.jit
def driven(d, a, A2, B_t, x, ZOH: tl.constexpr):
    """b u: what a step adds to the state."""
    if ZOH:
        bu = zoh_gain(d, a, A2) * (B_t[:, None] * x[None, :])
    else:
        bu = B_t[:, None] * (d * x)[None, :]
    return bu


@triton.jit
def zoh_gain_slope(d, a, A2):
    """The derivative of the zoh gain by A: d^2 (z a - a + 1) / z^2."""
    z = d[None, :] * (A2 * LN_2)
    # The sum of z^n / (n! (n + 2)), where the closed form cancels
    near = 1 / 5760 + z * (1 / 45360 + z * (1 / 403200))
    near = 1 / 8 + z * (1 / 30 + z * (1 / 144 + z * (1 / 840 + z * near)))
    near = 1 / 2 + z * (1 / 3 + z * near)
    far = (z * a - (a - 1.0)) / tl.where(z == 0, 1.0, z * z)
    return (d * d)[None, :] * tl.where(tl.abs(z) < 0.5, near, far)


@triton.jit
def place(blocks, chunks):
    """(image, direction) as one number, chunk and block of this program; all in one grid axis."""
    program = tl.program_id(0)
    return program // (chunks * blocks), (program // blocks) % chunks, program % blocks


@triton.jit
def load_A(A, k, channel, state, D, N):
    """A of a block, (BLOCK_N, BLOCK_D), times log2(e), zeros outside; A is (K, N, D)."""
    inside = (state < N)[:, None] & (channel < D)[None, :]
    at = (k * N + state)[:, None] * D + channel[None, :]
    return tl.load(A + at, inside, other=0.0) * LOG2_E


@triton.jit
def load_row(pointer, row, index, size):
    """``pointer[row, index]`` in float32, zeros at indices not below ``size``."""
    return tl.load(pointer + row * size + index, index < size, other=0.0).to(tl.float32)


@triton.jit
def after_restart(state, restart, time, RESTART: tl.constexpr):
    """The state, or zeros if it restarts before this time."""
    if RESTART:
        state = tl.where(tl.load(restart + time) != 0, 0.0, state)
    return state


@_tuned
@triton.jit
def chunk_ends(
    u, delta, A, B, order, restart, bias, ends, sums,
    K, L, D, N, chunks, T,
    BLOCK_N: tl.constexpr, SOFTPLUS: tl.constexpr, ZOH: tl.constexpr, RESTART: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """h at the end of each chunk that starts from h = 0, and the sum of d over the chunk.

    ``ends`` (B, K, chunks, N, D), ``sums`` (B, K, chunks, D).
    """
    bk, chunk, block = place(tl.cdiv(D, BLOCK_D), chunks)
    image, k = (bk // K).to(tl.int64), bk % K
    channel, state = block * BLOCK_D + tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_N)
    A2, offset = load_A(A, k, channel, state, D, N), load_row(bias, k, channel, D)
    first, stop = chunk * T, tl.minimum(chunk * T + T, L)
    rows = bk.to(tl.int64) * L
    h = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    total = tl.zeros((BLOCK_D,), tl.float32)
    # What a step reads is asked for one step ahead, its token two.
    token = tl.load(order + k * L + first)
    next_token = tl.load(order + k * L + tl.minimum(first + 1, stop - 1))
    raw, x = load_row(delta, rows + token, channel, D), load_row(u, image * L + token, channel, D)
    B_t = load_row(B, rows + token, state, N)
    for t in range(first, stop):
        token = next_token
        next_token = tl.load(order + k * L + tl.minimum(t + 2, stop - 1))
        next_raw = load_row(delta, rows + token, channel, D)
        next_x = load_row(u, image * L + token, channel, D)
        next_B = load_row(B, rows + token, state, N)
        d, _ = step_size(raw + offset, SOFTPLUS)
        a = tl.exp2(d[None, :] * A2)
        h = after_restart(h, restart, k * L + t, RESTART)
        h = a * h + driven(d, a, A2, B_t, x, ZOH)
        total += d
        raw, x, B_t = next_raw, next_x, next_B
    at = bk.to(tl.int64) * chunks + chunk
    inside = (state < N)[:, None] & (channel < D)[None, :]
    tl.store(ends + (at * N + state)[:, None] * D + channel[None, :], h, inside)
    tl.store(sums + at * D + channel, total, channel < D)


@_tuned
@triton.jit
def chunk_adjoints(
    dy, delta, A, C, order, restart, bias, adjoints,
    K, L, D, N, chunks, T,
    BLOCK_N: tl.constexpr, SOFTPLUS: tl.constexpr, ZOH: tl.constexpr, RESTART: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """dh before each chunk after which dh = 0, ``adjoints`` (B, K, chunks, N, D)."""
    bk, chunk, block = place(tl.cdiv(D, BLOCK_D), chunks)
    image, k = (bk // K).to(tl.int64), bk % K
    channel, state = block * BLOCK_D + tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_N)
    A2, offset = load_A(A, k, channel, state, D, N), load_row(bias, k, channel, D)
    first, stop = chunk * T, tl.minimum(chunk * T + T, L)
    rows = bk.to(tl.int64) * L
    dh = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    token = tl.load(order + k * L + stop - 1)
    next_token = tl.load(order + k * L + tl.maximum(stop - 2, first))
    raw, g = load_row(delta, rows + token, channel, D), load_row(dy, image * L + token, channel, D)
    C_t = load_row(C, rows + token, state, N)
    for back in range(stop - first):
        t = stop - 1 - back
        token = next_token
        next_token = tl.load(order + k * L + tl.maximum(t - 2, first))
        next_raw = load_row(delta, rows + token, channel, D)
        next_g = load_row(dy, image * L + token, channel, D)
        next_C = load_row(C, rows + token, state, N)
        d, _ = step_size(raw + offset, SOFTPLUS)
        dh = (dh + C_t[:, None] * g[None, :]) * tl.exp2(d[None, :] * A2)
        dh = after_restart(dh, restart, k * L + t, RESTART)
        raw, g, C_t = next_raw, next_g, next_C
    at = (bk.to(tl.int64) * chunks + chunk) * N
    inside = (state < N)[:, None] & (channel < D)[None, :]
    tl.store(adjoints + (at + state)[:, None] * D + channel[None, :], dh, inside)


@triton.jit
def carry(
    states, sums, A, broken,
    K, D, N, chunks,
    RESTART: tl.constexpr, BACKWARDS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Replace what each chunk adds to the state by the state that enters the chunk.

    Backwards: what it adds to the adjoint by the adjoint after it. ``states`` (B, K, chunks, N, D),
    ``sums`` (B, K, chunks, D), ``broken`` (K, chunks) uint8: a restart lies in the chunk. A program
    does BLOCK of the N D numbers of one (image, direction).
    """
    blocks = tl.cdiv(N * D, BLOCK)
    bk, element = tl.program_id(0) // blocks, tl.program_id(0) % blocks * BLOCK
    element += tl.arange(0, BLOCK)
    inside, k, first = element < N * D, bk % K, bk.to(tl.int64) * chunks
    A2 = tl.load(A + k * N * D + element, inside, other=0.0) * LOG2_E
    h = tl.zeros((BLOCK,), tl.float32)
    for i in range(chunks):
        chunk = chunks - 1 - i if BACKWARDS else i
        at = states + (first + chunk) * N * D + element
        added = tl.load(at, inside, other=0.0)
        total = tl.load(sums + (first + chunk) * D + element % D, inside, other=0.0)
        tl.store(at, h, inside)
        h = added + after_restart(tl.exp2(A2 * total) * h, broken, k * chunks + chunk, RESTART)


@triton.jit
def outputs(
    u, delta, A, B, C, order, restart, bias, starts, y,
    K, L, D, N, chunks, T,
    BLOCK_N: tl.constexpr, SOFTPLUS: tl.constexpr, ZOH: tl.constexpr, RESTART: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """y of each direction without the skip, (B, K, L, D), from h at the start of each chunk."""
    bk, chunk, block = place(tl.cdiv(D, BLOCK_D), chunks)
    image, k = (bk // K).to(tl.int64), bk % K
    channel, state = block * BLOCK_D + tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_N)
    A2, offset = load_A(A, k, channel, state, D, N), load_row(bias, k, channel, D)
    first, stop = chunk * T, tl.minimum(chunk * T + T, L)
    rows = bk.to(tl.int64) * L
    h = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    if chunks > 1:
        at = ((bk.to(tl.int64) * chunks + chunk) * N + state)[:, None] * D + channel[None, :]
        h = tl.load(starts + at, (state < N)[:, None] & (channel < D)[None, :], other=0.0)
    token = tl.load(order + k * L + first)
    next_token = tl.load(order + k * L + tl.minimum(first + 1, stop - 1))
    raw, x = load_row(delta, rows + token, channel, D), load_row(u, image * L + token, channel, D)
    B_t, C_t = load_row(B, rows + token, state, N), load_row(C, rows + token, state, N)
    for t in range(first, stop):
        here, token = token, next_token
        next_token = tl.load(order + k * L + tl.minimum(t + 2, stop - 1))
        next_raw = load_row(delta, rows + token, channel, D)
        next_x = load_row(u, image * L + token, channel, D)
        next_B, next_C = load_row(B, rows + token, state, N), load_row(C, rows + token, state, N)
        d, _ = step_size(raw + offset, SOFTPLUS)
        a = tl.exp2(d[None, :] * A2)
        h = after_restart(h, restart, k * L + t, RESTART)
        h = a * h + driven(d, a, A2, B_t, x, ZOH)
        tl.store(y + (rows + here) * D + channel, tl.sum(h * C_t[:, None], 0), channel < D)
        raw, x, B_t, C_t = next_raw, next_x, next_B, next_C


@triton.jit
def merge(
    parts, x, skip, y, K, size, D, BLOCK: tl.constexpr,
):  # fmt: skip
    """y = x skip + the sum over k of ``parts`` (B, K, L, D), in y's dtype; ``size`` is L D."""
    blocks = tl.cdiv(size, BLOCK)
    image = (tl.program_id(0) // blocks).to(tl.int64)
    element = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    inside = element < size
    weight = tl.load(skip + element % D, inside, other=0.0)
    total = weight * tl.load(x + image * size + element, inside, other=0.0).to(tl.float32)
    for k in range(K):
        total += tl.load(parts + (image * K + k) * size + element, inside, other=0.0)
    tl.store(y + image * size + element, total, inside)


@triton.jit
def gradients(
    u, delta, A, B, C, order, restart, bias, dy, starts, adjoints, inner,
    du, ddelta, dB, dC, dA, dbias,
    K, L, D, N, chunks, T,
    BLOCK_N: tl.constexpr, SOFTPLUS: tl.constexpr, ZOH: tl.constexpr, RESTART: tl.constexpr,
    BLOCK_D: tl.constexpr, SPAN: tl.constexpr,
):  # fmt: skip
    """All gradients of a chunk, from h before it and dh after it.

    The states are computed anew: first those at the start of every SPAN steps, kept in ``inner``
    (B, K, L / SPAN, N, D), then, walking back, those within a span, which stay in registers.

    ``du`` (B, K, L, D) of each direction, without the skip's; ``ddelta`` (B, K, L, D); ``dB`` and
    ``dC`` (blocks, B, K, L, N), of each block of channels; ``dA`` (B, K, chunks, N, D) and
    ``dbias`` (B, K, chunks, D), of each chunk. T is a multiple of SPAN.
    """
    bk, chunk, block = place(tl.cdiv(D, BLOCK_D), chunks)
    image, k = (bk // K).to(tl.int64), bk % K
    channel, state = block * BLOCK_D + tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_N)
    inside = (state < N)[:, None] & (channel < D)[None, :]
    within = state[:, None] * D + channel[None, :]
    A2, offset = load_A(A, k, channel, state, D, N), load_row(bias, k, channel, D)
    first, stop = chunk * T, tl.minimum(chunk * T + T, L)
    rows = bk.to(tl.int64) * L
    # dB and dC of block 0 come first, then those of block 1, ...
    images = tl.num_programs(0) // (chunks * tl.cdiv(D, BLOCK_D))
    part = (block.to(tl.int64) * images + bk) * L
    kept = inner + (bk.to(tl.int64) * tl.cdiv(L, SPAN) + chunk * (T // SPAN)) * N * D + within
    h = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    dh = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    at = (bk.to(tl.int64) * chunks + chunk) * N * D + within
    if chunks > 1:
        h = tl.load(starts + at, inside, other=0.0)
        dh = tl.load(adjoints + at, inside, other=0.0)
    for t in range(first, stop):
        if (t - first) % SPAN == 0:
            tl.store(kept + (t - first) // SPAN * N * D, h, inside)
        token = tl.load(order + k * L + t)
        d, _ = step_size(load_row(delta, rows + token, channel, D) + offset, SOFTPLUS)
        x = load_row(u, image * L + token, channel, D)
        B_t = load_row(B, rows + token, state, N)
        a = tl.exp2(d[None, :] * A2)
        h = after_restart(h, restart, k * L + t, RESTART)
        h = a * h + driven(d, a, A2, B_t, x, ZOH)
    tl.debug_barrier()  # a lane may read from `inner` what another one wrote

    sum_dA = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    sum_dbias = tl.zeros((BLOCK_D,), tl.float32)
    spans = tl.cdiv(stop - first, SPAN)
    for back in range(spans):
        span = spans - 1 - back
        h = tl.load(kept + span * N * D, inside, other=0.0)
        before = ()  # the state that enters each step, after any restart
        for i in tl.static_range(SPAN):
            t = first + span * SPAN + i
            valid = t < stop  # steps behind the end change nothing and are not stored
            token = tl.load(order + k * L + tl.minimum(t, stop - 1))
            d, _ = step_size(load_row(delta, rows + token, channel, D) + offset, SOFTPLUS)
            d = tl.where(valid, d, 0.0)
            x = load_row(u, image * L + token, channel, D)
            B_t = load_row(B, rows + token, state, N)
            a = tl.exp2(d[None, :] * A2)
            h = after_restart(h, restart, k * L + tl.minimum(t, stop - 1), RESTART)
            before = before + (h,)  # type: ignore[assignment] # noqa: RUF005
            h = a * h + driven(d, a, A2, B_t, x, ZOH)
        for i in tl.static_range(SPAN):
            t = first + span * SPAN + SPAN - 1 - i
            if t < stop:
                token = tl.load(order + k * L + t)
                raw = load_row(delta, rows + token, channel, D) + offset
                d, slope = step_size(raw, SOFTPLUS)
                x = load_row(u, image * L + token, channel, D)
                g = load_row(dy, image * L + token, channel, D)
                B_t, C_t = load_row(B, rows + token, state, N), load_row(C, rows + token, state, N)
                a = tl.exp2(d[None, :] * A2)
                ah = a * before[SPAN - 1 - i]
                dh += C_t[:, None] * g[None, :]
                dz = dh * ah
                sum_dA += dz * d[None, :]
                if ZOH:
                    b = zoh_gain(d, a, A2)
                    dx = tl.sum(dh * b * B_t[:, None], 0)
                    dd = x * tl.sum(dh * a * B_t[:, None], 0)
                    sum_dA += dh * (B_t[:, None] * x[None, :]) * zoh_gain_slope(d, a, A2)
                    dB_t = tl.sum(dh * b * x[None, :], 1)
                else:
                    dd = tl.sum(dh * B_t[:, None], 0)
                    dx, dd = d * dd, x * dd
                    dB_t = tl.sum(dh * (d * x)[None, :], 1)
                dC_t = tl.sum((ah + driven(d, a, A2, B_t, x, ZOH)) * g[None, :], 1)
                dd = (dd + LN_2 * tl.sum(dz * A2, 0)) * slope
                sum_dbias += dd
                row = rows + token
                tl.store(du + row * D + channel, dx, channel < D)
                tl.store(ddelta + row * D + channel, dd, channel < D)
                tl.store(dB + (part + token) * N + state, dB_t, state < N)
                tl.store(dC + (part + token) * N + state, dC_t, state < N)
                dh *= a
                dh = after_restart(dh, restart, k * L + t, RESTART)
    tl.store(dA + at, sum_dA, inside)
    tl.store(dbias + (bk.to(tl.int64) * chunks + chunk) * D + channel, sum_dbias, channel < D)
