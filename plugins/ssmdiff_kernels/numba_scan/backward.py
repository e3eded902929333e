"""The gradients of `forward.py`; README.md has this pass in pseudo-code, too."""

from __future__ import annotations

from typing import Any, NamedTuple

from ssmdiff_kernels.numba_scan.layout import (
    CHUNK,
    ZERO,
    Arrays,
    KeptStates,
    Shape,
    blocks_of,
    chunks_of,
    clear,
    copy,
    load_row,
    pointers,
    store_row,
    workspace,
)
from ssmdiff_kernels.numba_scan.maths import LN_2, LOG2_E, exp2_and_less_one, zoh_gain_slope
from ssmdiff_kernels.numba_scan.memory import (
    add_lane_sums,
    after,
    count_up,
    keep_alive,
    load,
    load_group,
    prefetch,
    spread_group,
    store,
)
from ssmdiff_kernels.numba_scan.private import compiled, inlined, pointer
from ssmdiff_kernels.numba_scan.threads import next_job
from ssmdiff_kernels.numba_scan.vectors import ROWS, WIDTH, add_products, splat, splat_group
from ssmdiff_kernels.numba_scan.walk import (
    Chunk,
    Walk,
    chunk_of,
    gather,
    gather_projections,
    start_span,
    start_walk,
    starts_anew,
    step_place,
    token_at,
    walk_chunk,
    walk_group,
    walk_of,
    width_of,
)

STRIP = 3  # blocks of channels that the backward pass takes at a time


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
def backward(
    jobs: Any, arrays: Arrays, shape: Shape, groups: int, out: Gradients, kept: KeptStates
) -> None:
    """Take jobs until none is left; together they write every element of the gradients.

    B and C are shared by all channels. Each group of blocks sums over its own channels, in a fixed
    order, into a slice of its own; whoever is the last to finish a direction adds the slices up.
    The caller adds dA, dskip and dbias over B.

    Args:
        jobs: The counter of `threads.run`, shared by the threads.
        arrays: The inputs.
        shape: Their sizes.
        groups: G, into how many groups the blocks of channels are divided.
        out: The gradients.
        kept: The states that the forward pass kept.
    """
    _backward(jobs, arrays, shape, groups, out, kept, False)


@compiled
def backward_zoh(
    jobs: Any, arrays: Arrays, shape: Shape, groups: int, out: Gradients, kept: KeptStates
) -> None:
    """``backward`` with the zoh gain."""
    _backward(jobs, arrays, shape, groups, out, kept, True)


@inlined
def _backward(
    jobs: Any,
    arrays: Arrays,
    shape: Shape,
    groups: int,
    outputs: Gradients,
    kept: KeptStates,
    zoh: bool,
) -> None:
    inputs, out = pointers(arrays), _pointers(outputs)
    states = KeptStates(pointer(kept.states), kept.chunks)
    blocks = blocks_of(shape)
    ws, memory = workspace(shape, STRIP, min(kept.chunks, chunks_of(shape)))
    while True:
        job = next_job(jobs)
        if job >= shape.batch * groups:
            break
        b, group = job // groups, job % groups
        begin, end = group * blocks // groups, (group + 1) * blocks // groups
        for k in range(shape.directions):
            number = b * shape.directions + k
            first_row = (group * shape.batch * shape.directions + number) * shape.length
            beyond = groups * shape.batch * shape.directions * shape.length
            for first in range(begin, end, STRIP):
                size = min(STRIP, end - first)
                walk = walk_of(inputs, shape, states, ws, out.dy, zoh, b, k, first, size)
                sums = Slice(first_row, first_row + beyond, first > begin)
                _walk_strip(walk, sums, out)
            if count_up(out.done, number) == groups - 1:
                _add_slices(shape, groups, number, out)
    keep_alive(memory)


