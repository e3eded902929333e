"""The selective scan on a CPU, compiled by numba: float32 arithmetic, any shape, any order.

This file allocates and converts; the arithmetic is in `forward.py` and `backward.py`, the threads
in `threads.py`. numba is imported when the kernel is first used.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from ssmdiff import ConfigError, ScanGradients, ScanInputs, kept_every, kept_shape
from torch import Tensor

if TYPE_CHECKING:
    from ssmdiff_kernels.numba_scan.layout import Arrays, KeptStates, Shape

_WIDTH = 16  # channels in a block, as in `vectors.py`
_STRIP = 6  # blocks that a job of the forward pass takes, at most
_WORTH_A_THREAD = 2**17  # components of the state over all steps: some 30 us of a forward pass


class NumbaKernel:
    """The scan for CPU tensors in float32 or bfloat16; equal to the bit for any thread count."""

    name = "numba"
    preference = 50

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
        return _forward(inputs, None)

    def forward_keeping(self, inputs: ScanInputs) -> tuple[Tensor, Tensor]:
        """The output, and the states (B, K, S, N, D) that ``backward`` can start from."""
        states = torch.empty(kept_shape(inputs))
        return _forward(inputs, states), states

    def backward(
        self, grad_y: Tensor, inputs: ScanInputs, states: Tensor | None = None
    ) -> ScanGradients:
        """All gradients, equal to the bit with and without states.

        Beyond the gradients it allocates the sums of each group of channels for B and C, together
        at most about the size of delta (see ``_groups``), and without states L (1.5 N + 96) floats
        per thread.

        Raises:
            ConfigError: The states have another shape than ``kept_shape`` of the inputs.
        """
        from ssmdiff_kernels.numba_scan.backward import Gradients
        from ssmdiff_kernels.numba_scan.threads import run

        arrays, shape = _arguments(inputs)
        batch, directions, length, channels, components = shape[:5]
        groups = _groups(shape)
        dtype = inputs.u.dtype if arrays.u.dtype == np.uint16 else torch.float32
        du = torch.empty(inputs.u.shape)
        ddelta = torch.empty(inputs.delta.shape, dtype=dtype)
        dA = torch.empty(batch, directions, channels, components)
        dskip = torch.empty(batch, channels)
        dbias = torch.empty(batch, directions, channels)
        dB, dC = (torch.empty(inputs.B.shape, dtype=dtype) for _ in range(2))
        slices = torch.empty(2, groups, batch, directions, length, components)
        done = torch.zeros(batch, directions, dtype=torch.int64)
        tensors = (grad_y.to(dtype), du, ddelta, dA, dB, dC, dskip, dbias, slices, done)
        gradients = Gradients(*map(_flat, tensors))
        jobs = batch * groups
        threads = _threads(shape, jobs)
        if states is not None and states.shape != kept_shape(inputs):
            raise ConfigError(
                f"numba kernel: the kept states have shape {tuple(states.shape)}; expected "
                f"(B, K, S, N, D) = {kept_shape(inputs)}, as forward_keeping returns for the inputs"
            )
        kept = _kept(shape, states)
        run(_entry("backward", shape), threads, arrays, shape, groups, gradients, kept)

        def like(gradient: Tensor, value: Tensor) -> Tensor:
            return gradient if gradient.dtype is value.dtype else gradient.to(value.dtype)

        dD, bias = inputs.D, inputs.delta_bias
        if dD is not None:  # every direction visits all tokens: it is the same for each
            dD = like(dskip.sum(0).repeat(directions, 1), dD)
        if bias is not None:
            bias = like(dbias.sum(0), bias)
        return ScanGradients(
            u=like(du, inputs.u),
            delta=like(ddelta, inputs.delta),
            A=like(dA.sum(0), inputs.A),
            B=like(dB, inputs.B),
            C=like(dC, inputs.C),
            D=dD,
            delta_bias=bias,
        )


def _forward(inputs: ScanInputs, states: Tensor | None) -> Tensor:
    """The output; and the states, if there is a place for them."""
    from ssmdiff_kernels.numba_scan.threads import run

    arrays, shape = _arguments(inputs)
    y = torch.empty(inputs.u.shape)
    blocks, strip = -(-shape.channels // _WIDTH), _strip(shape)
    jobs = shape.batch * -(-blocks // strip)
    threads, kept = _threads(shape, jobs), _kept(shape, states)
    run(_entry("forward", shape), threads, arrays, shape, strip, _flat(y), kept)
    return y.to(inputs.u.dtype)


def _kept(shape: Shape, states: Tensor | None) -> KeptStates:
    """The states as the jitted functions take them; none, if all steps are one span."""
    from ssmdiff_kernels.numba_scan.layout import CHUNK, KeptStates

    if states is None:
        return KeptStates(np.empty(0, np.float32), shape.length)
    return KeptStates(_flat(states, torch.float32), kept_every(shape.states) // CHUNK)


def _flat(x: Tensor, dtype: torch.dtype | None = None) -> NDArray[Any]:
    """A tensor's elements in order, as numba takes them: bfloat16 as the bits of uint16.

    A view where the tensor already is contiguous, and of the dtype if one is given. Calls that do
    nothing are left out: a call of the kernel makes thirty of these, of up to 1 us each.
    """
    if dtype is not None and x.dtype is not dtype:
        x = x.to(dtype)
    if x.requires_grad:
        x = x.detach()
    x = x.contiguous()
    if x.dtype is torch.bfloat16:
        return x.view(torch.int16).numpy().reshape(-1).view(np.uint16)
    return x.numpy().reshape(-1)


def _arguments(inputs: ScanInputs) -> tuple[Arrays, Shape]:
    """The inputs as the jitted functions take them, absent ones as zeros.

    u, delta, B and C stay bfloat16 if all of them are; mixed dtypes become float32.
    """
    from ssmdiff_kernels.numba_scan.layout import Arrays, Shape

    batch, directions, length, channels = inputs.delta.shape
    rows = (inputs.u, inputs.delta, inputs.B, inputs.C)
    narrow = all(x.dtype is torch.bfloat16 for x in rows)
    u, delta, B, C = (_flat(x, None if narrow else torch.float32) for x in rows)
    absent = np.zeros(directions * channels, np.float32)
    D, bias = inputs.D, inputs.delta_bias
    skip = absent if D is None else _flat(D, torch.float32)
    arrays = Arrays(
        u=u,
        delta=delta,
        A=_flat(inputs.A, torch.float32),
        B=B,
        C=C,
        order=_flat(inputs.order, torch.int32),
        skip=skip.reshape(directions, channels).sum(0),
        bias=absent if bias is None else _flat(bias, torch.float32),
    )
    zoh = inputs.discretization == "zoh"
    states = inputs.A.shape[-1]
    shape = Shape(batch, directions, length, channels, states, inputs.delta_softplus, zoh)
    return arrays, shape


def _entry(name: str, shape: Shape) -> Callable[..., None]:
    """The jitted function of a pass for that shape."""
    from ssmdiff_kernels.numba_scan import backward, forward

    module = forward if name == "forward" else backward
    function: Callable[..., None] = getattr(module, name + ("_zoh" if shape.zoh else ""))
    return function


def _threads(shape: Shape, jobs: int) -> int:
    """How many threads to use: torch's number, unless the work is not worth waking them up."""
    elements = shape.batch * shape.directions * shape.length * shape.channels * shape.states
    return max(1, min(torch.get_num_threads(), jobs, elements // _WORTH_A_THREAD))


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
