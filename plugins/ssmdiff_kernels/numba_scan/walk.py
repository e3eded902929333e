"""A walk through one direction: what both passes share.

A chunk of steps is gathered from the tokens' own places into the workspace, and the state is taken
through it, a group of components at a time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ssmdiff_kernels.numba_scan.layout import (
    CHUNK,
    ONE,
    ZERO,
    Arrays,
    KeptStates,
    Shape,
    Workspace,
    chunks_of,
    clear,
    load_row,
    padded_states,
    store_row,
)
from ssmdiff_kernels.numba_scan.maths import (
    LOG2_E,
    exp2,
    exp2_and_less_one,
    exp2_table,
    magnitude,
    softplus,
)
from ssmdiff_kernels.numba_scan.memory import load, load_group, prefetch, spread_group, store
from ssmdiff_kernels.numba_scan.private import inlined
from ssmdiff_kernels.numba_scan.vectors import (
    ROWS,
    WIDTH,
    add_products,
    splat,
    splat_group,
    where_less,
)

# Replaces A = 0: 1/A stays finite, and the zoh gain has its limit, d.
_SMALLEST_A = np.float32(1e-30)


class Walk(NamedTuple):
    """A direction and a strip of channels of a batch element, and all that is needed on the way.

    ``zoh`` is a constant of the compiled function, unlike that of the shape.
    """

    arrays: Arrays
    shape: Shape
    kept: KeptStates
    ws: Workspace
    y: Any  # (B, L, D): the output; in the backward pass its gradient dy
    zoh: bool
    padded: int  # N'
    k: int
    number: int  # b K + k
    token: int  # rows before token 0 in u (B, L, D)
    row: int  # rows before token 0 in delta (B, K, L, D), B and C (B, K, L, N)
    time: int  # entries before time 0 in order (K, L)
    channel: int  # the first
    blocks: int  # of 16 channels; the last of all may be narrower


class Chunk(NamedTuple):
    """Some steps of a walk, and where in the workspace's d and u theirs are."""

    start: int
    stop: int
    behind: int


@inlined
def walk_of(
    arrays: Arrays, shape: Shape, kept: KeptStates, ws: Workspace, y: Any, zoh: bool,
    b: int, k: int, block: int, blocks: int,
) -> Walk:  # fmt: skip
    """The walk of batch element b and direction k through the strip that starts at a block."""
    number = b * shape.directions + k
    return Walk(
        arrays, shape, kept, ws, y, zoh, padded_states(shape), k, number,
        b * shape.length, number * shape.length, k * shape.length, block * WIDTH, blocks,
    )  # fmt: skip


@inlined
def chunk_of(walk: Walk, i: int, behind: int) -> Chunk:
    """Chunk i, whose step sizes and inputs are so far behind those of the first of its span."""
    start = i * CHUNK
    return Chunk(start, min(start + CHUNK, walk.shape.length), behind)


@inlined
def width_of(walk: Walk, block: int) -> int:
    """The channels of a block of the strip: 16, or what is left of them."""
    return min(WIDTH, walk.shape.channels - walk.channel - block * WIDTH)


@inlined
def starts_anew(walk: Walk, t: int) -> bool:
    """Whether the state is zero before step t."""
    anew: bool = walk.arrays.order[walk.time + t] < 0
    return anew


@inlined
def token_at(walk: Walk, t: int) -> int:
    """The token that is visited at step t."""
    coded: Any = np.int64(walk.arrays.order[walk.time + t])
    token: int = coded ^ (coded >> 63)  # -1 - t has all bits of t the other way round
    return token


@inlined
def start_walk(walk: Walk) -> None:
    """A of the direction and the strip, (D, N), into the workspace; -1 where there is none."""
    ws, shape = walk.ws, walk.shape
    for block in range(walk.blocks):
        channel, width = walk.channel + block * WIDTH, width_of(walk, block)
        first = (walk.k * shape.channels + channel) * shape.states
        for n in range(walk.padded):
            at = (block * walk.padded + n) * WIDTH
            store(ws.A, at, splat(-ONE))
            for j in range(width if n < shape.states else 0):
                ws.A[at + j] = walk.arrays.A[first + j * shape.states + n]
            A = load(ws.A, at)
            A = where_less(magnitude(A), _SMALLEST_A, -_SMALLEST_A, A)
            store(ws.A, at, A * LOG2_E)
            store(ws.inverse_A, at, ONE / A)


@inlined
def keep_state(walk: Walk, i: int) -> None:
    """Write down the state before chunk i if a span starts with it."""
    if i == 0 or i % walk.kept.chunks > 0:
        return
    for block in range(walk.blocks):
        place, width = _kept_place(walk, i, block), width_of(walk, block)
        for n in range(walk.shape.states):
            h = load(walk.ws.h, (block * walk.padded + n) * WIDTH)
            store_row(walk.kept.states, place + n * walk.shape.channels, h, width)


@inlined
def start_span(walk: Walk, i: int) -> None:
    """The state before chunk i, with which a span starts, into the workspace."""
    clear(walk.ws.h, walk.blocks * walk.padded)
    for block in range(walk.blocks if i > 0 else 0):
        place, width = _kept_place(walk, i, block), width_of(walk, block)
        for n in range(walk.shape.states):
            h = load_row(walk.kept.states, place + n * walk.shape.channels, width)
            store(walk.ws.h, (block * walk.padded + n) * WIDTH, h)
            if i > walk.kept.chunks:  # for the span before this one
                earlier = place + (n - walk.shape.states) * walk.shape.channels
                prefetch(walk.kept.states, earlier)


