"""What the numbers were measured on."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ssmdiff import versions

PEERS = ("monai", "mambapy", "mamba-ssm", "onnxruntime", "tensorrt")


def machine() -> dict[str, Any]:
    """Processor, threads, memory, accelerator, versions, date (UTC) and the load at this moment."""
    import torch

    found: dict[str, Any] = {
        "processor": processor(),
        "cores": _cores(),
        "threads": torch.get_num_threads(),
        "memory_gib": _memory_gib(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        **versions(),
    }
    for package in PEERS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    found["date"] = datetime.datetime.now(datetime.UTC).date().isoformat()
    found["load_average"] = load_average()
    return found


def load_average() -> float | None:
    """Programs that wanted a core over the last minute; more than the threads: others were busy."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def processor() -> str:
    """The processor's model name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _cores() -> int | None:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None
