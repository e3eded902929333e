"""The gradients of `numba_scan.py`: the same layout, chunks, strips and groups.

Of the forward pass, the states before each span of chunks are kept, or of none but the first, which
are zero. From the last span to the first, a strip of channels and a direction are walked to the
start of each chunk. Then, from the last chunk to the first and for one group of components after
another, the chunk is walked again, now keeping a and h of each step, and walked back through with
the adjoint dh.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ssmdiff_kernels.numba_layout import (
    CHUNK,
    Chunk,
    Kept,
    Part,
    Scan,
    Shape,
    Workspace,
    blocks_of,
    chunk_of,
    chunks_of,
    clear,
    copy,
    gather,
    gather_projections,
    load_row,
    pack_A,
    part_of,
    pointers,
    share_of,
    start_span,
    store_row,
    width_of,
    workspace,
)
from ssmdiff_kernels.numba_math import LN_2, LOG2_E, exp2_and_less_one, f32, zoh_gain_slope
from ssmdiff_kernels.numba_memory import (
    add_lane_sums,
    fetch_add,
    keep_alive,
    load,
    load_like,
    pointer,
    prefetch,
    spread_like,
    store,
)
from ssmdiff_kernels.numba_scan import walk, walk_on
from ssmdiff_kernels.numba_threads import job_done, next_job
from ssmdiff_kernels.numba_vector import (
    WIDTH,
    add_products,
    compiled,
    inlined,
    rows_of,
    splat,
    splat_group,
)

STRIP = 3  # blocks of channels that the backward pass takes at a time
_ZERO = f32(0)


class Gradients(NamedTuple):
    """What the backward pass reads and writes, flat arrays; pointers to them inside."""

    dy: Any  # gradient of the output (B, L, D), as u
    du: Any  # (B, L, D) float32
    ddelta: Any  # (B, K, L, D), as delta
    dA: Any  # noqa: N815 # (B, K, D, N)
    dB: Any  # noqa: N815 # (B, K, L, N), as B
    dC: Any  # noqa: N815 # (B, K, L, N), as C
    dskip: Any  # (B, D)
    dbias: Any  # (B, K, D)
    slices: Any  # (2, G, B, K, L, N), dB's and dC's of each group of blocks
    done: Any  # (B, K) int64, zero at first: how many groups have left their slices


class Slice(NamedTuple):
    """Where a group's sums for B and C are: the rows before token 0 in the slices of dB and dC."""

    dB: int  # noqa: N815
    dC: int  # noqa: N815
    begun: bool  # an earlier strip has left its sums there


@compiled
def backward(jobs: Any, scan: Scan, shape: Shape, groups: int, out: Gradients, kept: Kept) -> None:
    """Take jobs until none is left; together they write every element of the gradients.

    B and C are shared by all channels. Each group of blocks sums over its own channels, in a fixed
    order, into a slice of its own; whoever is the last to finish a direction adds the slices up.
    The caller adds dA, dskip and dbias over B.

    Args:
        jobs: The counters of `numba_threads.run`, shared by the threads.
        scan: The inputs.
        shape: Their sizes.
        groups: G, into how many groups the blocks of channels are divided.
        out: The gradients.
        kept: The states that the forward pass kept.
    """
    _backward(jobs, scan, shape, groups, out, kept, splat_group(_ZERO), False)


@compiled
def backward_zoh(
    jobs: Any, scan: Scan, shape: Shape, groups: int, out: Gradients, kept: Kept
) -> None:
    """``backward`` with the zoh gain."""
    _backward(jobs, scan, shape, groups, out, kept, splat_group(_ZERO), True)


@compiled
def backward_of_one(
    jobs: Any, scan: Scan, shape: Shape, groups: int, out: Gradients, kept: Kept
) -> None:
    """``backward`` for N = 1."""
    _backward(jobs, scan, shape, groups, out, kept, splat(_ZERO), shape.zoh)


