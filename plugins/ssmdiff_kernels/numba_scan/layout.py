"""What the passes compute on: the arrays, their sizes, and the workspace of a thread."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ssmdiff_kernels.numba_scan.memory import after, load, load_part, store, store_part
from ssmdiff_kernels.numba_scan.private import inlined, pointer
from ssmdiff_kernels.numba_scan.vectors import ROWS, WIDTH, splat

CHUNK = 32
"""Steps that are gathered, walked and scattered together."""
ZERO, ONE = np.float32(0), np.float32(1)


class Arrays(NamedTuple):
    """The arrays of ``ScanInputs``, flat; u, delta, B and C may be bfloat16, as uint16.

    Inside of the jitted code, pointers to them.
    """

    u: Any
    delta: Any
    A: Any
    B: Any
    C: Any
    order: Any  # (K, L) int32: token t as t, or as -1 - t where the state starts anew
    skip: Any  # (D,): D summed over k, since the directions share u
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


class KeptStates(NamedTuple):
    """The states that a forward pass keeps for the backward pass to start from."""

    states: Any  # (B, K, spans - 1, N, D) float32: before each span but the first, which has zeros
    chunks: int  # of a span; as many as there are or more, if nothing is kept


class Workspace(NamedTuple):
    """Pointers to the sections of a thread's memory; README.md draws them.

    N' is N, padded to whole groups of components. Sections "of steps" hold, for each block of the
    strip, a row of 16 channels for each step of a chunk; those "of the state", a row for each of N'
    components.
    """

    A: Any  # of the state; times log2(e)
    inverse_A: Any  # noqa: N815 # of the state
    h: Any  # of the state
    y: Any  # of steps; in the backward pass, dy
    B: Any  # (CHUNK, N')
    C: Any  # (CHUNK, N')
    d: Any  # of steps; in the backward pass, of all chunks of a span one after another
    u: Any  # as d
    decay: Any  # of steps: the sum over n of dL/da a A
    rate: Any  # of steps: of dL/dg times the derivative by d of the zoh gain g, without u
    gain: Any  # of steps: of dL/dg g, without u
    dB: Any  # noqa: N815 # (CHUNK, N'), summed over channels
    dC: Any  # noqa: N815 # (CHUNK, N')
    dh: Any  # of the state
    dA: Any  # noqa: N815 # of the state
    a: Any  # (CHUNK) groups: of each step of the group of components at work; and so the next two
    before: Any  # the state before the step
    g: Any
    starts: Any  # of the state, for each chunk of a span but its last: h before it


@inlined
def pointers(arrays: Arrays) -> Arrays:
    """Where the arrays begin."""
    return Arrays(
        pointer(arrays.u),
        pointer(arrays.delta),
        pointer(arrays.A),
        pointer(arrays.B),
        pointer(arrays.C),
        pointer(arrays.order),
        pointer(arrays.skip),
        pointer(arrays.bias),
    )


@inlined
def padded_states(shape: Shape) -> int:
    """N', whole groups of components."""
    return (shape.states + ROWS - 1) // ROWS * ROWS


@inlined
def workspace(shape: Shape, blocks: int, span: int) -> Any:
    """An uninitialised workspace for strips of so many blocks, and the array that holds it.

    For the backward pass over spans of so many chunks, or for the forward pass if that is 0: it
    uses none of the sections behind u.
    """
    padded = padded_states(shape)
    state, steps = blocks * padded * WIDTH, blocks * CHUNK * WIDTH
    table, groups = CHUNK * padded + WIDTH, CHUNK * ROWS * WIDTH
    size = 3 * state + steps + 2 * table + 2 * max(1, span) * steps
    if span > 0:
        size += 3 * steps + 2 * table + 2 * state + 3 * groups + (span - 1) * state
    memory = np.empty(size + WIDTH, np.float32)
    A = after(pointer(memory), (-memory.ctypes.data % 64) // 4)  # at the start of a cache line
    inverse_A = after(A, state)
    h = after(inverse_A, state)
    y = after(h, state)
    B = after(y, steps)
    C = after(B, table)
    d = after(C, table)
    u = after(d, max(1, span) * steps)
    decay = after(u, max(1, span) * steps)
    rate = after(decay, steps)
    gain = after(rate, steps)
    dB = after(gain, steps)
    dC = after(dB, table)
    dh = after(dC, table)
    dA = after(dh, state)
    a = after(dA, state)
    before = after(a, groups)
    g = after(before, groups)
    starts = after(g, groups)
    sections = Workspace(
        A, inverse_A, h, y, B, C, d, u, decay, rate, gain, dB, dC, dh, dA, a, before, g, starts
    )
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
def clear(array: Any, rows: int) -> None:
    """Zero so many rows."""
    for n in range(rows):
        store(array, n * WIDTH, splat(ZERO))


@inlined
def copy(source: Any, target: Any, rows: int) -> None:
    """Copy so many rows."""
    for n in range(rows):
        store(target, n * WIDTH, load(source, n * WIDTH))
