"""The selective scan on a CPU; README.md has it in pseudo-code. The maths is the reference's."""

from __future__ import annotations

from typing import Any

from ssmdiff_kernels.numba_scan.layout import (
    CHUNK,
    Arrays,
    KeptStates,
    Shape,
    blocks_of,
    chunks_of,
    clear,
    load_row,
    pointers,
    store_row,
    workspace,
)
from ssmdiff_kernels.numba_scan.memory import keep_alive, load
from ssmdiff_kernels.numba_scan.private import compiled, inlined, pointer
from ssmdiff_kernels.numba_scan.threads import next_job
from ssmdiff_kernels.numba_scan.vectors import WIDTH
from ssmdiff_kernels.numba_scan.walk import (
    Chunk,
    Walk,
    chunk_of,
    gather,
    keep_state,
    start_walk,
    step_place,
    token_at,
    walk_chunk,
    walk_of,
    width_of,
)


@compiled
def forward(jobs: Any, arrays: Arrays, shape: Shape, strip: int, y: Any, kept: KeptStates) -> None:
    """Take jobs until none is left; together they write every element of the output.

    Args:
        jobs: The counter of `threads.run`, shared by the threads.
        arrays: The inputs.
        shape: Their sizes.
        strip: How many blocks of channels a job takes; the result does not depend on it.
        y: The output, flat (B, L, D) float32.
        kept: Where the states go.
    """
    _forward(jobs, arrays, shape, strip, y, kept, False)


@compiled
def forward_zoh(
    jobs: Any, arrays: Arrays, shape: Shape, strip: int, y: Any, kept: KeptStates
) -> None:
    """``forward`` with the zoh gain."""
    _forward(jobs, arrays, shape, strip, y, kept, True)


@inlined
def _forward(
    jobs: Any,
    arrays: Arrays,
    shape: Shape,
    strip: int,
    y: Any,
    kept: KeptStates,
    zoh: bool,
) -> None:
    inputs, output = pointers(arrays), pointer(y)
    states = KeptStates(pointer(kept.states), kept.chunks)
    blocks = blocks_of(shape)
    strips = (blocks + strip - 1) // strip
    ws, memory = workspace(shape, strip, 0)
    while True:
        job = next_job(jobs)
        if job >= shape.batch * strips:
            break
        b, first = job // strips, job % strips * strip
        for k in range(shape.directions):
            size = min(strip, blocks - first)
            walk = walk_of(inputs, shape, states, ws, output, zoh, b, k, first, size)
            start_walk(walk)
            clear(ws.h, walk.blocks * walk.padded)
            for i in range(chunks_of(shape)):
                chunk = chunk_of(walk, i, 0)
                keep_state(walk, i)
                gather(walk, chunk, True)
                clear(ws.y, walk.blocks * CHUNK)
                walk_chunk(walk, chunk, True)
                for block in range(walk.blocks):
                    _scatter(walk, chunk, block)
    keep_alive(memory)


@inlined
def _scatter(walk: Walk, chunk: Chunk, block: int) -> None:
    """The output of a chunk to its tokens' places, with the skip from the first direction."""
    channel, width = walk.channel + block * WIDTH, width_of(walk, block)
    skip = load_row(walk.arrays.skip, channel, width)
    for t in range(chunk.start, chunk.stop):
        at = step_place(chunk, block, t)
        place = (walk.token + token_at(walk, t)) * walk.shape.channels + channel
        y = load(walk.ws.y, at)
        if walk.k == 0:
            y = y + skip * load(walk.ws.u, chunk.behind + at)
        else:
            y = y + load_row(walk.y, place, width)
        store_row(walk.y, place, y, width)
