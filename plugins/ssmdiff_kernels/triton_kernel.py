"""The selective scan on a GPU, CUDA or ROCm, in Triton: any shape, any order, all K in one launch.

No GPU has run it yet. It is compared with the float64 reference through Triton's interpreter,
which runs the kernels of `triton_scan.py` on CPU tensors where ``TRITON_INTERPRET=1``.

This file allocates, cuts and launches. Two cuts fit the work to the card:

- The walk of each direction is cut into chunks with a carry between them, as many as give every
  multiprocessor some ten programs. With one chunk the two passes that find the carry fall away;
  with more they cost the exponentials once again.
- The batch is cut into slices with a workspace of about 128 MiB. Directions are summed from one
  output each, rather than by a loop over k within a program, since that loop would leave a K-th of
  the programs and allow no chunks: chunks of two directions share tokens. Atomics would do neither,
  and give other bits in every run.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from ssmdiff import ScanGradients, ScanInputs, decode_order
from torch import Tensor

WORKSPACE = 128 * 2**20  # bytes, without the states between chunks; more if one image needs more
SPAN = 8  # steps whose states the backward pass holds in registers; half where N is above 128
_BLOCK_D = 32  # channels of a program that sums over them or over n
_PROGRAMS = 12  # for each multiprocessor


class TritonKernel:
    """The scan for GPU tensors in float32, bfloat16 or float16; the same bits in every run."""

    name = "triton"
    preference = 100

    def unavailable(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why this kernel cannot run for tensors of that device and dtype, or None if it can."""
        if importlib.util.find_spec("triton") is None:
            return "triton is not installed; try: pip install 'ssmdiff[cuda]'"
        if dtype not in (torch.float32, torch.bfloat16, torch.float16):
            return f"the triton kernel computes in float32, from 16 or 32 bits; got {dtype}"
        if device.type == "cuda":
            return None if torch.cuda.is_available() else "no GPU was found"
        if device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1":
            return None
        return f"the triton kernel runs on a GPU; the tensors are on {device}"

    def forward(self, inputs: ScanInputs) -> Tensor:
        """The output y (B, L, D) in the dtype of ``inputs.u``, tokens in grid order."""
        with torch.cuda.device_of(inputs.u):  # Triton launches on the current device
            return _forward(inputs)

    def backward(self, grad_y: Tensor, inputs: ScanInputs) -> ScanGradients:
        """All gradients, from the inputs alone; see :data:`WORKSPACE` for what it allocates."""
        with torch.cuda.device_of(inputs.u):
            return _backward(grad_y, inputs)


def _forward(inputs: ScanInputs) -> Tensor:
    from ssmdiff_kernels import triton_scan

    directions, length, channels = inputs.delta.shape[1:]
    y = torch.empty(inputs.u.shape, dtype=inputs.u.dtype, device=inputs.u.device)
    scan = _Launcher(inputs, backward=False)
    for part in scan.slices():
        starts, _ = scan.carried(part, None)
        each = scan.empty(len(part.u), directions, length, channels)
        arguments = (part.u, part.delta, scan.A, part.B, part.C, *scan.walk, starts, each)
        triton_scan.outputs[scan.programs(part)](*arguments, *scan.sizes, **scan.fixed)
        scan.merge(each, part.u, y[part.images])
    return y