@inlined
def _kept_place(walk: Walk, i: int, block: int) -> int:
    """Where a block's first component before chunk i is kept."""
    spans = (chunks_of(walk.shape) - 1) // walk.kept.chunks
    state = (walk.number * spans + i // walk.kept.chunks - 1) * walk.shape.states
    place: int = state * walk.shape.channels + walk.channel + block * WIDTH
    return place


@inlined
def gather(walk: Walk, chunk: Chunk, with_C: bool) -> None:
    """What a chunk reads, from the tokens' own places: step sizes, u, B and maybe C."""
    gather_projections(walk, chunk, with_C)
    ws, arrays, channels = walk.ws, walk.arrays, walk.shape.channels
    table = exp2_table()
    for block in range(walk.blocks):
        channel, width = walk.channel + block * WIDTH, width_of(walk, block)
        bias = load_row(arrays.bias, walk.k * channels + channel, width)
        for t in range(chunk.start, chunk.stop):
            token = token_at(walk, t)
            u = load_row(arrays.u, (walk.token + token) * channels + channel, width)
            d = load_row(arrays.delta, (walk.row + token) * channels + channel, width) + bias
            if walk.shape.softplus:
                d = softplus(d, table)
            at = chunk.behind + step_place(chunk, block, t)
            store(ws.u, at, u)
            store(ws.d, at, d)


@inlined
def step_place(chunk: Chunk, block: int, t: int) -> int:
    """Where in a section of steps the row of a block and a step begins."""
    return (block * CHUNK + t - chunk.start) * WIDTH


@inlined
def gather_projections(walk: Walk, chunk: Chunk, with_C: bool) -> None:
    """B of a chunk, and maybe C."""
    ws, arrays, states = walk.ws, walk.arrays, walk.shape.states
    for t in range(chunk.start, chunk.stop):
        row, at = walk.row + token_at(walk, t), (t - chunk.start) * walk.padded
        _gather_row(arrays.B, row * states, ws.B, at, states)
        if with_C:
            _gather_row(arrays.C, row * states, ws.C, at, states)


@inlined
def _gather_row(source: Any, first: int, target: Any, place: int, states: int) -> None:
    """A row of B or C into the workspace, zeros behind it.

    Whole rows of 16 are stored. What they spill is overwritten by the next step; the sections have
    room for the last.
    """
    for n in range(0, states, WIDTH):
        store(target, place + n, load_row(source, first + n, min(WIDTH, states - n)))


@inlined
def walk_chunk(walk: Walk, chunk: Chunk, emit: bool) -> None:
    """Take the whole state through a chunk, and add C h to the workspace's y if ``emit``."""
    for block in range(walk.blocks):
        for n in range(0, walk.padded, ROWS):
            walk_group(walk, chunk, block, n, CHUNK, emit, False)


@inlined
def walk_group(
    walk: Walk, chunk: Chunk, block: int, n: int, ahead: int, emit: bool, record: bool
) -> None:
    """Take a group of components from n on through a chunk.

    Args:
        walk: The walk.
        chunk: The steps.
        block: The block of channels, of the strip.
        n: The first component of the group.
        ahead: How many steps further on what is read is asked for.
        emit: Add C h to the workspace's y.
        record: Write down a, the state before, and the zoh gain of each step.
    """
    ws, state = walk.ws, (block * walk.padded + n) * WIDTH
    A, inverse_A = load_group(ws.A, state), load_group(ws.inverse_A, state)
    h = load_group(ws.h, state)
    table = exp2_table()
    for t in range(chunk.start, chunk.stop):
        if n == 0:
            _ask_for(walk, block, t + ahead)
        at, row = t - chunk.start, step_place(chunk, block, t)
        if record:
            store(ws.before, at * ROWS * WIDTH, h)
        if starts_anew(walk, t):
            h = splat_group(ZERO)
        d, u = load(ws.d, chunk.behind + row), load(ws.u, chunk.behind + row)
        B = spread_group(ws.B, at * walk.padded + n)
        if walk.zoh:
            a, less_one = exp2_and_less_one(A * d)
            g = less_one * inverse_A
            if record:
                store(ws.g, at * ROWS * WIDTH, g)
            h = a * h + g * u * B
        else:
            a = exp2(A * d, table)
            h = a * h + B * (d * u)
        if record:
            store(ws.a, at * ROWS * WIDTH, a)
        if emit:
            C = spread_group(ws.C, at * walk.padded + n)
            store(ws.y, row, add_products(h, C, load(ws.y, row)))
    store(ws.h, state, h)


@inlined
def _ask_for(walk: Walk, block: int, t: int) -> None:
    """Have the rows of step t brought nearer: the hardware cannot guess a random order."""
    arrays, shape = walk.arrays, walk.shape
    token = token_at(walk, max(0, min(t, shape.length - 1)))
    channel = walk.channel + block * WIDTH
    prefetch(arrays.delta, (walk.row + token) * shape.channels + channel)
    prefetch(arrays.u, (walk.token + token) * shape.channels + channel)
    prefetch(walk.y, (walk.token + token) * shape.channels + channel)
    if block == 0:
        prefetch(arrays.B, (walk.row + token) * shape.states)
        prefetch(arrays.C, (walk.row + token) * shape.states)
