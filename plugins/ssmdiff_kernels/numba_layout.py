"""What the passes of `numba_scan.py` share: the inputs, the workspace, strips of channels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ssmdiff_kernels.numba_math import LOG2_E, exp2_table, f32, softplus
from ssmdiff_kernels.numba_memory import (
    load,
    load_part,
    pointer,
    prefetch,
    store,
    store_part,
)
from ssmdiff_kernels.numba_vector import WIDTH, inlined, splat

CHUNK = 32
_SMALLEST_A = f32(1e-30)  # replaces A = 0: 1/A stays finite and the zoh gain has its limit, d
_ZERO, _ONE = f32(0), f32(1)


class Scan(NamedTuple):
    """The arrays of ``ScanInputs``, flat; u, delta, B and C may hold bfloat16 as uint16.

    Inside of the jitted code, pointers to them.
    """

    u: Any
    delta: Any
    A: Any
    B: Any
    C: Any
    order: Any
    restart: Any  # uint8
    skip: Any  # (channels,): D summed over k, since the directions share u
    bias: Any


class Shape(NamedTuple):
    """Sizes B, K, L, D, N and the two switches."""

    batch: int
    directions: int
    length: int
    channels: int
    states: int
    softplus: bool
    zoh: bool


class Part(NamedTuple):
    """What one walk reads: the rows of a batch element and a direction, in a strip of channels."""

    token: int  # rows before token 0 in u (B, L, D)
    row: int  # rows before token 0 in delta (B, K, L, D), B and C (B, K, L, N)
    time: int  # entries before time 0 in order (K, L)
    channel: int
    blocks: int  # of 16 channels; the last of all may be narrower


class Chunk(NamedTuple):
    """Some steps of a walk, and where in the workspace their step sizes and inputs are."""

    start: int
    stop: int
    d: int
    u: int


class Kept(NamedTuple):
    """The states that a forward pass keeps for the backward pass to start from."""

    states: Any  # (B, K, spans - 1, N, D) float32: before each span but the first, which has zeros
    chunks: int  # of a span; as many as there are or more, if nothing is kept


class Workspace(NamedTuple):
    """A pointer to memory of this thread, and where its sections start.

    N' is N, padded to whole groups of components. Sections "of steps" hold, for each block of the
    strip, a row of 16 channels for each step of a chunk; those "of the state", a row for each of N'
    components.
    """

    data: Any
    padded: int  # N'
    A: int  # of the state; times log2(e)
    inverse_A: int  # noqa: N815 # of the state
    h: int  # of the state
    d: int  # of steps; in the backward pass, of all chunks of a span one after another
    u: int  # as d
    y: int  # of steps; in the backward pass, dy
    B: int  # (CHUNK, N')
    C: int  # (CHUNK, N')
    decay: int  # of steps: the sum over n of dL/da a A
    rate: int  # of steps: of dL/dg times the derivative by d of the zoh gain g, without u
    gain: int  # of steps: of dL/dg g, without u
    dB: int  # noqa: N815 # (CHUNK, N'), summed over channels
    dC: int  # noqa: N815 # (CHUNK, N')
    dh: int  # of the state
    dA: int  # noqa: N815 # of the state
    a: int  # a row for each step and component of one group; and so the next two
    before: int  # the state before the step
    g: int
    starts: int  # of the state, for each chunk of a span but its last: h before it


@inlined
def pointers(scan: Scan) -> Scan:
    """Where the arrays begin."""
    return Scan(
        pointer(scan.u),
        pointer(scan.delta),
        pointer(scan.A),
        pointer(scan.B),
        pointer(scan.C),
        pointer(scan.order),
        pointer(scan.restart),
        pointer(scan.skip),
        pointer(scan.bias),
    )


@inlined
def workspace(shape: Shape, blocks: int, rows: int, span: int) -> Any:
    """An uninitialised workspace for strips of so many blocks and groups of so many components.

    For the backward pass over spans of so many chunks, or the forward pass if that is 0. Aligned to
    a cache line of 64 bytes. Returns it and the array that holds it.
    """
    padded = (shape.states + rows - 1) // rows * rows
    state, steps, table = blocks * padded * WIDTH, blocks * CHUNK * WIDTH, CHUNK * padded + WIDTH
    kept = CHUNK * rows * WIDTH
    inverse_A, h, y = state, 2 * state, 3 * state
    B = y + steps
    C = B + table
    d = C + table
    all_steps = max(1, span) * steps
    u = d + all_steps
    decay = u + all_steps
    rate, gain, dB = decay + steps, decay + 2 * steps, decay + 3 * steps
    dC = dB + table
    dh = dC + table
    dA, a = dh + state, dh + 2 * state
    before, g, starts = a + kept, a + 2 * kept, a + 3 * kept
    size = starts + (span - 1) * state if span > 0 else decay
    memory = np.empty(size + WIDTH, np.float32)
    aligned = pointer(memory[(-memory.ctypes.data % 64) // 4 :])
    sections = Workspace(
        aligned, padded, 0, inverse_A, h, d, u, y, B, C, decay, rate, gain,
        dB, dC, dh, dA, a, before, g, starts,
    )  # fmt: skip
    return sections, memory


@inlined
def blocks_of(shape: Shape) -> int:
    """Into how many blocks of 16 the channels fall."""
    return (shape.channels + WIDTH - 1) // WIDTH


@inlined
def chunks_of(shape: Shape) -> int:
    """Into how many chunks the steps fall."""
    return (shape.length + CHUNK - 1) // CHUNK


@inlined
def part_of(shape: Shape, b: int, k: int, block: int, blocks: int) -> Part:
    """The rows of batch element b and direction k, and the strip that starts at a block."""
    return Part(
        b * shape.length,
        (b * shape.directions + k) * shape.length,
        k * shape.length,
        block * WIDTH,
        blocks,
    )


@inlined
def chunk_of(ws: Workspace, shape: Shape, i: int, behind: int) -> Chunk:
    """Chunk i, whose step sizes and inputs are so far behind those of the first of its span."""
    start = i * CHUNK
    return Chunk(start, min(start + CHUNK, shape.length), ws.d + behind, ws.u + behind)


@inlined
def width_of(shape: Shape, part: Part, block: int) -> int:
    """The channels of a block of the strip: 16, or what is left of them."""
    return min(WIDTH, shape.channels - part.channel - block * WIDTH)


@inlined
def load_row(array: Any, index: int, width: int) -> Any:
    """``array[index : index + width]``, zeros behind it."""
    if width == WIDTH:
        return load(array, index)
    return load_part(array, index, width)


@inlined
def store_row(array: Any, index: int, value: Any, width: int) -> None:
    """``array[index : index + width]`` from a vector."""
    if width == WIDTH:
        store(array, index, value)
    else:
        store_part(array, index, value, width)


@inlined
def clear(array: Any, index: int, rows: int) -> None:
    """Zero so many rows."""
    for n in range(rows):
        store(array, index + n * WIDTH, splat(_ZERO))


@inlined
def copy(array: Any, source: int, target: int, rows: int) -> None:
    """Copy so many rows from one place to another."""
    for n in range(rows):
        store(array, target + n * WIDTH, load(array, source + n * WIDTH))


@inlined
def keep_state(ws: Workspace, shape: Shape, part: Part, kept: Kept, i: int) -> None:
    """Write down the state before chunk i if a span starts with it."""
    if i == 0 or i % kept.chunks > 0:
        return
    for block in range(part.blocks):
        place, width = _kept_place(shape, part, kept, i, block), width_of(shape, part, block)
        for n in range(shape.states):
            h = load(ws.data, ws.h + (block * ws.padded + n) * WIDTH)
            store_row(kept.states, place + n * shape.channels, h, width)


@inlined
def start_span(ws: Workspace, shape: Shape, part: Part, kept: Kept, i: int) -> None:
    """The state before chunk i, with which a span starts, into the workspace."""
    clear(ws.data, ws.h, part.blocks * ws.padded)
    for block in range(part.blocks if i > 0 else 0):
        place, width = _kept_place(shape, part, kept, i, block), width_of(shape, part, block)
        for n in range(shape.states):
            h = load_row(kept.states, place + n * shape.channels, width)
            store(ws.data, ws.h + (block * ws.padded + n) * WIDTH, h)
            if i > kept.chunks:  # for the span before this one
                prefetch(kept.states, place + (n - shape.states) * shape.channels)


@inlined
def _kept_place(shape: Shape, part: Part, kept: Kept, i: int, block: int) -> int:
    """Where a block's first component before chunk i is kept."""
    number, spans = part.row // shape.length, (chunks_of(shape) - 1) // kept.chunks
    state = (number * spans + i // kept.chunks - 1) * shape.states
    place: int = state * shape.channels + part.channel + block * WIDTH
    return place


@inlined
def pack_A(ws: Workspace, scan: Scan, shape: Shape, k: int, part: Part) -> None:
    """A of a direction and a strip, (channels, N), into the workspace; -1 where there is none."""
    for block in range(part.blocks):
        channel = part.channel + block * WIDTH
        first = (k * shape.channels + channel) * shape.states
        for n in range(ws.padded):
            at = (block * ws.padded + n) * WIDTH
            for j in range(WIDTH):
                value = -_ONE
                if channel + j < shape.channels and n < shape.states:
                    value = scan.A[first + j * shape.states + n]
                if abs(value) < _SMALLEST_A:
                    value = -_SMALLEST_A
                ws.data[ws.A + at + j] = value * LOG2_E
                ws.data[ws.inverse_A + at + j] = _ONE / value


@inlined
def gather_states(source: Any, row: int, ws: Workspace, place: int, states: int) -> None:
    """A row of B or C into the workspace, zeros behind it.

    Whole rows of 16 are stored. What they spill is overwritten by the next step; the sections have
    room for the last.
    """
    for n in range(0, states, WIDTH):
        store(ws.data, place + n, load_row(source, row * states + n, min(WIDTH, states - n)))


@inlined
def gather(
    ws: Workspace, scan: Scan, shape: Shape, part: Part, k: int, chunk: Chunk, with_C: bool
) -> None:
    """What a chunk reads, from the tokens' own places: step sizes, u, B and maybe C."""
    gather_projections(ws, scan, shape, part, chunk, with_C)
    start, stop = chunk.start, chunk.stop
    table = exp2_table()
    for block in range(part.blocks):
        channel, width = part.channel + block * WIDTH, width_of(shape, part, block)
        bias = load_row(scan.bias, k * shape.channels + channel, width)
        for t in range(start, stop):
            place = (block * CHUNK + t - start) * WIDTH
            token = np.int64(scan.order[part.time + t])
            u = load_row(scan.u, (part.token + token) * shape.channels + channel, width)
            d = load_row(scan.delta, (part.row + token) * shape.channels + channel, width) + bias
            if shape.softplus:
                d = softplus(d, table)
            store(ws.data, chunk.u + place, u)
            store(ws.data, chunk.d + place, d)


@inlined
def gather_projections(
    ws: Workspace, scan: Scan, shape: Shape, part: Part, chunk: Chunk, with_C: bool
) -> None:
    """B of a chunk, and maybe C."""
    for t in range(chunk.start, chunk.stop):
        row, at = part.row + np.int64(scan.order[part.time + t]), (t - chunk.start) * ws.padded
        gather_states(scan.B, row, ws, ws.B + at, shape.states)
        if with_C:
            gather_states(scan.C, row, ws, ws.C + at, shape.states)


class Ahead(NamedTuple):
    """What a walk asks for while it computes, so that memory works all the time.

    The hardware cannot guess a random order. What the chunk ``steps`` further reads is divided
    among the walks of this one, a walk for each group of components.
    """

    steps: int
    delta: bool
    u: bool
    beside: bool
    B: bool
    C: bool


@inlined
def share_of(
    ws: Workspace, block: int, n: int, rows: int, steps: int, inputs: bool, results: bool
) -> Ahead:
    """The share of the walk through the group of components that begins at n.

    What is ahead reads delta and u if it needs ``inputs``, and C and what goes beside it if it has
    ``results``.
    """
    turn, turns = n // rows, ws.padded // rows
    states = block == 0 and 3 % turns == turn
    return Ahead(
        steps,
        inputs and turn == 0,
        inputs and 1 % turns == turn,
        results and 2 % turns == turn,
        states,
        states and results,
    )


@inlined
def prefetch_ahead(
    scan: Scan, shape: Shape, part: Part, beside: Any, block: int, t: int, ahead: Ahead
) -> None:
    """Ask for this walk's share of what step ``t + ahead.steps`` reads; ``beside`` is (B, L, D)."""
    later = max(0, min(t + ahead.steps, shape.length - 1))
    token = np.int64(scan.order[part.time + later])
    channel = part.channel + block * WIDTH
    if ahead.delta:
        prefetch(scan.delta, (part.row + token) * shape.channels + channel)
    if ahead.u:
        prefetch(scan.u, (part.token + token) * shape.channels + channel)
    if ahead.beside:
        prefetch(beside, (part.token + token) * shape.channels + channel)
    if ahead.B:
        prefetch(scan.B, (part.row + token) * shape.states)
    if ahead.C:
        prefetch(scan.C, (part.row + token) * shape.states)
