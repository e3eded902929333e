"""The selective scan and its gradients on a CPU, compiled by numba; the maths of the reference.

Layout. Arrays are float32, contiguous, and addressed flat. A job is a batch element and a block of
16 channels (forward) or a group of such blocks (backward); threads take jobs from a shared
counter. A job walks ``order[k]`` for each direction k in turn and reads and writes rows of 16
channels at the token's own place: nothing is gathered, and no two jobs write the same row. Rows of
later steps are prefetched, since the hardware cannot guess a random order.

All that a job remembers lies in one workspace of vectors, 16 channels each, that stays in cache.
Component n of the state is vector n of a section: A, 1/A, h, ... The last block of channels may be
narrower; its other lanes hold A = -1 and zeros, and stay finite.

The exponential is taken in base 2, so the workspace holds A log2(e). ``softplus`` and ``zoh`` are
plain branches: they always go the same way and cost less than a second compilation.

The backward pass of a block and direction first walks forward and keeps the state at the start of
every chunk. Then, from the last chunk to the first, it walks the chunk again, now keeping a, a h
and the zoh gain of each step, and walks back through it with the adjoint dh.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmdiff_kernels.numba_layout import (
    AHEAD,
    CHUNK,
    Part,
    Scan,
    Shape,
    Workspace,
    blocks_of,
    clear,
    copy,
    load_row,
    pack_A,
    padded_states,
    part_of,
    prefetch_walk,
    prepare,
    store_row,
    workspace,
)
from ssmdiff_kernels.numba_math import LN_2, exp2_and_less_one, f32, zoh_gain_slope
from ssmdiff_kernels.numba_vector import (
    WIDTH,
    compiled,
    fetch_add,
    inlined,
    lane_sums,
    load,
    prefetch,
    splat,
    splat_at,
    store,
)

_ZERO = f32(0)


@compiled
def forward(jobs: Any, scan: Scan, shape: Shape, y: Any) -> None:
    """Take jobs until none is left; together they write every element of the output.

    Args:
        jobs: (1,) int64, zero at first: the counter shared by the threads.
        scan: The inputs.
        shape: Their sizes.
        y: The output, flat (B, L, D).
    """
    states, channels = shape.states, shape.channels
    blocks = blocks_of(shape)
    ws = workspace(shape, False)
    while True:
        job = fetch_add(jobs)
        if job >= shape.batch * blocks:
            return
        b, channel = job // blocks, job % blocks * WIDTH
        for k in range(shape.directions):
            part = part_of(shape, b, k, channel)
            pack_A(ws, scan, shape, k, part)
            skip = load_row(scan.skip, channel, part.width)
            bias = load_row(scan.bias, k * channels + channel, part.width)
            clear(ws.data, ws.h, states)
            for t in range(shape.length):
                if t % CHUNK == 0:
                    prepare(ws, scan, shape, part, bias, t, min(t + CHUNK, shape.length))
                ahead = prefetch_walk(scan, shape, part, t)
                prefetch(scan.C, (part.row + ahead) * states)
                prefetch(y, (part.token + ahead) * channels + channel)
                if scan.restart[part.time + t]:
                    clear(ws.data, ws.h, states)
                token = np.int64(scan.order[part.time + t])
                row = (part.row + token) * states
                place = (part.token + token) * channels + channel
                d = load(ws.data, ws.d + t % CHUNK * WIDTH)
                u = load_row(scan.u, place, part.width)
                x = u if shape.zoh else d * u
                y_t = skip * u if k == 0 else load_row(y, place, part.width)
                for n in range(states):
                    at = n * WIDTH
                    a, less_one = exp2_and_less_one(d * load(ws.data, ws.A + at))
                    gx = less_one * load(ws.data, ws.inverse_A + at) * x if shape.zoh else x
                    h = a * load(ws.data, ws.h + at) + gx * splat_at(scan.B, row + n)
                    store(ws.data, ws.h + at, h)
                    y_t = y_t + h * splat_at(scan.C, row + n)
                store_row(y, place, y_t, part.width)


@compiled
def backward(
    jobs: Any,
    scan: Scan,
    shape: Shape,
    groups: int,
    dy: Any,
    du: Any,
    ddelta: Any,
    dA: Any,
    dB: Any,
    dC: Any,
    dskip: Any,
    dbias: Any,
) -> None:
    """Take jobs until none is left; together they write every element of the gradients.

    B and C are shared by all channels. Each group of blocks sums over its own channels, in a fixed
    order, into a slice of its own, for ``add_slices``. The caller adds dA, dskip and dbias over B.

    Args:
        jobs: (1,) int64, zero at first: the counter shared by the threads.
        scan: The inputs.
        shape: Their sizes.
        groups: G, into how many groups the blocks of channels are divided.
        dy: Gradient of the output, flat (B, L, D).
        du: flat (B, L, D).
        ddelta: flat (B, K, L, D).
        dA: flat (B, K, blocks, N, 16).
        dB: flat (G, B, K, L, N'), with N' the multiple of 4 that holds N.
        dC: flat (G, B, K, L, N').
        dskip: flat (B, blocks, 16).
        dbias: flat (B, K, blocks, 16).
    """
    states, channels, length = shape.states, shape.channels, shape.length
    section = states * WIDTH
    blocks = blocks_of(shape)
    chunks = (length + CHUNK - 1) // CHUNK
    ws = workspace(shape, True)
    clear(ws.data, ws.dB, 2 * padded_states(shape))
    while True:
        job = fetch_add(jobs)
        if job >= shape.batch * groups:
            return
        b, group = job // groups, job % groups
        first, stop = group * blocks // groups, (group + 1) * blocks // groups
        for block_of_k in range(shape.directions * (stop - first)):
            k, block = block_of_k // (stop - first), first + block_of_k % (stop - first)
            channel = block * WIDTH
            part = part_of(shape, b, k, channel)
            pack_A(ws, scan, shape, k, part)
            bias = load_row(scan.bias, k * channels + channel, part.width)
            clear(ws.data, ws.h, states)
            for chunk in range(chunks):
                copy(ws.data, ws.h, ws.data, ws.starts + chunk * section, states)
                if chunk + 1 < chunks:
                    begin, end = chunk * CHUNK, (chunk + 1) * CHUNK
                    prepare(ws, scan, shape, part, bias, begin, end)
                    _walk(ws, scan, shape, part, begin, end, False)

            summed = (b * shape.directions + k) * blocks + block
            sums_row = (group * shape.batch * shape.directions + b * shape.directions + k) * length
            skip_sum, bias_sum = splat(_ZERO), splat(_ZERO)
            clear(dA, summed * section, states)
            clear(ws.data, ws.dh, states)
            for chunk in range(chunks - 1, -1, -1):
                begin, end = chunk * CHUNK, min((chunk + 1) * CHUNK, length)
                copy(ws.data, ws.starts + chunk * section, ws.data, ws.h, states)
                prepare(ws, scan, shape, part, bias, begin, end)
                _walk(ws, scan, shape, part, begin, end, True)
                clear(ws.data, ws.dA, states)
                # Sums over time are taken chunk by chunk, then over chunks: less rounding.
                skip_chunk, bias_chunk = _walk_back(
                    ws,
                    scan,
                    shape,
                    part,
                    begin,
                    end,
                    dy,
                    du,
                    ddelta,
                    dB,
                    dC,
                    sums_row,
                    block > first,
                )
                skip_sum, bias_sum = skip_sum + skip_chunk, bias_sum + bias_chunk
                for n in range(states):
                    at = n * WIDTH
                    so_far = load(dA, summed * section + at)
                    store(dA, summed * section + at, so_far + load(ws.data, ws.dA + at))
            store(dbias, summed * WIDTH, bias_sum)
            if k == 0:
                store(dskip, (b * blocks + block) * WIDTH, skip_sum)


@compiled
def add_slices(jobs: Any, slices: Any, shape: Shape, groups: int, total: Any) -> None:
    """Add the groups' slices of dB or dC; a job is a batch element and a direction.

    Args:
        jobs: (1,) int64, zero at first: the counter shared by the threads.
        slices: flat (G, B, K, L, N'), from ``backward``.
        shape: The sizes.
        groups: G.
        total: flat (B, K, L, N).
    """
    states, padded = shape.states, padded_states(shape)
    rows = shape.batch * shape.directions * shape.length
    while True:
        first = fetch_add(jobs) * shape.length
        if first >= rows:
            return
        for row in range(first, first + shape.length):
            for n in range(states):
                value = slices[row * padded + n]
                for group in range(1, groups):
                    value += slices[(group * rows + row) * padded + n]
                total[row * states + n] = value


@inlined
def _walk(
    ws: Workspace, scan: Scan, shape: Shape, part: Part, start: int, stop: int, keep: bool
) -> None:
    """Take the state h through a chunk; if asked, keep a, a h and the zoh gain of each step."""
    states = shape.states
    for t in range(start, stop):
        prefetch_walk(scan, shape, part, t)
        if scan.restart[part.time + t]:
            clear(ws.data, ws.h, states)
        token = np.int64(scan.order[part.time + t])
        row = (part.row + token) * states
        d = load(ws.data, ws.d + (t - start) * WIDTH)
        u = load_row(scan.u, (part.token + token) * shape.channels + part.channel, part.width)
        x = d * u
        for n in range(states):
            at = n * WIDTH
            kept = (t - start) * states * WIDTH + at
            a, less_one = exp2_and_less_one(d * load(ws.data, ws.A + at))
            gx = x
            if shape.zoh:
                gain = less_one * load(ws.data, ws.inverse_A + at)
                gx = gain * u
                if keep:
                    store(ws.data, ws.gain + kept, gain)
            ah = a * load(ws.data, ws.h + at)
            store(ws.data, ws.h + at, ah + gx * splat_at(scan.B, row + n))
            if keep:
                store(ws.data, ws.a + kept, a)
                store(ws.data, ws.ah + kept, ah)


@inlined
def _walk_back(
    ws: Workspace,
    scan: Scan,
    shape: Shape,
    part: Part,
    start: int,
    stop: int,
    dy: Any,
    du: Any,
    ddelta: Any,
    dB: Any,
    dC: Any,
    sums_row: int,
    accumulate: bool,
) -> Any:
    """Take the adjoint dh back through a chunk that was kept; returns its parts of dskip and dbias.

    ``sums_row`` is the number of rows before token 0 in dB and dC, which are added to if
    ``accumulate``, as du is by all directions but the first.
    """
    states, channels, channel = shape.states, shape.channels, part.channel
    padded = padded_states(shape)
    skip = load_row(scan.skip, channel, part.width)
    dskip, dbias = splat(_ZERO), splat(_ZERO)
    for t in range(stop - 1, start - 1, -1):
        token = np.int64(scan.order[part.time + max(t - AHEAD, 0)])
        prefetch(dy, (part.token + token) * channels + channel)
        prefetch(du, (part.token + token) * channels + channel)
        prefetch(scan.C, (part.row + token) * states)
        prefetch(ddelta, (part.row + token) * channels + channel)
        prefetch(dB, (sums_row + token) * padded)
        prefetch(dC, (sums_row + token) * padded)

        token = np.int64(scan.order[part.time + t])
        row = (part.row + token) * states
        place = (part.token + token) * channels + channel
        d = load(ws.data, ws.d + (t - start) * WIDTH)
        u = load_row(scan.u, place, part.width)
        dy_t = load_row(dy, place, part.width)
        dskip = dskip + dy_t * u
        # Sums over n: of da a A; of dg g and of dg times the gain's derivative by d, both over u.
        decay_sum, gain_sum, rate_sum = splat(_ZERO), splat(_ZERO), splat(_ZERO)
        x = d * u
        for n in range(states):
            at = n * WIDTH
            kept = (t - start) * states * WIDTH + at
            a, ah = load(ws.data, ws.a + kept), load(ws.data, ws.ah + kept)
            A, B_n = load(ws.data, ws.A + at), splat_at(scan.B, row + n)
            dh = load(ws.data, ws.dh + at) + dy_t * splat_at(scan.C, row + n)
            da_a, dhB = dh * ah, dh * B_n
            dA = load(ws.data, ws.dA + at) + da_a * d
            decay_sum = decay_sum + da_a * A
            if shape.zoh:
                gain = load(ws.data, ws.gain + kept)
                inverse_A = load(ws.data, ws.inverse_A + at)
                gx = gain * u
                dA = dA + dhB * u * zoh_gain_slope(d * A * LN_2, d, a, gain, inverse_A)
                gain_sum = gain_sum + dhB * gain
                rate_sum = rate_sum + dhB * a
            else:
                gx = x
                rate_sum = rate_sum + dhB
            store(ws.data, ws.dA + at, dA)
            store(ws.data, ws.dB + at, dh * gx)
            store(ws.data, ws.dC + at, dy_t * (ah + gx * B_n))
            store(ws.data, ws.dh + at, dh * a)
        if not shape.zoh:
            gain_sum = rate_sum * d
        if scan.restart[part.time + t]:
            clear(ws.data, ws.dh, states)

        first = part.time == 0  # direction 0
        du_t = dy_t * skip if first else load_row(du, place, part.width)
        store_row(du, place, du_t + gain_sum, part.width)
        slope = load(ws.data, ws.slope + (t - start) * WIDTH)
        ddelta_t = (decay_sum * LN_2 + rate_sum * u) * slope
        store_row(ddelta, (part.row + token) * channels + channel, ddelta_t, part.width)
        dbias = dbias + ddelta_t
        for n in range(0, padded, 4):
            out = (sums_row + token) * padded + n
            lane_sums(ws.data, ws.dB + n * WIDTH, dB, out, accumulate)
            lane_sums(ws.data, ws.dC + n * WIDTH, dC, out, accumulate)
    return dskip, dbias
