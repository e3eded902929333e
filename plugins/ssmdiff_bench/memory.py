"""How much memory a call takes beyond what is there before it.

On the CPU: the growth of the process's peak resident memory (``VmHWM``), which Linux lets a process
reset. It counts what numba, oneDNN and ONNX Runtime allocate as well as torch's tensors, which a
counter inside torch or Python does not. Memory that malloc keeps is handed back first, or a call
could use it unseen. Good to about a megabyte. On CUDA: torch's ``max_memory_allocated``.
"""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple, Protocol

STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")
METHODS = {
    "cpu": "growth of peak resident memory (VmHWM, reset before the call)",
    "cuda": "torch.cuda.max_memory_allocated beyond what was allocated before the call",
}


class Memory(NamedTuple):
    """Bytes during one call."""

    before: int
    """What the process held (on CUDA: had allocated) before the call, with weights and inputs."""
    peak: int
    """The most that it held during the call."""

    @property
    def extra(self) -> int:
        return max(0, self.peak - self.before)


class Meter(Protocol):
    """Between ``start`` and ``stop`` lies the call."""

    def start(self) -> None: ...

    def stop(self) -> Memory: ...


class ResidentMeter:
    """Of this process, on Linux."""

    before = 0

    def start(self) -> None:
        gc.collect()
        _trim()
        RESET.write_text("5")  # sets the peak to what is resident now
        self.before = _kilobytes("VmRSS") * 1024

    def stop(self) -> Memory:
        return Memory(self.before, _kilobytes("VmHWM") * 1024)


class CudaMeter:
    """Of torch's allocator on the current CUDA or ROCm device."""

    before = 0

    def __init__(self) -> None:
        import torch

        self.cuda: Any = torch.cuda

    def start(self) -> None:
        self.cuda.synchronize()
        self.cuda.empty_cache()
        self.cuda.reset_peak_memory_stats()
        self.before = self.cuda.memory_allocated()

    def stop(self) -> Memory:
        self.cuda.synchronize()
        return Memory(self.before, self.cuda.max_memory_allocated())


def meter(device: str) -> Meter | None:
    """The meter of a kind of device, or None where memory cannot be measured."""
    if device == "cuda":
        return CudaMeter()
    return ResidentMeter() if device == "cpu" and not why_not() else None


def why_not() -> str | None:
    """Why a call's memory on the CPU cannot be measured here, or None if it can."""
    try:
        _kilobytes("VmHWM")
        RESET.write_text("5")
    except OSError as error:
        return f"memory is measured on Linux alone, by VmHWM ({error.strerror}: {error.filename})"
    return None


def available_bytes() -> int | None:
    """What new programs may use without swapping, or None where the system does not tell."""
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return None
    found = re.search(r"MemAvailable:\s+(\d+) kB", text)
    return int(found[1]) * 1024 if found else None


def _kilobytes(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text())
    if not found:
        raise OSError(0, f"no {name}", str(STATUS))
    return int(found[1])


def _trim() -> None:
    """Hand freed memory back to the system; glibc keeps some otherwise, other mallocs do not."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim:
            trim(0)
