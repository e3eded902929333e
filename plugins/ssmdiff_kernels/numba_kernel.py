"""The selective scan on a CPU, compiled by numba: float32 arithmetic, any shape, any order.

This file allocates and converts; the arithmetic is in `numba_scan.py` and `numba_backward.py`.
Threads are Python threads that leave the interpreter while they compute, as many as
``torch.get_num_threads()``. numba's own thread pools are avoided on purpose: one aborts in a
process forked after its first use, as data loaders are, and another must not be called from two
threads at once.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from ssmdiff.ops.kernels import ScanGradients, ScanInputs
from torch import Tensor

if TYPE_CHECKING:
    from ssmdiff_kernels.numba_layout import Scan, Shape

_WIDTH = 16  # channels in a block of `numba_scan`
_STRIP = 6  # blocks that a job of the forward pass takes, at most


class NumbaKernel:
    """The scan for CPU tensors in float32 or bfloat16; equal to the bit for any thread count."""

    name = "numba"

    def unavailable(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why this kernel cannot run for tensors of that device and dtype, or None if it can."""
        if device.type != "cpu":
            return f"the numba kernel runs on the CPU; the tensors are on {device}"
        if dtype not in (torch.float32, torch.bfloat16):
            return f"the numba kernel computes in float32, from float32 or bfloat16; got {dtype}"
        if importlib.util.find_spec("numba") is None:
            return "numba is not installed; try: pip install 'ssmdiff[cpu]'"
        return None

    def forward(self, inputs: ScanInputs) -> Tensor:
        """The output y (B, L, D) in the dtype of ``inputs.u``, tokens in grid order."""
        scan, shape = _arguments(inputs)
        y = torch.empty(inputs.u.shape)
        blocks, strip = -(-shape.channels // _WIDTH), _strip(shape)
        jobs = shape.batch * -(-blocks // strip)
        _run(jobs, _entry("forward", shape), scan, shape, strip, _flat(y))
        return y.to(inputs.u.dtype)

    def backward(self, grad_y: Tensor, inputs: ScanInputs) -> ScanGradients:
        """All gradients, from the inputs alone.

        Beyond the gradients it allocates the sums of each group of channels for B and C, together
        at most about the size of delta (see ``_groups``), and L (1.5 N + 48) floats per thread.
        """
        from ssmdiff_kernels import numba_backward

        scan, shape = _arguments(inputs)
        batch, directions, length, channels, states = shape[:5]
        blocks, groups = -(-channels // _WIDTH), _groups(shape)
        dtype = inputs.u.dtype if scan.u.dtype == np.uint16 else torch.float32
        du = torch.empty(inputs.u.shape)
        ddelta = torch.empty(inputs.delta.shape, dtype=dtype)
        dA = torch.empty(batch, directions, blocks, states, _WIDTH)
        dskip = torch.empty(batch, blocks * _WIDTH)
        dbias = torch.empty(batch, directions, blocks * _WIDTH)
        dB, dC = (torch.empty(inputs.B.shape, dtype=dtype) for _ in range(2))
        slices = torch.empty(2, groups, batch, directions, length, states)
        arrays = [_flat(x) for x in (grad_y.to(dtype), du, ddelta, dA, *slices, dskip, dbias)]
        gradients = numba_backward.Gradients(*arrays)
        _run(batch * groups, _entry("backward", shape), scan, shape, groups, gradients)
        add, sums = numba_backward.add_slices, (_flat(dB), _flat(dC))
        _run(2 * batch * directions, add, _flat(slices), shape, groups, *sums)

        def like(gradient: Tensor, value: Tensor) -> Tensor:
            return gradient.to(value.dtype).contiguous()

        dA = dA.sum(0).transpose(-1, -2).reshape(directions, blocks * _WIDTH, states)
        dD, bias = inputs.D, inputs.delta_bias
        if dD is not None:  # every direction visits all tokens: it is the same for each
            dD = like(dskip.sum(0)[:channels].expand(directions, channels), dD)
        if bias is not None:
            bias = like(dbias.sum(0)[:, :channels], bias)
        return ScanGradients(
            u=like(du, inputs.u),
            delta=like(ddelta, inputs.delta),
            A=like(dA[:, :channels], inputs.A),
            B=like(dB, inputs.B),
            C=like(dC, inputs.C),
            D=dD,
            delta_bias=bias,
        )


def _flat(x: Tensor) -> NDArray[Any]:
    """A tensor's elements in order, as numba takes them: bfloat16 as the bits of uint16.

    A view where the tensor already is contiguous.
    """
    flat = x.detach().contiguous().view(-1)
    if flat.dtype == torch.bfloat16:
        return flat.view(torch.int16).numpy().view(np.uint16)
    return flat.numpy()


def _arguments(inputs: ScanInputs) -> tuple[Scan, Shape]:
    """The inputs as the jitted functions take them, absent ones as zeros.

    u, delta, B and C stay bfloat16 if all of them are; mixed dtypes become float32.
    """
    from ssmdiff_kernels.numba_layout import Scan, Shape

    batch, directions, length, channels = inputs.delta.shape
    rows = (inputs.u, inputs.delta, inputs.B, inputs.C)
    narrow = all(x.dtype == torch.bfloat16 for x in rows)
    u, delta, B, C = (_flat(x if narrow else x.to(torch.float32)) for x in rows)
    D, bias, restart = inputs.D, inputs.delta_bias, inputs.restart
    if D is None:
        D = torch.zeros(directions, channels)
    if bias is None:
        bias = torch.zeros(directions, channels)
    if restart is None:
        restart = torch.zeros(directions, length, dtype=torch.bool)
    scan = Scan(
        u=u,
        delta=delta,
        A=_flat(inputs.A.to(torch.float32)),
        B=B,
        C=C,
        order=_flat(inputs.order.to(torch.int32)),
        restart=_flat(restart.to(torch.uint8)),
        skip=_flat(D.to(torch.float32).sum(0)),
        bias=_flat(bias.to(torch.float32)),
    )
    zoh = inputs.discretization == "zoh"
    states = inputs.A.shape[-1]
    shape = Shape(batch, directions, length, channels, states, inputs.delta_softplus, zoh)
    return scan, shape


def _entry(name: str, shape: Shape) -> Callable[..., None]:
    """The jitted function of a pass for that shape."""
    from ssmdiff_kernels import numba_backward, numba_scan

    suffix = "_of_one" if shape.states == 1 else "_zoh" if shape.zoh else ""
    module = numba_scan if name == "forward" else numba_backward
    function: Callable[..., None] = getattr(module, name + suffix)
    return function


def _strip(shape: Shape) -> int:
    """How many blocks of channels a job of the forward pass takes; its results do not depend on it.

    Wide strips read memory in longer runs; narrow ones are more, for all threads to have as many.
    """
    blocks, threads = -(-shape.channels // _WIDTH), torch.get_num_threads()
    for strip in range(_STRIP, 1, -1):
        jobs = shape.batch * -(-blocks // strip)
        if jobs % threads == 0 or jobs > 4 * threads:
            return strip
    return 1


def _groups(shape: Shape) -> int:
    """Into how many groups the backward pass divides the blocks of channels.

    Many keep many threads busy, but each has its own sums for B and C, 2 N numbers for a token and
    direction: at least four, and no more than make these as large as delta or leave a group less
    than a strip of three blocks.
    """
    blocks = -(-shape.channels // _WIDTH)
    return min(blocks, max(4, min(blocks // 3, shape.channels // (2 * shape.states))))


_pool: ThreadPoolExecutor | None = None
_pool_size = 0


def _forget_pool() -> None:
    global _pool, _pool_size
    _pool, _pool_size = None, 0


os.register_at_fork(after_in_child=_forget_pool)  # a fork has the pool, but not its threads


def _run(jobs: int, function: Callable[..., None], *arguments: Any) -> None:
    """Call a function of `numba_scan` in as many threads as torch uses; they share out the jobs."""
    global _pool, _pool_size
    helpers = min(torch.get_num_threads(), jobs) - 1
    counter = np.zeros(1, np.int64)
    if helpers < 1:
        function(counter, *arguments)
        return
    if _pool is None or _pool_size < helpers:
        _pool, _pool_size = ThreadPoolExecutor(helpers, "ssmdiff-numba"), helpers
    pending = [_pool.submit(function, counter, *arguments) for _ in range(helpers)]
    function(counter, *arguments)
    for future in pending:
        if not future.cancel():  # one that has not begun yet finds no job left
            future.result()
