"""The selective scan and its gradients on a CPU, compiled by numba; the maths of the reference.

Layout. Arrays are contiguous and addressed flat. A job is a batch element and a strip of blocks of
16 channels; threads take jobs from a shared counter. A job walks ``order[k]`` for each direction k
in turn, a chunk of 32 steps at a time:

1. *Gather* what the chunk reads from the tokens' own places into a workspace that stays in the
   first-level cache, in float32. Nothing else ever touches a token in the order of a scan.
2. *Walk* the chunk for four components of the state at a time, which stay in registers. N = 1 has
   a walk of its own.
3. *Scatter* the results to the tokens' own places. No two jobs write the same row.

In training, the state before every second, third, ... span of chunks is written down, for the
backward pass to start from; a span is one chunk up to N = 16.

The last block of channels may be narrower; its other lanes hold A = -1 and zeros, and stay finite.
So do the components that pad N to whole groups.

The exponential is in base 2, so the workspace holds A log2(e). ``softplus`` is a plain branch,
which always goes the same way; ``zoh`` and N = 1 are compiled by themselves.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmdiff_kernels.numba_layout import (
    CHUNK,
    Ahead,
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
    gather,
    keep_state,
    load_row,
    pack_A,
    part_of,
    pointers,
    prefetch_ahead,
    share_of,
    store_row,
    width_of,
    workspace,
)
from ssmdiff_kernels.numba_math import exp2, exp2_and_less_one, exp2_table, f32
from ssmdiff_kernels.numba_memory import (
    keep_alive,
    load,
    load_like,
    pointer,
    spread_like,
    store,
)
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

_ZERO = f32(0)


@compiled
def forward(jobs: Any, scan: Scan, shape: Shape, strip: int, y: Any, kept: Kept) -> None:
    """Take jobs until none is left; together they write every element of the output.

    Args:
        jobs: The counters of `numba_threads.run`, shared by the threads.
        scan: The inputs.
        shape: Their sizes.
        strip: How many blocks of channels a job takes; the result does not depend on it.
        y: The output, flat (B, L, D) float32.
        kept: Where the states go.
    """
    _forward(jobs, scan, shape, strip, y, kept, splat_group(_ZERO), False)


@compiled
def forward_zoh(jobs: Any, scan: Scan, shape: Shape, strip: int, y: Any, kept: Kept) -> None:
    """``forward`` with the zoh gain."""
    _forward(jobs, scan, shape, strip, y, kept, splat_group(_ZERO), True)


@compiled
def forward_of_one(jobs: Any, scan: Scan, shape: Shape, strip: int, y: Any, kept: Kept) -> None:
    """``forward`` for N = 1."""
    _forward(jobs, scan, shape, strip, y, kept, splat(_ZERO), shape.zoh)


@inlined
def _forward(
    jobs: Any,
    arrays: Scan,
    shape: Shape,
    strip: int,
    output: Any,
    states: Kept,
    zero: Any,
    zoh: bool,
) -> None:
    scan, y = pointers(arrays), pointer(output)
    kept = Kept(pointer(states.states), states.chunks)
    blocks = blocks_of(shape)
    strips = (blocks + strip - 1) // strip
    ws, memory = workspace(shape, strip, rows_of(zero), 0)
    while True:
        job = next_job(jobs)
        if job >= shape.batch * strips:
            break
        b, first = job // strips, job % strips * strip
        for k in range(shape.directions):
            part = part_of(shape, b, k, first, min(strip, blocks - first))
            pack_A(ws, scan, shape, k, part)
            clear(ws.data, ws.h, part.blocks * ws.padded)
            for i in range(chunks_of(shape)):
                chunk = chunk_of(ws, shape, i, 0)
                keep_state(ws, shape, part, kept, i)
                gather(ws, scan, shape, part, k, chunk, True)
                clear(ws.data, ws.y, part.blocks * CHUNK)
                walk_on(ws, scan, shape, part, chunk, y, zero, zoh, True)
                for block in range(part.blocks):
                    _scatter(ws, scan, shape, part, k, chunk, block, y)
        job_done(jobs)
    keep_alive(memory)


@inlined
def _scatter(
    ws: Workspace,
    scan: Scan,
    shape: Shape,
    part: Part,
    k: int,
    chunk: Chunk,
    block: int,
    y: Any,
) -> None:
    """The output of a chunk to its tokens' places, with the skip from the first direction."""
    channel, width = part.channel + block * WIDTH, width_of(shape, part, block)
    skip = load_row(scan.skip, channel, width)
    for t in range(chunk.start, chunk.stop):
        at = (block * CHUNK + t - chunk.start) * WIDTH
        place = (part.token + np.int64(scan.order[part.time + t])) * shape.channels + channel
        y_t = load(ws.data, ws.y + at)
        if k == 0:
            y_t = y_t + skip * load(ws.data, chunk.u + at)
        else:
            y_t = y_t + load_row(y, place, width)
        store_row(y, place, y_t, width)


@inlined
def walk_on(
    ws: Workspace,
    scan: Scan,
    shape: Shape,
    part: Part,
    chunk: Chunk,
    beside: Any,
    zero: Any,
    zoh: bool,
    emit: bool,
) -> None:
    """Take the whole state through a chunk, and add C h to y if told to ``emit``."""
    for block in range(part.blocks):
        for n in range(0, ws.padded, rows_of(zero)):
            ahead = share_of(ws, block, n, rows_of(zero), CHUNK, True, emit)
            walk(ws, scan, shape, part, chunk, block, n, ahead, beside, zero, zoh, emit, False)


@inlined
def walk(
    ws: Workspace,
    scan: Scan,
    shape: Shape,
    part: Part,
    chunk: Chunk,
    block: int,
    n: int,
    ahead: Ahead,
    beside: Any,
    zero: Any,
    zoh: bool,
    emit: bool,
    keep: bool,
) -> None:
    """Take a group of components from n on through a chunk.

    Adds C h to y if told to ``emit``; writes down a, the state before, and the zoh gain of each
    step if told to ``keep``.
    """
    rows, state = rows_of(zero), (block * ws.padded + n) * WIDTH
    A = load_like(ws.data, ws.A + state, zero)
    inverse_A = load_like(ws.data, ws.inverse_A + state, zero)
    h = load_like(ws.data, ws.h + state, zero)
    table = exp2_table()
    for t in range(chunk.start, chunk.stop):
        prefetch_ahead(scan, shape, part, beside, block, t, ahead)
        at = t - chunk.start
        row = (block * CHUNK + at) * WIDTH
        if keep:
            store(ws.data, ws.before + at * rows * WIDTH, h)
        if scan.restart[part.time + t]:
            h = zero
        d, u = load(ws.data, chunk.d + row), load(ws.data, chunk.u + row)
        B = spread_like(ws.data, ws.B + at * ws.padded + n, zero)
        if zoh:
            a, less_one = exp2_and_less_one(A * d)
            g = less_one * inverse_A
            if keep:
                store(ws.data, ws.g + at * rows * WIDTH, g)
            h = a * h + g * u * B
        else:
            a = exp2(A * d, table)
            h = a * h + B * (d * u)
        if keep:
            store(ws.data, ws.a + at * rows * WIDTH, a)
        if emit:
            C = spread_like(ws.data, ws.C + at * ws.padded + n, zero)
            y_t = load(ws.data, ws.y + row)
            store(ws.data, ws.y + row, add_products(h, C, y_t))
    store(ws.data, ws.h + state, h)
