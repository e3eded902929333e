"""What the engine cache and the runtime ask of the machine; the only module that speaks to CUDA."""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from ssmdiff import ExportError

ANY = "any"
"""A GPU or driver that an engine is not bound to."""


@dataclass(frozen=True)
class Machine:
    """What an engine is bound to, or what a machine has.

    An engine for several cards has their capabilities with commas between them, and any GPU and
    driver.
    """

    tensorrt: str
    gpu: str
    capability: str
    driver: str
    product: str = "tensorrt"

    def differences(self, other: Machine) -> list[str]:
        """``tensorrt 10.13.3.9 there, 11.1.0.9 here`` for each that differs; self is there."""
        here = asdict(other)
        return [
            f"{name} {value} there, {here[name]} here"
            for name, value in asdict(self).items()
            if value != ANY and here[name] not in (value, *self._each(name))
        ]

    def _each(self, name: str) -> list[str]:
        return self.capability.split(",") if name == "capability" else []


class Device(Protocol):
    """Where engines run. Tests give one of host memory."""

    torch_device: torch.device

    def machine(self, tensorrt: str, product: str = "tensorrt") -> Machine: ...

    def capture(self, enqueue: Callable[[int], None]) -> Callable[[], None]:
        """What does the work of ``enqueue(stream handle)``, as fast as it can be repeated."""
        ...

    def synchronize(self) -> None: ...


class Cuda:
    """An NVIDIA GPU.

    Args:
        index: Which one.
        graphs: Replay the engine as a CUDA graph: one launch instead of hundreds.

    Raises:
        ExportError: torch sees no CUDA device.
    """

    def __init__(self, index: int = 0, graphs: bool = True) -> None:
        if torch.version.cuda is None or not torch.cuda.is_available():
            raise ExportError(
                "an engine needs an NVIDIA GPU and a CUDA build of torch; "
                f"torch {torch.__version__} sees none"
            )
        self.torch_device = torch.device("cuda", index)
        self.graphs = graphs
        # TensorRT warns of, and pays for, work on the default stream.
        self._stream = torch.cuda.Stream(self.torch_device)

    def machine(self, tensorrt: str, product: str = "tensorrt") -> Machine:
        major, minor = torch.cuda.get_device_capability(self.torch_device)
        name = torch.cuda.get_device_name(self.torch_device)
        return Machine(tensorrt, name, f"{major}.{minor}", driver_version(), product)

    def capture(self, enqueue: Callable[[int], None]) -> Callable[[], None]:
        stream = self._stream

        def eager() -> None:
            stream.wait_stream(torch.cuda.current_stream(self.torch_device))
            enqueue(stream.cuda_stream)
            torch.cuda.current_stream(self.torch_device).wait_stream(stream)

        # Before a capture the context must have run once at these shapes: TensorRT defers work to
        # the first enqueue that a graph must not contain.
        eager()
        self.synchronize()
        if not self.graphs:
            return eager
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=stream):
                enqueue(torch.cuda.current_stream(self.torch_device).cuda_stream)
        except (RuntimeError, ExportError) as error:
            warnings.warn(
                f"the engine runs without a CUDA graph, slower: {error}", RuntimeWarning, 2
            )
            return eager
        return graph.replay

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.torch_device)


def driver_version() -> str:
    """The version of NVIDIA's driver, as nvidia-smi shows it.

    Raises:
        ExportError: The driver's library is not here.
    """
    try:
        nvml: Any = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError as error:
        raise ExportError(f"the NVIDIA driver is not installed: {error}") from error
    version = ctypes.create_string_buffer(80)  # NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE
    code = nvml.nvmlInit_v2() or nvml.nvmlSystemGetDriverVersion(version, len(version))
    if code:
        raise ExportError(f"NVML does not tell the driver's version: error {code}")
    return version.value.decode()
