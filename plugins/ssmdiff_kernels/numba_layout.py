"""What the passes of `numba_scan.py` share: the inputs, the workspace, and rows of 16 channels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ssmdiff_kernels.numba_math import LOG2_E, f32, softplus_and_sigmoid
from ssmdiff_kernels.numba_vector import (
    WIDTH,
    inlined,
    load,
    load_part,
    prefetch,
    splat,
    store,
    store_part,
)

CHUNK = 32  # steps that are prepared, and in the backward pass kept, at a time
AHEAD = 4  # steps between the prefetch of a row and its use
_SMALLEST_A = f32(1e-30)  # replaces A = 0: 1/A stays finite and the zoh gain has its limit, d
_ZERO, _ONE = f32(0), f32(1)


class Scan(NamedTuple):
    """The arrays of ``ScanInputs``, flat."""

    u: np.ndarray
    delta: np.ndarray
    A: np.ndarray
    B: np.ndarray
    C: np.ndarray
    order: np.ndarray
    restart: np.ndarray  # uint8
    skip: np.ndarray  # (channels,): D summed over k, since the directions share u
    bias: np.ndarray


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
    """What one walk reads: the rows of a batch element and a direction, in a block of channels."""

    token: int  # rows before token 0 in u (B, L, D)
    row: int  # rows before token 0 in delta (B, K, L, D), B and C (B, K, L, N)
    time: int  # entries before time 0 in order (K, L)
    channel: int
    width: int  # 16, or what is left of the channels


class Workspace(NamedTuple):
    """One array of vectors, and where its sections start.

    N vectors each, one for a component of the state, unless another number is given.
    """

    data: np.ndarray
    A: int  # times log2(e)
    inverse_A: int  # noqa: N815
    h: int
    d: int  # CHUNK
    slope: int  # CHUNK: the derivative of d by delta
    dh: int
    dA: int  # noqa: N815 # of this chunk
    dB: int  # noqa: N815 # N' (see padded_states): of this step, each channel's own
    dC: int  # noqa: N815 # N'
    a: int  # CHUNK x N, and so the next two
    ah: int
    gain: int
    starts: int  # chunks x N: the state at the start of each chunk


@inlined
def workspace(shape: Shape, with_backward: bool) -> Workspace:
    """An uninitialised workspace, aligned to a cache line of 64 bytes."""
    section, chunk = shape.states * WIDTH, CHUNK * WIDTH
    padded = padded_states(shape) * WIDTH
    d = 3 * section
    dh = d + 2 * chunk
    dB = dh + 2 * section
    a = dB + 2 * padded
    kept = chunk * shape.states
    starts = a + 3 * kept
    chunks = (shape.length + CHUNK - 1) // CHUNK
    size = starts + chunks * section if with_backward else dh
    raw = np.empty(size + WIDTH, np.float32)
    skip = (-raw.ctypes.data % 64) // 4
    return Workspace(
        raw[skip : skip + size],
        0,
        section,
        2 * section,
        d,
        d + chunk,
        dh,
        dh + section,
        dB,
        dB + padded,
        a,
        a + kept,
        a + 2 * kept,
        starts,
    )


@inlined
def padded_states(shape: Shape) -> int:
    """N', the multiple of 4 that holds N."""
    return (shape.states + 3) // 4 * 4


@inlined
def blocks_of(shape: Shape) -> int:
    """Into how many blocks of 16 the channels fall."""
    return (shape.channels + WIDTH - 1) // WIDTH


@inlined
def part_of(shape: Shape, b: int, k: int, channel: int) -> Part:
    """The rows of batch element b and direction k, and the block that starts at a channel."""
    return Part(
        b * shape.length,
        (b * shape.directions + k) * shape.length,
        k * shape.length,
        channel,
        min(WIDTH, shape.channels - channel),
    )


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
def clear(array: Any, index: int, vectors: int) -> None:
    """Zero so many vectors."""
    for n in range(vectors):
        store(array, index + n * WIDTH, splat(_ZERO))


@inlined
def copy(source: Any, index: int, target: Any, place: int, vectors: int) -> None:
    """Copy so many vectors."""
    for n in range(vectors):
        store(target, place + n * WIDTH, load(source, index + n * WIDTH))


@inlined
def pack_A(ws: Workspace, scan: Scan, shape: Shape, k: int, part: Part) -> None:
    """A of a direction and a block, (width, N), into the workspace."""
    first = (k * shape.channels + part.channel) * shape.states
    for n in range(shape.states):
        for j in range(WIDTH):
            value = scan.A[first + j * shape.states + n] if j < part.width else -_ONE
            if abs(value) < _SMALLEST_A:
                value = -_SMALLEST_A
            ws.data[ws.A + n * WIDTH + j] = value * LOG2_E
            ws.data[ws.inverse_A + n * WIDTH + j] = _ONE / value


@inlined
def prepare(
    ws: Workspace, scan: Scan, shape: Shape, part: Part, bias: Any, start: int, stop: int
) -> None:
    """The step sizes d of a chunk and their derivatives by delta.

    Done for a chunk at a time, since in the recurrence their long latency would show.
    """
    for t in range(start, stop):
        row = part.row + np.int64(scan.order[part.time + t])
        d = load_row(scan.delta, row * shape.channels + part.channel, part.width) + bias
        slope = splat(_ONE)
        if shape.softplus:
            d, slope = softplus_and_sigmoid(d)
        store(ws.data, ws.d + (t - start) * WIDTH, d)
        store(ws.data, ws.slope + (t - start) * WIDTH, slope)


@inlined
def prefetch_walk(scan: Scan, shape: Shape, part: Part, t: int) -> np.int64:
    """Ask for what a walk reads a few steps after t; returns that step's token."""
    last = shape.length - 1
    row = part.row + np.int64(scan.order[part.time + min(t + CHUNK, last)])
    prefetch(scan.delta, row * shape.channels + part.channel)
    token = np.int64(scan.order[part.time + min(t + AHEAD, last)])
    prefetch(scan.B, (part.row + token) * shape.states)
    prefetch(scan.u, (part.token + token) * shape.channels + part.channel)
    return token
