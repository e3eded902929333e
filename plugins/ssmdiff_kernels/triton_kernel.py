"""The selective scan on a GPU, CUDA or ROCm, in Triton: any shape, any order, all K in one launch.

It is compared with the float64 reference on a GPU and through Triton's interpreter, which runs the
kernels of `triton_scan.py` on CPU tensors where ``TRITON_INTERPRET=1``.

This file allocates, cuts and launches. Two cuts fit the work to the card:

- The walk of each direction is cut into chunks with a carry between them, as many as give every
  multiprocessor some twenty programs. With one chunk the two passes that find the carry fall away;
  with more they cost the exponentials once again.
- The batch is cut into slices with a workspace of at most 512 MiB. Directions are summed from one
  output each, rather than by a loop over k within a program, since that loop would leave a K-th of
  the programs and allow no chunks: chunks of two directions share tokens. Atomics would do neither,
  and give other bits in every run.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from ssmdiff import ScanGradients, ScanInputs, restarts_in
from torch import Tensor

WORKSPACE = 512 * 2**20
"""Bytes, without the states between chunks, or a 32nd of the card's memory if that is less; more if
one image needs more."""
SHORTEST = 32  # steps of a chunk


class Cut(NamedTuple):
    """How a pass is cut, by what was fastest on an H100: `docs/gpu.md`."""

    channels: int  # of a program
    span: int  # steps that a program asks for at once
    numbers: int  # of the state that a warp holds at most
    programs: int = 0  # for each multiprocessor


# Blocks of 64 channels are the faster ones unless a half of the last one would be empty.
FORWARD, FORWARD_NARROW = Cut(64, 4, 1024, 24), Cut(32, 4, 512, 16)
BACKWARD = Cut(32, 2, 512, 16)  # its states before every span go through memory
ADJOINTS = Cut(32, 4, 512)


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
    narrow = channels % 64 in range(1, 33)
    scan = _Launcher(inputs, FORWARD_NARROW if narrow else FORWARD, row=channels)
    for part in scan.slices():
        starts, _ = scan.carried(part)
        each = scan.empty(len(part.u), directions, length, channels)
        arguments = (part.u, part.delta, scan.A, part.B, part.C, *scan.walk, starts, each)
        scan.launch(triton_scan.outputs, part, scan.chunks, *arguments)
        scan.merge(each, part.u, y[part.images])
    return y


def _backward(grad_y: Tensor, inputs: ScanInputs) -> ScanGradients:
    from ssmdiff_kernels import triton_scan

    (directions, length, channels), states = inputs.delta.shape[1:], inputs.A.shape[-1]
    blocks, spans = -(-channels // BACKWARD.channels), -(-length // BACKWARD.span)
    row = channels + channels * (states + 1) // BACKWARD.span + 2 * blocks * states
    scan = _Launcher(inputs, BACKWARD, row)
    du, ddelta, dB, dC = (
        torch.empty(x.shape, dtype=x.dtype, device=x.device)
        for x in (inputs.u, inputs.delta, inputs.B, inputs.C)
    )
    dA, dbias = torch.zeros_like(scan.A), torch.zeros_like(scan.bias)
    dD = torch.zeros_like(scan.skip)
    grad_y = grad_y.contiguous()
    for part in scan.slices():
        dy, n = grad_y[part.images], len(part.u)
        inner = scan.empty(n, directions, spans, channels, states)
        inner_sums = scan.empty(n, directions, spans, channels)
        starts, sums = scan.carried(part, inner, inner_sums)
        adjoints = scan.adjoints(part, dy, sums)
        each = scan.empty(n, directions, length, channels)
        parts = [scan.empty(blocks, n, directions, length, states) for _ in range(2)]
        dA_parts = scan.empty(n, directions, scan.chunks, channels, states)
        dbias_parts, dD_parts = torch.empty_like(sums), torch.empty_like(sums)
        scan.launch(
            triton_scan.gradients, part, scan.chunks,
            part.u, part.delta, scan.A, part.B, part.C, *scan.walk, dy, starts, adjoints,
            inner, inner_sums,
            each, ddelta[part.images], *parts, dA_parts, dbias_parts, dD_parts,
        )  # fmt: skip
        scan.merge(each, dy, du[part.images])
        for whole, blockwise in zip((dB, dC), parts, strict=True):
            whole[part.images] = blockwise.sum(0)
        dA += dA_parts.sum((0, 2))
        dbias += dbias_parts.sum((0, 2))
        dD += dD_parts[:, 0].sum((0, 1))  # every direction visits all tokens: the same for each

    def like(gradient: Tensor, value: Tensor | None) -> Tensor | None:
        return None if value is None else gradient.expand(value.shape).to(value.dtype).contiguous()

    return ScanGradients(
        u=du,
        delta=ddelta,
        A=dA.to(inputs.A.dtype),
        B=dB,
        C=dC,
        D=like(dD, inputs.D),
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
    """The inputs as the kernels take them, absent ones as zeros, and how they are cut.

    Args:
        inputs: Of the scan.
        cut: Of the passes that make up most of the work.
        row: Floats of workspace for a token of a direction.
    """

    def __init__(self, inputs: ScanInputs, cut: Cut, row: int) -> None:
        self.batch, directions, self.length, self.channels = inputs.delta.shape
        self.directions, self.states = directions, inputs.A.shape[-1]
        self.device, self.cut = inputs.u.device, cut
        B, C = inputs.B, inputs.C
        if B.stride(3) != 1 or B.stride() != C.stride():  # they are often views of one tensor
            B, C = B.contiguous(), C.contiguous()
        self.tensors = (inputs.u.contiguous(), inputs.delta.contiguous(), B, C)
        self.A = inputs.A.to(torch.float32).contiguous()  # (K, D, N)
        self.bias = self._of_channels(inputs.delta_bias)
        self.skip = self._of_channels(inputs.D).sum(0)
        self.walk = (inputs.order.contiguous(), self.bias)
        memory, processors = _card(self.device)
        workspace = min(WORKSPACE, memory // 32)
        most = max(1, min(self.batch, workspace // (4 * directions * self.length * row)))
        self.slice_size = -(-self.batch // -(-self.batch // most))  # slices of about one size
        walks = self.slice_size * directions * -(-self.channels // cut.channels)
        wanted = -(-processors * cut.programs // walks)
        self.chunk = max(SHORTEST, -(-self.length // wanted // 16) * 16)
        self.chunks = -(-self.length // self.chunk)
        self.sizes = (
            directions, self.length, self.channels, self.states, self.chunks, self.chunk,
            *B.stride()[:3],
        )  # fmt: skip
        self.flags: dict[str, Any] = {
            "BLOCK_N": 1 << (self.states - 1).bit_length(),
            "SOFTPLUS": inputs.delta_softplus,
            "ZOH": inputs.discretization == "zoh",
            "RESTART": restarts_in(inputs.order) is not False,
        }

    def _of_channels(self, x: Tensor | None) -> Tensor:
        if x is None:
            return torch.zeros(self.directions, self.channels, device=self.device)
        return x.to(torch.float32).contiguous()

    def slices(self) -> Iterator[_Part]:
        """The batch, so many images at a time as the workspace holds."""
        for first in range(0, self.batch, self.slice_size):
            images = slice(first, min(first + self.slice_size, self.batch))
            yield _Part(images, *(x[images] for x in self.tensors))

    def empty(self, *shape: int) -> Tensor:
        """Float32 workspace."""
        return torch.empty(shape, dtype=torch.float32, device=self.device)

    def launch(
        self, kernel: Any, part: _Part, chunks: int, *arguments: Tensor,
        cut: Cut | None = None, **flags: bool,
    ) -> None:  # fmt: skip
        """A program for each block of each of so many chunks of each direction of each image."""
        channels, span, numbers, _ = cut or self.cut
        programs = len(part.u) * self.directions * chunks * -(-self.channels // channels)
        warps = min(8, max(1, self.flags["BLOCK_N"] * channels // numbers))
        kernel[(programs,)](
            *arguments, *self.sizes, **self.flags, **flags,
            BLOCK_D=channels, SPAN=span, num_warps=warps,
        )  # fmt: skip

    def carried(self, part: _Part, *inner: Tensor) -> tuple[Tensor, Tensor]:
        """h before each chunk, (B, K, chunks, D, N), and the sum of d over it, (B, K, chunks, D).

        Fills ``inner``, what the backward pass needs of the spans between, if it is given.
        """
        from ssmdiff_kernels import triton_scan

        if self.chunks == 1 and not inner:  # neither is read
            return self.A, self.A
        sums = self.empty(len(part.u), self.directions, self.chunks, self.channels)
        starts = self.empty(*sums.shape, self.states)
        arguments = (part.u, part.delta, self.A, part.B, *self.walk, starts, sums)
        self.launch(
            triton_scan.chunk_ends, part, self.chunks if inner else self.chunks - 1,
            *arguments, *(inner or (starts, sums)), KEEP=bool(inner),
        )  # fmt: skip
        self._carry(starts, sums, backwards=False)
        return starts, sums

    def adjoints(self, part: _Part, dy: Tensor, sums: Tensor) -> Tensor:
        """dh after each chunk, (B, K, chunks, D, N)."""
        from ssmdiff_kernels import triton_scan

        if self.chunks == 1:  # it is not read
            return self.A
        adjoints = self.empty(*sums.shape, self.states)
        arguments = (dy, part.delta, self.A, part.C, *self.walk, adjoints)
        self.launch(triton_scan.chunk_adjoints, part, self.chunks - 1, *arguments, cut=ADJOINTS)
        self._carry(adjoints, sums, backwards=True)
        return adjoints

    def _carry(self, states: Tensor, sums: Tensor, backwards: bool) -> None:
        from ssmdiff_kernels import triton_scan

        block = 128
        programs = len(states) * self.directions * -(-self.states * self.channels // block)
        triton_scan.carry[(programs,)](
            states, sums, self.A, self.directions, self.channels, self.states, self.chunks,
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


@functools.cache
def _card(device: torch.device) -> tuple[int, int]:
    """Bytes of memory, and multiprocessors; in the interpreter as of a small card."""
    if device.type != "cuda":
        return 8 * 2**30, 2
    card = torch.cuda.get_device_properties(device)
    return card.total_memory, card.multi_processor_count