def _backward(grad_y: Tensor, inputs: ScanInputs) -> ScanGradients:
    from ssmdiff_kernels import triton_scan

    directions, length, channels = inputs.delta.shape[1:]
    states, blocks = inputs.A.shape[-1], -(-channels // _BLOCK_D)
    scan = _Launcher(inputs, backward=True)
    du, ddelta, dB, dC = (
        torch.empty(x.shape, dtype=x.dtype, device=x.device)
        for x in (inputs.u, inputs.delta, inputs.B, inputs.C)
    )
    dA = torch.zeros_like(scan.A)
    dD, dbias = torch.zeros_like(scan.skip), torch.zeros_like(scan.bias)
    grad_y = grad_y.contiguous()
    for part in scan.slices():
        dy, n = grad_y[part.images], len(part.u)
        starts, adjoints = scan.carried(part, dy)
        inner = scan.empty(n, directions, -(-length // scan.span), states, channels)
        each = scan.empty(n, directions, length, channels)
        parts = [scan.empty(blocks, n, directions, length, states) for _ in range(2)]
        dA_parts = scan.empty(n, directions, scan.chunks, states, channels)
        dbias_parts = scan.empty(n, directions, scan.chunks, channels)
        triton_scan.gradients[scan.programs(part)](
            part.u, part.delta, scan.A, part.B, part.C, *scan.walk, dy, starts, adjoints, inner,
            each, ddelta[part.images], *parts, dA_parts, dbias_parts,
            *scan.sizes, **scan.fixed, SPAN=scan.span,
        )  # fmt: skip
        scan.merge(each, dy, du[part.images])
        for whole, blockwise in zip((dB, dC), parts, strict=True):
            whole[part.images] = blockwise.sum(0)
        dA += dA_parts.sum((0, 2))
        dbias += dbias_parts.sum((0, 2))
        if inputs.D is not None:
            dD += (dy.float() * part.u.float()).sum((0, 1))

    def like(gradient: Tensor, value: Tensor | None) -> Tensor | None:
        return None if value is None else gradient.expand(value.shape).to(value.dtype).contiguous()

    return ScanGradients(
        u=du,
        delta=ddelta,
        A=dA.transpose(1, 2).to(inputs.A.dtype).contiguous(),
        B=dB,
        C=dC,
        D=like(dD, inputs.D),  # every direction visits all tokens: the same for each
        delta_bias=like(dbias, inputs.delta_bias),
    )


class _Part(NamedTuple):
    """The inputs of a slice of the batch."""

    images: slice
    u: Tensor
    delta: Tensor
    B: Tensor
    C: Tensor


class _Launcher:
    """The inputs as the kernels take them, absent ones as zeros, and how they are cut."""

    def __init__(self, inputs: ScanInputs, backward: bool) -> None:
        self.batch, self.directions, self.length, self.channels = inputs.delta.shape
        self.states = inputs.A.shape[-1]
        self.device = inputs.u.device
        self.inputs = inputs._replace(
            **{name: getattr(inputs, name).contiguous() for name in ("u", "delta", "B", "C")}
        )
        self.A = inputs.A.transpose(1, 2).to(torch.float32).contiguous()  # (K, N, D)
        zeros = torch.zeros(self.directions, self.channels, device=self.device)
        bias = zeros if inputs.delta_bias is None else inputs.delta_bias
        self.bias = bias.to(torch.float32).contiguous()
        self.skip = (zeros if inputs.D is None else inputs.D.to(torch.float32)).sum(0)
        order, restart = decode_order(inputs.order.contiguous())
        # Without restarts nothing is read behind this pointer.
        flags = order if restart is None else restart.to(torch.uint8).contiguous()
        self.walk = (order, flags, self.bias)
        self.span = SPAN if self.states <= 128 else SPAN // 2
        self.slice_size = self._slice_size(backward)
        self.chunk = self._chunk()
        self.chunks = -(-self.length // self.chunk)
        self.broken = order
        if restart is not None:
            padded = torch.nn.functional.pad(restart, (0, self.chunks * self.chunk - self.length))
            self.broken = padded.view(-1, self.chunks, self.chunk).any(-1).to(torch.uint8)
        self.sizes = (
            self.directions, self.length, self.channels, self.states, self.chunks, self.chunk,
        )  # fmt: skip
        self.flags: dict[str, Any] = {
            "BLOCK_N": 1 << (self.states - 1).bit_length(),
            "SOFTPLUS": inputs.delta_softplus,
            "ZOH": inputs.discretization == "zoh",
            "RESTART": restart is not None,
        }
        # A warp for every 16 components of the state: 16 registers of a lane hold one of them.
        warps = min(8, max(1, self.flags["BLOCK_N"] // 16))
        self.fixed = {**self.flags, "BLOCK_D": _BLOCK_D, "num_warps": warps}

    def _slice_size(self, backward: bool) -> int:
        """How many images at a time."""
        row = self.channels  # floats for a token of a direction
        if backward:
            blocks = -(-self.channels // _BLOCK_D)
            row += self.channels * self.states // self.span + 2 * blocks * self.states
        image = 4 * self.directions * self.length * row
        return max(1, min(self.batch, WORKSPACE // image))

    def _chunk(self) -> int:
        """T: the longest that gives each multiprocessor its programs, at least 4 spans long."""
        wanted = 2
        if self.device.type == "cuda":
            processors = torch.cuda.get_device_properties(self.device).multi_processor_count
            walks = self.slice_size * self.directions * -(-self.channels // _BLOCK_D)
            wanted = -(-processors * _PROGRAMS // walks)
        shortest = 4 * SPAN
        return max(shortest, -(-self.length // wanted // SPAN) * SPAN)

    def slices(self) -> Iterator[_Part]:
        """The batch, so many images at a time as the workspace holds."""
        for first in range(0, self.batch, self.slice_size):
            images = slice(first, min(first + self.slice_size, self.batch))
            tensors = (self.inputs.u, self.inputs.delta, self.inputs.B, self.inputs.C)
            yield _Part(images, *(x[images] for x in tensors))

    def empty(self, *shape: int) -> Tensor:
        """Float32 workspace."""
        return torch.empty(shape, dtype=torch.float32, device=self.device)

    def programs(self, part: _Part) -> Callable[[dict[str, int]], tuple[int]]:
        """The grid: one program for each block of each chunk of each direction of each image."""
        walks = len(part.u) * self.directions * self.chunks
        return lambda meta: (walks * -(-self.channels // meta["BLOCK_D"]),)

    def carried(self, part: _Part, dy: Tensor | None) -> tuple[Tensor, Tensor]:
        """h before each chunk and, given dy, dh after each, (B, K, chunks, N, D)."""
        from ssmdiff_kernels import triton_scan

        if self.chunks == 1:  # neither is read
            return self.A, self.A
        shape = (len(part.u), self.directions, self.chunks, self.states, self.channels)
        starts, sums = self.empty(*shape), self.empty(*shape[:3], self.channels)
        triton_scan.chunk_ends[self.programs(part)](
            part.u, part.delta, self.A, part.B, *self.walk, starts, sums, *self.sizes, **self.flags
        )
        self._carry(starts, sums, backwards=False)
        if dy is None:
            return starts, starts
        adjoints = self.empty(*shape)
        triton_scan.chunk_adjoints[self.programs(part)](
            dy, part.delta, self.A, part.C, *self.walk, adjoints, *self.sizes, **self.flags
        )
        self._carry(adjoints, sums, backwards=True)
        return starts, adjoints

    def _carry(self, states: Tensor, sums: Tensor, backwards: bool) -> None:
        from ssmdiff_kernels import triton_scan

        block = 128
        programs = len(states) * self.directions * -(-self.states * self.channels // block)
        triton_scan.carry[(programs,)](
            states, sums, self.A, self.broken,
            self.directions, self.channels, self.states, self.chunks,
            RESTART=self.flags["RESTART"], BACKWARDS=backwards, BLOCK=block,
        )  # fmt: skip

    def merge(self, each: Tensor, x: Tensor, y: Tensor) -> None:
        """y (B, L, D) = x skip + the directions' outputs (B, K, L, D), summed."""
        from ssmdiff_kernels import triton_scan

        size, block = self.length * self.channels, 1024
        programs = len(x) * -(-size // block)
        triton_scan.merge[(programs,)](
            each, x, self.skip, y, self.directions, size, self.channels, BLOCK=block
        )
