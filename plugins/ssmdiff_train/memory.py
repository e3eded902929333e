"""Memory of the process between steps."""

from __future__ import annotations

import ctypes
import platform

# malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed for the next step, which allocates the same again.

    By default it hands large blocks back to the system with every step, and the system clears their
    pages when they are asked for anew. The process keeps its largest size until it ends, so this is
    for a program that trains and does little else; it holds for the whole process.

    Returns:
        Whether there is glibc, and it agreed.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))