@inlined
def _backward(
    jobs: Any,
    arrays: Scan,
    shape: Shape,
    groups: int,
    outputs: Gradients,
    states: Kept,
    zero: Any,
    zoh: bool,
) -> None:
    scan = pointers(arrays)
    kept = Kept(pointer(states.states), states.chunks)
    out = Gradients(
        pointer(outputs.dy),
        pointer(outputs.du),
        pointer(outputs.ddelta),
        pointer(outputs.dA),
        pointer(outputs.dB),
        pointer(outputs.dC),
        pointer(outputs.dskip),
        pointer(outputs.dbias),
        pointer(outputs.slices),
        pointer(outputs.done),
    )
    length, chunks, blocks = shape.length, chunks_of(shape), blocks_of(shape)
    span = min(kept.chunks, chunks)
    ws, memory = workspace(shape, STRIP, rows_of(zero), span)
    steps = STRIP * CHUNK * WIDTH
    while True:
        job = next_job(jobs)
        if job >= shape.batch * groups:
            break
        b, group = job // groups, job % groups
        begin, end = group * blocks // groups, (group + 1) * blocks // groups
        strips = (end - begin + STRIP - 1) // STRIP
        for strip_of_k in range(shape.directions * strips):
            k, first = strip_of_k // strips, begin + strip_of_k % strips * STRIP
            part = part_of(shape, b, k, first, min(STRIP, end - first))
            state = part.blocks * ws.padded
            parts, number = shape.batch * shape.directions, b * shape.directions + k
            dB_row = (group * parts + number) * length
            sums = Slice(dB_row, dB_row + groups * parts * length, first > begin)
            pack_A(ws, scan, shape, k, part)
            clear(ws.data, ws.dh, state)
            clear(ws.data, ws.dA, state)
            for block in range(part.blocks):
                channel, width = part.channel + block * WIDTH, width_of(shape, part, block)
                store_row(out.dbias, number * shape.channels + channel, splat(_ZERO), width)
                if k == 0:
                    store_row(out.dskip, b * shape.channels + channel, splat(_ZERO), width)
            for start in range((chunks - 1) // span * span, -1, -span):
                stop = min(start + span, chunks)
                start_span(ws, shape, part, kept, start)
                for i in range(start, stop):
                    chunk = chunk_of(ws, shape, i, (i - start) * steps)
                    gather(ws, scan, shape, part, k, chunk, i + 1 == stop)
                    if i + 1 < stop:
                        copy(ws.data, ws.h, ws.starts + (i - start) * state * WIDTH, state)
                        walk_on(ws, scan, shape, part, chunk, out.dy, zero, zoh, False)
                for i in range(stop - 1, start - 1, -1):
                    chunk = chunk_of(ws, shape, i, (i - start) * steps)
                    if i + 1 < stop:  # the last one of the span still is as it was left above
                        copy(ws.data, ws.starts + (i - start) * state * WIDTH, ws.h, state)
                        gather_projections(ws, scan, shape, part, chunk, True)
                    _gather_dy(ws, scan, shape, part, chunk, sums, out)
                    _walk_there_and_back(ws, scan, shape, part, chunk, out, span == 1, zero, zoh)
                    for block in range(part.blocks):
                        _scatter(ws, scan, shape, part, k, chunk, block, zoh, out)
                    _scatter_sums(ws, scan, shape, part, chunk, sums, out)
            for block in range(part.blocks):
                row = number * shape.channels + part.channel + block * WIDTH
                for j in range(width_of(shape, part, block)):
                    for n in range(shape.states):
                        dA_n = ws.data[ws.dA + (block * ws.padded + n) * WIDTH + j]
                        out.dA[(row + j) * shape.states + n] = dA_n
            if first + part.blocks == end and fetch_add(out.done, number) == groups - 1:
                _add_slices(shape, groups, number, out)
        job_done(jobs)
    keep_alive(memory)


@inlined
def _walk_there_and_back(
    ws: Workspace,
    scan: Scan,
    shape: Shape,
    part: Part,
    chunk: Chunk,
    out: Gradients,
    gathers: bool,
    zero: Any,
    zoh: bool,
) -> None:
    """Through a chunk, keeping its steps, and back: its gradients, into the workspace.

    ``gathers`` says whether the chunk before this one has yet to be gathered.
    """
    clear(ws.data, ws.decay, part.blocks * CHUNK)
    clear(ws.data, ws.rate, part.blocks * CHUNK)
    clear(ws.data, ws.dB, CHUNK * ws.padded // WIDTH)
    clear(ws.data, ws.dC, CHUNK * ws.padded // WIDTH)
    if zoh:
        clear(ws.data, ws.gain, part.blocks * CHUNK)
    for block in range(part.blocks):
        for n in range(0, ws.padded, rows_of(zero)):
            ahead = share_of(ws, block, n, rows_of(zero), -CHUNK, gathers, True)
            walk(ws, scan, shape, part, chunk, block, n, ahead, out.dy, zero, zoh, False, True)
            _walk_back(ws, scan, part, chunk, block, n, zero, zoh)


@inlined
def _gather_dy(
    ws: Workspace, scan: Scan, shape: Shape, part: Part, chunk: Chunk, sums: Slice, out: Gradients
) -> None:
    """dy of a chunk; and a request for the rows that its gradients will be written to."""
    for block in range(part.blocks):
        channel, width = part.channel + block * WIDTH, width_of(shape, part, block)
        for t in range(chunk.start, chunk.stop):
            token = np.int64(scan.order[part.time + t])
            place = (part.token + token) * shape.channels + channel
            dy = load_row(out.dy, place, width)
            store(ws.data, ws.y + (block * CHUNK + t - chunk.start) * WIDTH, dy)
            prefetch(out.du, place)
            prefetch(out.ddelta, (part.row + token) * shape.channels + channel)
            if block == 0:
                prefetch(out.slices, (sums.dB + token) * shape.states)
                prefetch(out.slices, (sums.dC + token) * shape.states)


@inlined
def _scatter_sums(
    ws: Workspace, scan: Scan, shape: Shape, part: Part, chunk: Chunk, sums: Slice, out: Gradients
) -> None:
    """The gradients of B and C of a chunk, summed over the strip, to their tokens' places."""
    states = shape.states
    for t in range(chunk.start, chunk.stop):
        token = np.int64(scan.order[part.time + t])
        for n in range(0, states, WIDTH):
            width, at = min(WIDTH, states - n), (t - chunk.start) * ws.padded + n
            dB, dC = load(ws.data, ws.dB + at), load(ws.data, ws.dC + at)
            dB_place, dC_place = (sums.dB + token) * states + n, (sums.dC + token) * states + n
            if sums.begun:
                dB = dB + load_row(out.slices, dB_place, width)
                dC = dC + load_row(out.slices, dC_place, width)
            store_row(out.slices, dB_place, dB, width)
            store_row(out.slices, dC_place, dC, width)


@inlined
def _scatter(
    ws: Workspace,
    scan: Scan,
    shape: Shape,
    part: Part,
    k: int,
    chunk: Chunk,
    block: int,
    zoh: bool,
    out: Gradients,
) -> None:
    """The gradients of u and delta of a chunk to their tokens' places, and their sums over time.

    Sums over time are taken chunk by chunk, then over chunks: less rounding.
    """
    channel, width = part.channel + block * WIDTH, width_of(shape, part, block)
    skip = load_row(scan.skip, channel, width)
    skip_sum, bias_sum = splat(_ZERO), splat(_ZERO)
    for t in range(chunk.start, chunk.stop):
        at = (block * CHUNK + t - chunk.start) * WIDTH
        token = np.int64(scan.order[part.time + t])
        place = (part.token + token) * shape.channels + channel
        d, u = load(ws.data, chunk.d + at), load(ws.data, chunk.u + at)
        dy, rate = load(ws.data, ws.y + at), load(ws.data, ws.rate + at)
        du = load(ws.data, ws.gain + at) if zoh else d * rate
        if k == 0:
            du = du + dy * skip
            skip_sum = skip_sum + dy * u
        else:
            du = du + load_row(out.du, place, width)
        store_row(out.du, place, du, width)
        decay = load(ws.data, ws.decay + at)
        ddelta = decay * LN_2 + rate * u
        if shape.softplus:  # whose derivative is 1 - exp(-d), in terms of its value
            _, less_one = exp2_and_less_one(d * (-LOG2_E))
            ddelta = ddelta * (_ZERO - less_one)
        bias_sum = bias_sum + ddelta
        store_row(out.ddelta, (part.row + token) * shape.channels + channel, ddelta, width)
    summed = part.row // shape.length * shape.channels + channel
    store_row(out.dbias, summed, load_row(out.dbias, summed, width) + bias_sum, width)
    if k == 0:
        summed = part.token // shape.length * shape.channels + channel
        store_row(out.dskip, summed, load_row(out.dskip, summed, width) + skip_sum, width)


@inlined
def _walk_back(
    ws: Workspace, scan: Scan, part: Part, chunk: Chunk, block: int, n: int, zero: Any, zoh: bool
) -> None:
    """Take the adjoint dh of a group of components from n on back through a chunk that was kept."""
    rows, state = rows_of(zero), (block * ws.padded + n) * WIDTH
    A = load_like(ws.data, ws.A + state, zero)
    inverse_A = load_like(ws.data, ws.inverse_A + state, zero)
    dh = load_like(ws.data, ws.dh + state, zero)
    h, dA = load_like(ws.data, ws.h + state, zero), zero
    for t in range(chunk.stop - 1, chunk.start - 1, -1):
        at = t - chunk.start
        row = (block * CHUNK + at) * WIDTH
        d, u = load(ws.data, chunk.d + row), load(ws.data, chunk.u + row)
        dy = load(ws.data, ws.y + row)
        B = spread_like(ws.data, ws.B + at * ws.padded + n, zero)
        C = spread_like(ws.data, ws.C + at * ws.padded + n, zero)
        a = load_like(ws.data, ws.a + at * rows * WIDTH, zero)
        before = load_like(ws.data, ws.before + at * rows * WIDTH, zero)
        add_lane_sums(h * dy, ws.data, ws.dC + at * ws.padded + n)
        h = before
        dh = dh + C * dy
        earlier = dh * a
        da_a = earlier * before
        if scan.restart[part.time + t]:
            earlier, da_a = zero, zero
        dA = dA + da_a * d
        decay = load(ws.data, ws.decay + row)
        store(ws.data, ws.decay + row, add_products(da_a, A, decay))
        rate = load(ws.data, ws.rate + row)
        if zoh:
            g = load_like(ws.data, ws.g + at * rows * WIDTH, zero)
            dhB = dh * B
            dA = dA + dhB * u * zoh_gain_slope(A * LN_2 * d, d, a, g, inverse_A)
            gain = load(ws.data, ws.gain + row)
            store(ws.data, ws.gain + row, add_products(dhB, g, gain))
            store(ws.data, ws.rate + row, add_products(dhB, a, rate))
            add_lane_sums(dh * (g * u), ws.data, ws.dB + at * ws.padded + n)
        else:
            store(ws.data, ws.rate + row, add_products(dh, B, rate))
            add_lane_sums(dh * (d * u), ws.data, ws.dB + at * ws.padded + n)
        dh = earlier
    store(ws.data, ws.dh + state, dh)
    store(ws.data, ws.dA + state, load_like(ws.data, ws.dA + state, zero) + dA)


@inlined
def _add_slices(shape: Shape, groups: int, number: int, out: Gradients) -> None:
    """The gradients of B and C of a batch element and a direction, of all groups in their order."""
    size = shape.length * shape.states
    parts = shape.batch * shape.directions
    for at in range(0, size, WIDTH):
        width, dB, dC = min(WIDTH, size - at), splat(_ZERO), splat(_ZERO)
        for group in range(groups):
            place = (group * parts + number) * size + at
            dB = dB + load_row(out.slices, place, width)
            dC = dC + load_row(out.slices, place + groups * parts * size, width)
        store_row(out.dB, number * size + at, dB, width)
        store_row(out.dC, number * size + at, dC, width)
