"""Memory that was never set, made to show: NaN from torch, -1.7e38 from malloc."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch

_M_PERTURB = -6  # of <malloc.h>
_BYTE = 0x01  # allocated bytes are its complement: 0xfefefefe is -1.7e38 as a float32


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """Inside, memory holds no lucky zeros before it is set.

    ``torch.empty`` and its kin give NaN, by torch's own switch. What numpy or compiled code takes
    from malloc has no such switch: glibc fills it with one byte, where the C library is glibc.
    """
    before = torch.are_deterministic_algorithms_enabled()
    warn = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    perturb = _perturb()
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = True
    perturb(_BYTE)
    try:
        yield
    finally:
        perturb(0)
        memory.fill_uninitialized_memory = filled
        torch.use_deterministic_algorithms(before, warn_only=warn)


def _perturb() -> Callable[[int], object]:
    """Sets what malloc fills memory with; does nothing where there is no mallopt(3)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return (lambda byte: None) if mallopt is None else (lambda byte: mallopt(_M_PERTURB, byte))
