"""Which kernel runs the scan: the one asked for, or the fastest that can.

The choice belongs to the process, not to the call: a compiled or exported graph holds one op, and
the backward pass may run in another thread than the forward pass.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ssmdiff.errors import KernelUnavailableError, PluginError
from ssmdiff.ops.kernels import Kernel
from ssmdiff.ops.reference import TorchKernel
from ssmdiff.registry.registry import registry

AUTO = "auto"
LONG = 256  # tokens; beyond it the reference is slow enough to be worth a warning

_chosen: str | Kernel = AUTO
_used: set[str] = set()


def kernel_for(device: torch.device, dtype: torch.dtype, length: int) -> Kernel:
    """The kernel that runs for tensors of this device and dtype.

    Raises:
        KernelUnavailableError: A kernel was asked for by name and cannot run.
    """
    kernel = require_kernel(device, dtype)
    if kernel.name == "torch" and _chosen == AUTO and length > LONG and dtype != torch.float64:
        _warn_slow(str(device), str(dtype))
    _used.add(kernel.name)
    return kernel


def require_kernel(device: torch.device, dtype: torch.dtype) -> Kernel:
    """The kernel that will run there, before it does.

    Raises:
        KernelUnavailableError: A kernel was asked for by name and cannot run.
    """
    if isinstance(_chosen, str):
        return _resolve(_chosen, device, dtype)
    return _able(_chosen, device, dtype)


@functools.lru_cache(maxsize=64)
def _resolve(name: str, device: torch.device, dtype: torch.dtype) -> Kernel:
    if name != AUTO:
        return _able(load_kernel(name), device, dtype)
    able = (k for k in preferred_kernels() if k.unavailable(device, dtype) is None)
    return next(able, TorchKernel())


def preferred_kernels() -> list[Kernel]:
    """The kernels that ``auto`` tries, in that order: by their own preference, then by name.

    One that cannot be imported is left out; `ssmdiff doctor` and `plugins list` show its error.
    """
    kernels = []
    for name in registry().names("kernel"):
        try:
            kernel = load_kernel(name)
        except PluginError:
            continue
        preference = getattr(kernel, "preference", None)
        if preference is not None:
            kernels.append((-preference, name, kernel))
    return [kernel for _, _, kernel in sorted(kernels)]


def _able(kernel: Kernel, device: torch.device, dtype: torch.dtype) -> Kernel:
    """The kernel, or why it cannot run."""
    reason = kernel.unavailable(device, dtype)
    if reason:
        raise KernelUnavailableError(f"kernel {kernel.name!r} cannot run here: {reason}")
    return kernel


@functools.cache
def load_kernel(name: str) -> Kernel:
    """A registered kernel by name, built once.

    Raises:
        ConfigError: There is no kernel of that name.
        PluginError: It cannot be imported.
    """
    kernel: Kernel = registry().create("kernel", name)
    return kernel


@functools.cache
def _warn_slow(device: str, dtype: str) -> None:
    reasons = []
    for name in registry().names("kernel"):
        if name != "torch":
            try:
                reason = load_kernel(name).unavailable(torch.device(device), _dtype(dtype))
            except PluginError as error:
                reason = str(error)
            reasons.append(f"{name}: {reason}")
    warnings.warn(
        f"the slow reference kernel 'torch' runs on {device} with {dtype} because no other can "
        f"({'; '.join(reasons) or 'none is installed'})",
        stacklevel=4,
    )


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name.removeprefix("torch."))
    assert isinstance(dtype, torch.dtype)
    return dtype


def set_kernel(kernel: str | Kernel) -> None:
    """Choose the kernel of this process: ``"auto"``, or a name or a kernel, then the only one.

    Raises:
        ConfigError: There is no kernel of that name.
        PluginError: It is there and cannot be imported.
    """
    global _chosen
    if isinstance(kernel, str) and kernel != AUTO:
        load_kernel(kernel)
    _chosen = kernel


@contextmanager
def use_kernel(kernel: str | Kernel) -> Iterator[None]:
    """:func:`set_kernel` for a ``with`` block; the backward pass belongs inside it too."""
    before = _chosen
    set_kernel(kernel)
    try:
        yield
    finally:
        set_kernel(before)


def kernels_used() -> list[str]:
    """The kernels that have run in this process, for the record."""
    return sorted(_used)
