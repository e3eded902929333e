"""``ssmdiff bench scan``: the kernels that run here, and how others compute the same scan."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from ssmdiff import (
    KernelUnavailableError,
    PluginError,
    ScanInputs,
    ScanOrder,
    both_passes,
    kernel_for,
    load_kernel,
    order_tensors,
    preferred_kernels,
    registry,
)
from torch import Tensor

from ssmdiff_bench.scan_peers import (
    ExpandScanMerge,
    both_by_autograd,
    mamba_reference,
    mambapy_forward,
)
from ssmdiff_bench.worker import Case, Job, Way

SERIES = ("forward", "both")
"""The forward pass, and forward with backward."""
WARM_TOKENS = 16
SAMPLED = 4096  # values of an output by which ways are compared
REFERENCE, PARALLEL, EXPAND = "mamba-ssm-reference", "mamba.py", "expand-scan-merge"
OrderName = Literal["raster", "random"]


@dataclass(frozen=True)
class ScanShape:
    """What is scanned, besides the number of tokens.

    Args:
        batch: B.
        channels: D.
        directions: K.
        states: N.
        order: ``raster`` as VMamba has it, or a random permutation for each direction.
        dtype: Of u, delta, B and C: ``float32``, ``bfloat16`` or ``float16``.
        device: ``cpu`` or ``cuda``.
    """

    batch: int = 1
    channels: int = 192
    directions: int = 4
    states: int = 16
    order: OrderName = "random"
    dtype: str = "float32"
    device: str = "cpu"

    @property
    def torch_dtype(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype


def make_order(name: OrderName, directions: int, tokens: int) -> Tensor:
    """(K, L) int32: rows, columns and both reversed, over and over; or a random one for each."""
    (order,) = order_tensors([ScanOrder(_rows(name, directions, tokens))], torch.device("cpu"))
    return order


def _rows(name: OrderName, directions: int, tokens: int) -> NDArray[np.int32]:
    if name == "random":
        generator = torch.Generator().manual_seed(0)
        rows = [torch.randperm(tokens, generator=generator) for _ in range(directions)]
        return torch.stack(rows).int().numpy()
    height = max(h for h in range(1, int(tokens**0.5) + 1) if tokens % h == 0)
    row = np.arange(tokens, dtype=np.int32)
    column = row.reshape(height, -1).T.reshape(-1)
    four = (row, column, row[::-1], column[::-1])
    return np.stack([four[k % 4] for k in range(directions)])


def make_inputs(shape: ScanShape, tokens: int) -> ScanInputs:
    """Inputs on the CPU with the decays and small steps by which Mamba is initialised."""
    generator = torch.Generator().manual_seed(0)
    row = (shape.batch, shape.directions, tokens)
    channels, states = shape.channels, shape.states

    def randn(*sides: int) -> Tensor:
        return torch.randn(sides, generator=generator).to(shape.torch_dtype)

    return ScanInputs(
        u=randn(shape.batch, tokens, channels),
        delta=randn(*row, channels),
        A=-torch.arange(1.0, states + 1).expand(shape.directions, channels, states).contiguous(),
        B=randn(*row, states),
        C=randn(*row, states),
        order=make_order(shape.order, shape.directions, tokens),
        D=torch.ones(shape.directions, channels),
        delta_bias=torch.full((shape.directions, channels), -3.0),
    )


def cases(tokens: list[int], series: tuple[str, ...] = SERIES) -> list[dict[str, Any]]:
    """Each number of tokens, from the smallest, forward and both."""
    return [{"series": s, "size": n} for n in sorted(tokens) for s in series]


def scan_ways(shape: ScanShape) -> list[Way]:
    """Our kernels, the fastest first, then the peers; those that cannot run here say why."""
    ways = []
    names = registry().names("kernel")
    ours = [kernel.name for kernel in preferred_kernels()]
    ours += [n for n in names if n not in ours]
    device = torch.device(shape.device)
    for name in ours:
        try:
            absent = load_kernel(name).unavailable(device, shape.torch_dtype)
        except PluginError as error:
            absent = str(error)
        ways.append(Way(name, functools.partial(_load, name, shape), absent))
    mambapy = None
    if importlib.util.find_spec("mambapy") is None:
        mambapy = "the package mambapy is not installed; try: pip install mambapy"
    ways.append(Way(EXPAND, functools.partial(_load, EXPAND, shape)))
    ways.append(Way(PARALLEL, functools.partial(_load, PARALLEL, shape), mambapy))
    ways.append(Way(REFERENCE, functools.partial(_load, REFERENCE, shape)))
    return ways


def implementation(name: str, shape: ScanShape) -> tuple[Callable[..., Tensor], ...]:
    """``forward(inputs)`` and ``both(inputs, grad_y)`` of a kernel or a peer; both return y.

    Raises:
        KernelUnavailableError: A kernel that cannot run on this device and dtype.
    """
    device, dtype = torch.device(shape.device), shape.torch_dtype
    if name in (REFERENCE, PARALLEL):
        forward = mamba_reference if name == REFERENCE else mambapy_forward()
        return torch.no_grad()(forward), functools.partial(both_by_autograd, forward)
    if name == EXPAND:
        peer = ExpandScanMerge(kernel_for(device, dtype, 1))
        return peer.forward, lambda inputs, grad_y: peer.both(inputs, grad_y)[0]
    kernel = load_kernel(name)
    reason = kernel.unavailable(device, dtype)
    if reason:
        raise KernelUnavailableError(f"kernel {name!r} cannot run here: {reason}")
    return kernel.forward, lambda inputs, grad_y: both_passes(kernel, inputs, grad_y)[0]


def _load(name: str, shape: ScanShape, case: Case) -> Job:
    """In the worker: the inputs on their device and the call."""
    forward, both = implementation(name, shape)

    def prepared(tokens: int) -> tuple[ScanInputs, Callable[[], Tensor]]:
        inputs = make_inputs(shape, tokens).to(shape.device)
        if case["series"] == "forward":
            return inputs, functools.partial(forward, inputs)
        generator = torch.Generator().manual_seed(1)
        grad_y = torch.randn(inputs.u.shape, generator=generator).to(inputs.u)
        return inputs, functools.partial(both, inputs, grad_y)

    prepared(WARM_TOKENS)[1]()  # compiles, where there is something to compile
    inputs, call = prepared(case["size"])
    tensors = [x for x in inputs if isinstance(x, Tensor)]
    return Job(
        call,
        device=shape.device,
        synchronize=torch.cuda.synchronize if shape.device == "cuda" else None,
        facts={"inputs_bytes": sum(x.numel() * x.element_size() for x in tensors)},
        output=_sampled,
    )


def _sampled(y: Tensor) -> Any:
    """Some values of y, the same in every way, as float64."""
    flat = y.detach().flatten()
    return flat[:: max(1, flat.numel() // SAMPLED)].double().cpu().numpy()