@inlined
def _pointers(outputs: Gradients) -> Gradients:
    """Where the arrays begin."""
    return Gradients(
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


@inlined
def _walk_strip(walk: Walk, sums: Slice, out: Gradients) -> None:
    """All gradients of a direction and a strip, from its last span to its first."""
    ws, chunks = walk.ws, chunks_of(walk.shape)
    span = min(walk.kept.chunks, chunks)
    start_walk(walk)
    clear(ws.dh, walk.blocks * walk.padded)
    clear(ws.dA, walk.blocks * walk.padded)
    _clear_sums_over_time(walk, out)
    for start in range((chunks - 1) // span * span, -1, -span):
        stop = min(start + span, chunks)
        start_span(walk, start)
        for i in range(start, stop):
            chunk = _chunk_of_span(walk, i, start)
            gather(walk, chunk, i + 1 == stop)
            if i + 1 < stop:
                copy(ws.h, _start(walk, i - start), walk.blocks * walk.padded)
                walk_chunk(walk, chunk, False)
        for i in range(stop - 1, start - 1, -1):
            chunk = _chunk_of_span(walk, i, start)
            if i + 1 < stop:  # the last one of the span still is as it was left above
                copy(_start(walk, i - start), ws.h, walk.blocks * walk.padded)
                gather_projections(walk, chunk, True)
            _gather_dy(walk, chunk, sums, out)
            _walk_there_and_back(walk, chunk)
            for block in range(walk.blocks):
                _scatter(walk, chunk, block, out)
            _scatter_sums(walk, chunk, sums, out)
    _write_dA(walk, out)


@inlined
def _chunk_of_span(walk: Walk, i: int, start: int) -> Chunk:
    """Chunk i of a span that starts with the chunk ``start``."""
    chunk: Chunk = chunk_of(walk, i, (i - start) * STRIP * CHUNK * WIDTH)
    return chunk


@inlined
def _start(walk: Walk, i: int) -> Any:
    """Where the state before chunk i of a span is written down."""
    return after(walk.ws.starts, i * walk.blocks * walk.padded * WIDTH)


@inlined
def _clear_sums_over_time(walk: Walk, out: Gradients) -> None:
    """dbias and, once for all directions, dskip of a strip."""
    channels = walk.shape.channels
    for block in range(walk.blocks):
        channel, width = walk.channel + block * WIDTH, width_of(walk, block)
        store_row(out.dbias, walk.number * channels + channel, splat(ZERO), width)
        if walk.k == 0:
            b = walk.number // walk.shape.directions
            store_row(out.dskip, b * channels + channel, splat(ZERO), width)


@inlined
def _write_dA(walk: Walk, out: Gradients) -> None:
    """dA of a strip, N last."""
    shape = walk.shape
    for block in range(walk.blocks):
        row = walk.number * shape.channels + walk.channel + block * WIDTH
        for j in range(width_of(walk, block)):
            for n in range(shape.states):
                dA = walk.ws.dA[(block * walk.padded + n) * WIDTH + j]
                out.dA[(row + j) * shape.states + n] = dA


@inlined
def _walk_there_and_back(walk: Walk, chunk: Chunk) -> None:
    """Through a chunk, recording its steps, and back: its gradients, into the workspace."""
    ws = walk.ws
    clear(ws.decay, walk.blocks * CHUNK)
    clear(ws.rate, walk.blocks * CHUNK)
    clear(ws.dB, CHUNK * walk.padded // WIDTH)
    clear(ws.dC, CHUNK * walk.padded // WIDTH)
    if walk.zoh:
        clear(ws.gain, walk.blocks * CHUNK)
    for block in range(walk.blocks):
        for n in range(0, walk.padded, ROWS):
            walk_group(walk, chunk, block, n, -CHUNK, False, True)
            _walk_back(walk, chunk, block, n)


@inlined
def _walk_back(walk: Walk, chunk: Chunk, block: int, n: int) -> None:
    """Take the adjoint dh of a group of components from n on back through a recorded chunk."""
    ws, state = walk.ws, (block * walk.padded + n) * WIDTH
    A, inverse_A = load_group(ws.A, state), load_group(ws.inverse_A, state)
    dh, h, dA = load_group(ws.dh, state), load_group(ws.h, state), splat_group(ZERO)
    for t in range(chunk.stop - 1, chunk.start - 1, -1):
        at, row = t - chunk.start, step_place(chunk, block, t)
        d, u = load(ws.d, chunk.behind + row), load(ws.u, chunk.behind + row)
        dy = load(ws.y, row)
        B = spread_group(ws.B, at * walk.padded + n)
        C = spread_group(ws.C, at * walk.padded + n)
        a = load_group(ws.a, at * ROWS * WIDTH)
        before = load_group(ws.before, at * ROWS * WIDTH)
        add_lane_sums(ws.dC, at * walk.padded + n, h * dy)
        h = before
        dh = dh + C * dy
        earlier = dh * a
        da_a = earlier * before
        if starts_anew(walk, t):
            earlier, da_a = splat_group(ZERO), splat_group(ZERO)
        dA = dA + da_a * d
        store(ws.decay, row, add_products(da_a, A, load(ws.decay, row)))
        rate = load(ws.rate, row)
        if walk.zoh:
            g = load_group(ws.g, at * ROWS * WIDTH)
            dhB = dh * B
            dA = dA + dhB * u * zoh_gain_slope(A * LN_2 * d, d, a, g, inverse_A)
            store(ws.gain, row, add_products(dhB, g, load(ws.gain, row)))
            store(ws.rate, row, add_products(dhB, a, rate))
            add_lane_sums(ws.dB, at * walk.padded + n, dh * (g * u))
        else:
            store(ws.rate, row, add_products(dh, B, rate))
            add_lane_sums(ws.dB, at * walk.padded + n, dh * (d * u))
        dh = earlier
    store(ws.dh, state, dh)
    store(ws.dA, state, load_group(ws.dA, state) + dA)


@inlined
def _gather_dy(walk: Walk, chunk: Chunk, sums: Slice, out: Gradients) -> None:
    """dy of a chunk; and a request for the rows that its gradients will be written to."""
    shape = walk.shape
    for block in range(walk.blocks):
        channel, width = walk.channel + block * WIDTH, width_of(walk, block)
        for t in range(chunk.start, chunk.stop):
            token = token_at(walk, t)
            place = (walk.token + token) * shape.channels + channel
            store(walk.ws.y, step_place(chunk, block, t), load_row(out.dy, place, width))
            prefetch(out.du, place)
            prefetch(out.ddelta, (walk.row + token) * shape.channels + channel)
            if block == 0:
                prefetch(out.slices, (sums.dB + token) * shape.states)
                prefetch(out.slices, (sums.dC + token) * shape.states)


@inlined
def _scatter_sums(walk: Walk, chunk: Chunk, sums: Slice, out: Gradients) -> None:
    """The gradients of B and C of a chunk, summed over the strip, to their tokens' places."""
    states = walk.shape.states
    for t in range(chunk.start, chunk.stop):
        token = token_at(walk, t)
        for n in range(0, states, WIDTH):
            width, at = min(WIDTH, states - n), (t - chunk.start) * walk.padded + n
            dB, dC = load(walk.ws.dB, at), load(walk.ws.dC, at)
            dB_place, dC_place = (sums.dB + token) * states + n, (sums.dC + token) * states + n
            if sums.begun:
                dB = dB + load_row(out.slices, dB_place, width)
                dC = dC + load_row(out.slices, dC_place, width)
            store_row(out.slices, dB_place, dB, width)
            store_row(out.slices, dC_place, dC, width)


@inlined
def _scatter(walk: Walk, chunk: Chunk, block: int, out: Gradients) -> None:
    """The gradients of u and delta of a chunk to their tokens' places, and their sums over time.

    Sums over time are taken chunk by chunk, then over chunks: less rounding.
    """
    ws, channels = walk.ws, walk.shape.channels
    channel, width = walk.channel + block * WIDTH, width_of(walk, block)
    skip = load_row(walk.arrays.skip, channel, width)
    skip_sum, bias_sum = splat(ZERO), splat(ZERO)
    for t in range(chunk.start, chunk.stop):
        at, token = step_place(chunk, block, t), token_at(walk, t)
        place = (walk.token + token) * channels + channel
        d, u = load(ws.d, chunk.behind + at), load(ws.u, chunk.behind + at)
        dy, rate = load(ws.y, at), load(ws.rate, at)
        du = load(ws.gain, at) if walk.zoh else d * rate
        if walk.k == 0:
            du = du + dy * skip
            skip_sum = skip_sum + dy * u
        else:
            du = du + load_row(out.du, place, width)
        store_row(out.du, place, du, width)
        ddelta = load(ws.decay, at) * LN_2 + rate * u
        if walk.shape.softplus:  # whose derivative is 1 - exp(-d), in terms of its value
            _, less_one = exp2_and_less_one(d * (-LOG2_E))
            ddelta = ddelta * (ZERO - less_one)
        bias_sum = bias_sum + ddelta
        store_row(out.ddelta, (walk.row + token) * channels + channel, ddelta, width)
    _add_to_row(out.dbias, walk.number * channels + channel, bias_sum, width)
    if walk.k == 0:
        b = walk.number // walk.shape.directions
        _add_to_row(out.dskip, b * channels + channel, skip_sum, width)


@inlined
def _add_to_row(array: Any, place: int, value: Any, width: int) -> None:
    store_row(array, place, load_row(array, place, width) + value, width)


@inlined
def _add_slices(shape: Shape, groups: int, number: int, out: Gradients) -> None:
    """The gradients of B and C of a batch element and a direction, of all groups in their order."""
    size = shape.length * shape.states
    parts = shape.batch * shape.directions
    for at in range(0, size, WIDTH):
        width, dB, dC = min(WIDTH, size - at), splat(ZERO), splat(ZERO)
        for group in range(groups):
            place = (group * parts + number) * size + at
            dB = dB + load_row(out.slices, place, width)
            dC = dC + load_row(out.slices, place + groups * parts * size, width)
        store_row(out.dB, number * size + at, dB, width)
        store_row(out.dC, number * size + at, dC, width)
