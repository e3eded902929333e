"""The stub of TensorRT, and a device of host memory on which its engines run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from real_binding import offered
from ssmdiff_export.tensorrt.device import Machine

STUB = Path(__file__).parent / "stub"


class HostDevice:
    """A device whose memory is the host's, where the stub's engines run."""

    torch_device = torch.device("cpu")

    def __init__(self, gpu: str = "Stub GPU", driver: str = "999.1") -> None:
        self.gpu, self.driver = gpu, driver
        self.captures = 0

    def machine(self, tensorrt: str, product: str = "tensorrt") -> Machine:
        return Machine(tensorrt, self.gpu, "9.0", self.driver, product)

    def capture(self, enqueue: Callable[[int], None]) -> Callable[[], None]:
        self.captures += 1
        enqueue(0)
        return lambda: enqueue(0)

    def synchronize(self) -> None:
        pass


def forget_tensorrt() -> None:
    """Drop the stub, and our plugin module, which registers itself with it when imported."""
    for name in list(sys.modules):
        if name.partition(".")[0] == "tensorrt" or name == "ssmdiff_export.tensorrt.plugin":
            del sys.modules[name]
    package = sys.modules.get("ssmdiff_export.tensorrt")
    if package is not None:
        vars(package).pop("plugin", None)


def stub_offers(trt: Any) -> dict[str, Any]:
    """What the stub claims of each class, in the form of :func:`real_binding.offered`."""
    classes = [name for name in trt.__all__ if isinstance(getattr(trt, name), type)]
    found = offered(trt, classes)
    for name in classes:
        kind = getattr(trt, name)
        for property_ in getattr(kind, "_properties", ()):
            found[name].setdefault(property_, None)
    return found


def stub_drift(claimed: dict[str, Any], real: dict[str, Any]) -> list[str]:
    """Every name, value and signature that the stub has and the real binding has not."""
    drift = []
    for kind, members in claimed.items():
        if kind not in real:
            drift.append(f"there is no {kind}")
            continue
        for name, mine in members.items():
            theirs = real[kind].get(name, "missing")
            if theirs == "missing":
                drift.append(f"{kind} has no {name}")
            elif isinstance(mine, int) or isinstance(theirs, int):
                if mine != theirs:
                    drift.append(f"{kind}.{name} is {theirs}, not {mine}")
            elif (mine is None) != (theirs is None):
                drift.append(f"{kind}.{name} is a {'property' if theirs is None else 'method'}")
            elif mine is not None and not any(m in theirs for m in mine):
                wanted = " or ".join(", ".join(t) for t in theirs)
                drift.append(f"{kind}.{name} takes {wanted}, not {', '.join(mine[0])}")
    return drift
