"""The stub of TensorRT, and a device of host memory on which its engines run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
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
