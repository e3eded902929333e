# mypy: allow-untyped-defs, allow-incomplete-defs
"""The passes of the selective scan in Triton; `triton_kernel.py` launches them.

The tokens of a direction, in the order of its walk, are cut into chunks of T, and the channels into
blocks of BLOCK_D. A program, a warp where N is at most 16, does one chunk of one block of one
(image, direction), and has h as a block (BLOCK_D, N) in registers.

    chunk_ends       h at the end of each chunk that starts from h = 0, and the sum of d
    chunk_adjoints   the same for dh, backwards in time: dh before each chunk that ends with dh = 0
    carry            from these, h (or dh) at the start (or end) of each chunk: the decay over a
                     chunk is exp(A sum d), or 0 where a restart lies in it
    outputs          y of each direction, (B, K, L, D): no two programs write to one place
    merge            y, summed over k in a fixed order
    gradients        all gradients of a chunk; what is summed over channels, chunks or images is
                     left as one part for each program

Arithmetic is float32. There are no atomics, and each sum has one order. N is the innermost axis of
A and of whatever is N x D for a chunk, as the compiler lays a block out by how it is read: a lane
then has four states of some channels, which it reads of B and C in one piece, and neither sum, over
states or over channels, goes through all lanes.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ssmdiff_kernels.triton_parts import (
    LN_2,
    driven,
    load_A,
    load_rows,
    load_tokens,
    numbers,
    passed,
    place,
    restarts_at,
    step,
    zoh_gain,
    zoh_gain_slope,
)


@triton.jit
def chunk_ends(
    u, delta, A, B, order, bias, ends, sums, inner, inner_sums,
    K, L, D, N, chunks, T, per_image, per_direction, per_token,
    BLOCK_N: tl.constexpr, SOFTPLUS: tl.constexpr, ZOH: tl.constexpr, RESTART: tl.constexpr,
    BLOCK_D: tl.constexpr, SPAN: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """h at the end of each chunk that starts from h = 0, and the sum of d over the chunk.

    ``ends`` (B, K, chunks, D, N); ``sums`` (B, K, chunks, D), infinite after a restart. With KEEP
    for all chunks, and both also before every SPAN steps: ``inner`` (B, K, L / SPAN, D, N) and
    ``inner_sums`` (B, K, L / SPAN, D). Without, not for the last, whose end is nobody's start.
    """
    bk, chunk, block = place(tl.cdiv(D, BLOCK_D), chunks if KEEP else chunks - 1)
    image, k = (bk // K).to(tl.int64), bk % K
    channel, state, within, inside = numbers(block, D, N, BLOCK_D, BLOCK_N)
    A2 = load_A(A + k * D * N + within, inside)
    offset = tl.load(bias + k * D + channel, channel < D, other=0.0)
    first, stop = chunk * T, tl.minimum(chunk * T + T, L)
    delta += bk.to(tl.int64) * L * D
    u += image * L * D
    B += image * per_image + k * per_direction
    order += k * L
    kept = bk.to(tl.int64) * tl.cdiv(L, SPAN) + chunk * (T // SPAN)
    h = tl.zeros((BLOCK_D, BLOCK_N), tl.float32)
    total = tl.zeros((BLOCK_D,), tl.float32)
    # What a span reads is asked for one span ahead.
    tokens = load_tokens(order, first, stop - first, SPAN)
    raw = load_rows(delta, tokens, stop - first, D, channel, D, SPAN)
    x = load_rows(u, tokens, stop - first, D, channel, D, SPAN)
    B_t = load_rows(B, tokens, stop - first, per_token, state, N, SPAN)
    for start in range(first, stop, SPAN):
        if KEEP:
            tl.store(inner + kept * D * N + within, h, inside)
            tl.store(inner_sums + kept * D + channel, total, channel < D)
            kept += 1
        left = stop - start - SPAN
        tokens = load_tokens(order, start + SPAN, left, SPAN)
        next_raw = load_rows(delta, tokens, left, D, channel, D, SPAN)
        next_x = load_rows(u, tokens, left, D, channel, D, SPAN)
        next_B = load_rows(B, tokens, left, per_token, state, N, SPAN)
        for i in tl.static_range(SPAN):
            d, _ = step(raw[i], offset, start + i < stop, SOFTPLUS)
            a = tl.exp2(d[:, None] * A2)
            total += d
            if RESTART:
                restart = restarts_at(order, start + i, stop)
                h, total = tl.where(restart, 0.0, h), tl.where(restart, float("inf"), total)
            h = a * h + driven(d, a, A2, B_t[i].to(tl.float32), x[i].to(tl.float32), ZOH)
        raw, x, B_t = next_raw, next_x, next_B
    at = bk.to(tl.int64) * chunks + chunk
    tl.store(ends + at * D * N + within, h, inside)
    tl.store(sums + at * D + channel, total, channel < D)


@triton.jit
def chunk_adjoints(
    dy, delta, A, C, order, bias, adjoints,
    K, L, D, N, chunks, T, per_image, per_direction, per_token,
    BLOCK_N: tl.constexpr, SOFTPLUS: tl.constexpr, ZOH: tl.constexpr, RESTART: tl.constexpr,
    BLOCK_D: tl.constexpr, SPAN: tl.constexpr,
):  # fmt: skip
    """dh before each chunk after which dh = 0, ``adjoints`` (B, K, chunks, D, N).

    Not for the first chunk, before which there is none.
    """
    bk, chunk, block = place(tl.cdiv(D, BLOCK_D), chunks - 1)
    chunk += 1
    image, k = (bk // K).to(tl.int64), bk % K
    channel, state, within, inside = numbers(block, D, N, BLOCK_D, BLOCK_N)
    A2 = load_A(A + k * D * N + within, inside)
    offset = tl.load(bias + k * D + channel, channel < D, other=0.0)
    first, stop = chunk * T, tl.minimum(chunk * T + T, L)
    delta += bk.to(tl.int64) * L * D
    dy += image * L * D
    C += image * per_image + k * per_direction
    order += k * L
    dh = tl.zeros((BLOCK_D, BLOCK_N), tl.float32)
    spans = tl.cdiv(stop - first, SPAN)
    start = first + (spans - 1) * SPAN
    tokens = load_tokens(order, start, stop - start, SPAN)
    raw = load_rows(delta, tokens, stop - start, D, channel, D, SPAN)
    g = load_rows(dy, tokens, stop - start, D, channel, D, SPAN)
    C_t = load_rows(C, tokens, stop - start, per_token, state, N, SPAN)
    for back in range(spans):
        start = first + (spans - 1 - back) * SPAN
        ahead = tl.maximum(start - SPAN, first)
        tokens = load_tokens(order, ahead, stop - ahead, SPAN)
        next_raw = load_rows(delta, tokens, stop - ahead, D, channel, D, SPAN)
        next_g = load_rows(dy, tokens, stop - ahead, D, channel, D, SPAN)
        next_C = load_rows(C, tokens, stop - ahead, per_token, state, N, SPAN)
        for i in tl.static_range(SPAN - 1, -1, -1):
            d, _ = step(raw[i], offset, start + i < stop, SOFTPLUS)
            dh += C_t[i].to(tl.float32)[None, :] * g[i].to(tl.float32)[:, None]
            decayed = dh * tl.exp2(d[:, None] * A2)
            dh = tl.where(start + i < stop, decayed, dh)  # A may be NaN behind the end, too
            if RESTART:
                dh = tl.where(restarts_at(order, start + i, stop), 0.0, dh)
        raw, g, C_t = next_raw, next_g, next_C
    at = bk.to(tl.int64) * chunks + chunk
    tl.store(adjoints + at * D * N + within, dh, inside)


@triton.jit
def carry(
    states, sums, A,
    K, D, N, chunks,
    RESTART: tl.constexpr, BACKWARDS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Replace what each chunk adds to the state by the state that enters the chunk.

    Backwards: what it adds to the adjoint by the adjoint after it. ``states`` (B, K, chunks, D, N),
    ``sums`` (B, K, chunks, D). A program does BLOCK of the D N numbers of one (image, direction).
    """
    blocks = tl.cdiv(N * D, BLOCK)
    bk, element = tl.program_id(0) // blocks, tl.program_id(0) % blocks * BLOCK
    element += tl.arange(0, BLOCK)
    inside, first = element < N * D, bk.to(tl.int64) * chunks
    A2 = load_A(A + bk % K * N * D + element, inside)
    h = tl.zeros((BLOCK,), tl.float32)
    for i in range(chunks - 1):
        at = first + (chunks - 1 - i if BACKWARDS else i)
        added = tl.load(states + at * N * D + element, inside, other=0.0)
        total = tl.load(sums + at * D + element // N, inside, other=0.0)
        tl.store(states + at * N * D + element, h, inside)
        h = added + passed(total, A2, RESTART) * h
    at = first + (0 if BACKWARDS else chunks - 1)
    tl.store(states + at * N * D + element, h, inside)


@triton.jit
def outputs(
    u, delta, A, B, C, order, bias, starts, y,
    K, L, D, N, chunks, T, per_image, per_direction, per_token,
    BLOCK_N: tl.constexpr, SOFTPLUS: tl.constexpr, ZOH: tl.constexpr, RESTART: tl.constexpr,
    BLOCK_D: tl.constexpr, SPAN: tl.constexpr,
):  # fmt: skip
    """y of each direction without the skip, (B, K, L, D), from h at the start of each chunk."""
    bk, chunk, block = place(tl.cdiv(D, BLOCK_D), chunks)
    image, k = (bk // K).to(tl.int64), bk % K
    channel, state, within, inside = numbers(block, D, N, BLOCK_D, BLOCK_N)
    A2 = load_A(A + k * D * N + within, inside)
    offset = tl.load(bias + k * D + channel, channel < D, other=0.0)
    first, stop = chunk * T, tl.minimum(chunk * T + T, L)
    delta += bk.to(tl.int64) * L * D
    y += bk.to(tl.int64) * L * D
    u += image * L * D
    B += image * per_image + k * per_direction
    C += image * per_image + k * per_direction
    order += k * L
    h = tl.zeros((BLOCK_D, BLOCK_N), tl.float32)
    if chunks > 1:
        at = (bk.to(tl.int64) * chunks + chunk) * D * N
        h = tl.load(starts + at + within, inside, other=0.0)
    tokens = load_tokens(order, first, stop - first, SPAN)
    raw = load_rows(delta, tokens, stop - first, D, channel, D, SPAN)
    x = load_rows(u, tokens, stop - first, D, channel, D, SPAN)
    B_t = load_rows(B, tokens, stop - first, per_token, state, N, SPAN)
    C_t = load_rows(C, tokens, stop - first, per_token, state, N, SPAN)
    for start in range(first, stop, SPAN):
        left = stop - start - SPAN
        next_tokens = load_tokens(order, start + SPAN, left, SPAN)
        next_raw = load_rows(delta, next_tokens, left, D, channel, D, SPAN)
        next_x = load_rows(u, next_tokens, left, D, channel, D, SPAN)
        next_B = load_rows(B, next_tokens, left, per_token, state, N, SPAN)
        next_C = load_rows(C, next_tokens, left, per_token, state, N, SPAN)
        for i in tl.static_range(SPAN):
            exists = start + i < stop
            d, _ = step(raw[i], offset, exists, SOFTPLUS)
            a = tl.exp2(d[:, None] * A2)
            if RESTART:
                h = tl.where(restarts_at(order, start + i, stop), 0.0, h)
            h = a * h + driven(d, a, A2, B_t[i].to(tl.float32), x[i].to(tl.float32), ZOH)
            y_t = tl.sum(h * C_t[i].to(tl.float32)[None, :], 1)
            tl.store(y + tokens[i] * D + channel, y_t, channel < tl.where(exists, D, 0))
        tokens, raw, x, B_t, C_t = next_tokens, next_raw, next_x, next_B, next_C


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
    u, delta, A, B, C, order, bias, dy, starts, adjoints, inner, inner_sums,
    du, ddelta, dB, dC, dA, dbias, dskip,
    K, L, D, N, chunks, T, per_image, per_direction, per_token,
    BLOCK_N: tl.constexpr, SOFTPLUS: tl.constexpr, ZOH: tl.constexpr, RESTART: tl.constexpr,
    BLOCK_D: tl.constexpr, SPAN: tl.constexpr,
):  # fmt: skip
    """All gradients of a chunk, from h before it and within it, and dh after it.

    Walking back, the states of a span are computed anew from the one before it, and stay in
    registers. T is a multiple of SPAN.

    ``du`` (B, K, L, D) of each direction, without the skip's; ``ddelta`` (B, K, L, D); ``dB`` and
    ``dC`` (blocks, B, K, L, N), of each block of channels; ``dA`` (B, K, chunks, D, N), ``dbias``
    and ``dskip`` (B, K, chunks, D), of each chunk.
    """
    bk, chunk, block = place(tl.cdiv(D, BLOCK_D), chunks)
    image, k = (bk // K).to(tl.int64), bk % K
    channel, state, within, inside = numbers(block, D, N, BLOCK_D, BLOCK_N)
    A2 = load_A(A + k * D * N + within, inside)
    offset = tl.load(bias + k * D + channel, channel < D, other=0.0)
    first, stop = chunk * T, tl.minimum(chunk * T + T, L)
    # dB and dC of block 0 come first, then those of block 1, ...
    images = tl.num_programs(0) // (chunks * tl.cdiv(D, BLOCK_D))
    part = (block.to(tl.int64) * images + bk) * L * N
    rows = bk.to(tl.int64) * L * D
    delta += rows
    u += image * L * D
    dy += image * L * D
    B += image * per_image + k * per_direction
    C += image * per_image + k * per_direction
    order += k * L
    kept = bk.to(tl.int64) * tl.cdiv(L, SPAN) + chunk * (T // SPAN)
    at = (bk.to(tl.int64) * chunks + chunk) * D
    dh = tl.zeros((BLOCK_D, BLOCK_N), tl.float32)
    if chunks > 1:
        dh = tl.load(adjoints + at * N + within, inside, other=0.0)
    sum_dA = tl.zeros((BLOCK_D, BLOCK_N), tl.float32)
    sum_dbias, sum_dskip = tl.zeros((BLOCK_D,), tl.float32), tl.zeros((BLOCK_D,), tl.float32)
    spans = tl.cdiv(stop - first, SPAN)
    start = first + (spans - 1) * SPAN
    tokens = load_tokens(order, start, stop - start, SPAN)
    raw = load_rows(delta, tokens, stop - start, D, channel, D, SPAN)
    x = load_rows(u, tokens, stop - start, D, channel, D, SPAN)
    g = load_rows(dy, tokens, stop - start, D, channel, D, SPAN)
    B_t = load_rows(B, tokens, stop - start, per_token, state, N, SPAN)
    C_t = load_rows(C, tokens, stop - start, per_token, state, N, SPAN)
    for back in range(spans):
        span = spans - 1 - back
        start = first + span * SPAN
        ahead = tl.maximum(start - SPAN, first)
        next_tokens = load_tokens(order, ahead, stop - ahead, SPAN)
        next_raw = load_rows(delta, next_tokens, stop - ahead, D, channel, D, SPAN)
        next_x = load_rows(u, next_tokens, stop - ahead, D, channel, D, SPAN)
        next_g = load_rows(dy, next_tokens, stop - ahead, D, channel, D, SPAN)
        next_B = load_rows(B, next_tokens, stop - ahead, per_token, state, N, SPAN)
        next_C = load_rows(C, next_tokens, stop - ahead, per_token, state, N, SPAN)
        h = tl.load(inner + (kept + span) * D * N + within, inside, other=0.0)
        if chunks > 1:  # `inner` is of a chunk that starts from 0
            total = tl.load(inner_sums + (kept + span) * D + channel, channel < D, other=0.0)
            entry = tl.load(starts + at * N + within, inside, other=0.0)
            h += entry * passed(total[:, None], A2, RESTART)
        before = ()  # the state that enters each step, after any restart
        for i in tl.static_range(SPAN):
            d, _ = step(raw[i], offset, start + i < stop, SOFTPLUS)
            a = tl.exp2(d[:, None] * A2)
            if RESTART:
                h = tl.where(restarts_at(order, start + i, stop), 0.0, h)
            before = before + (h,)  # type: ignore[assignment] # noqa: RUF005
            h = a * h + driven(d, a, A2, B_t[i].to(tl.float32), x[i].to(tl.float32), ZOH)
        for i in tl.static_range(SPAN - 1, -1, -1):
            exists = start + i < stop
            d, slope = step(raw[i], offset, exists, SOFTPLUS)
            x_t, g_t = x[i].to(tl.float32), g[i].to(tl.float32)
            B_i, C_i = B_t[i].to(tl.float32), C_t[i].to(tl.float32)
            a = tl.exp2(d[:, None] * A2)
            ah = a * before[i]
            dh += C_i[None, :] * g_t[:, None]
            dz = dh * ah
            sum_dA += dz * d[:, None]
            if ZOH:
                b = zoh_gain(d, a, A2)
                dx = tl.sum(dh * b * B_i[None, :], 1)
                dd = x_t * tl.sum(dh * a * B_i[None, :], 1)
                sum_dA += dh * (B_i[None, :] * x_t[:, None]) * zoh_gain_slope(d, a, A2)
                dB_t = tl.sum(dh * b * x_t[:, None], 0)
            else:
                dd = tl.sum(dh * B_i[None, :], 1)
                dx, dd = d * dd, x_t * dd
                dB_t = tl.sum(dh * (d * x_t)[:, None], 0)
            dC_t = tl.sum((ah + driven(d, a, A2, B_i, x_t, ZOH)) * g_t[:, None], 0)
            dd = tl.where(exists, (dd + LN_2 * tl.sum(dz * A2, 1)) * slope, 0.0)
            sum_dbias += dd
            sum_dskip += x_t * g_t
            place_D, mask = rows + tokens[i] * D + channel, channel < tl.where(exists, D, 0)
            tl.store(du + place_D, dx, mask)
            tl.store(ddelta + place_D, dd, mask)
            place_N, mask = part + tokens[i] * N + state, state < tl.where(exists, N, 0)
            tl.store(dB + place_N, dB_t, mask)
            tl.store(dC + place_N, dC_t, mask)
            dh = tl.where(exists, dh * a, dh)
            if RESTART:
                dh = tl.where(restarts_at(order, start + i, stop), 0.0, dh)
        tokens, raw, x, g, B_t, C_t = next_tokens, next_raw, next_x, next_g, next_B, next_C
    tl.store(dA + at * N + within, sum_dA, inside)
    tl.store(dbias + at + channel, sum_dbias, channel < D)
    tl.store(dskip + at + channel, sum_dskip, channel < D)
