"""Enumerations, loggers and what all classes of the binding share."""

from __future__ import annotations

import os
from enum import Enum, IntEnum
from typing import Any

VERSION = os.environ.get("SSMDIFF_STUB_TENSORRT", "10.13.3.9")
IS_11 = int(VERSION.split(".")[0]) >= 11


def need(value: Any, kind: type | tuple[type, ...], what: str) -> Any:
    """pybind11 raises TypeError for an argument of another type; a bool is no int here."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise TypeError(f"{what}: incompatible function arguments: {value!r}, expected {kind}")
    return value


class Strict:
    """pybind11 objects take no attribute that the binding does not define."""

    _properties: tuple[str, ...] = ()

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_") or name in self._properties:
            object.__setattr__(self, name, value)
        else:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class DataType(IntEnum):  # pyTypes: py::enum_<DataType>
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    BF16 = 7
    INT64 = 8


class TensorFormat(IntEnum):  # pyTypes: LINEAR is kLINEAR
    LINEAR = 0


class TensorIOMode(IntEnum):  # pyCore: py::enum_<TensorIOMode>
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class LayerType(IntEnum):  # pyGraph: py::enum_<LayerType>
    ELEMENTWISE = 9
    PLUGIN_V3 = 46


class MemoryPoolType(IntEnum):  # pyCore: py::enum_<MemoryPoolType>
    WORKSPACE = 0


class QuickPluginCreationRequest(IntEnum):  # pyPlugin.cpp; present where AOT plugins are
    UNKNOWN = 0
    PREFER_JIT = 1
    PREFER_AOT = 2
    STRICT_JIT = 3
    STRICT_AOT = 4


if IS_11:
    # pyCore v11.1: FP16, BF16, INT8, FP8, INT4, OBEY_/PREFER_PRECISION_CONSTRAINTS are gone.
    class BuilderFlag(IntEnum):
        DEBUG = 2
        TF32 = 6

    # include/NvInfer.h v11.1; STRONGLY_TYPED: "Deprecated: always enabled".
    class NetworkDefinitionCreationFlag(IntEnum):
        STRONGLY_TYPED = 0
        PREFER_JIT_PYTHON_PLUGINS = 1
        PREFER_AOT_PYTHON_PLUGINS = 2

else:

    class BuilderFlag(IntEnum):  # type: ignore[no-redef]
        FP16 = 0
        INT8 = 1
        DEBUG = 2
        TF32 = 6
        BF16 = 17

    # include/NvInfer.h v10.13.3
    class NetworkDefinitionCreationFlag(IntEnum):  # type: ignore[no-redef]
        EXPLICIT_BATCH = 0
        STRONGLY_TYPED = 1
        PREFER_JIT_PYTHON_PLUGINS = 2
        PREFER_AOT_PYTHON_PLUGINS = 3


class Severity(Enum):  # pyCore: py::enum_<ILogger::Severity>
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class ILogger:  # pyCore: .def(py::init<>()).def("log", ..., "severity"_a, "msg"_a)
    Severity = Severity
    INTERNAL_ERROR = Severity.INTERNAL_ERROR
    ERROR = Severity.ERROR
    WARNING = Severity.WARNING
    INFO = Severity.INFO
    VERBOSE = Severity.VERBOSE

    def __init__(self) -> None:
        self._initialised = True

    def log(self, severity: Severity, msg: str) -> None:
        raise RuntimeError('Tried to call pure virtual function "nvinfer1::ILogger::log"')


class Logger(ILogger):  # pyCore: py::init<ILogger::Severity>(), "min_severity"_a = kWARNING
    def __init__(self, min_severity: Severity = Severity.WARNING) -> None:
        super().__init__()
        self.min_severity = need(min_severity, Severity, "Logger")

    def log(self, severity: Severity, msg: str) -> None:
        need(severity, Severity, "Logger.log")


def need_logger(logger: Any, what: str) -> ILogger:
    need(logger, ILogger, what)
    if not getattr(logger, "_initialised", False):
        # pybind11: "TypeError: __init__() must be called when overriding __init__"
        raise TypeError("tensorrt.ILogger.__init__() must be called when overriding __init__")
    return logger


class IProgressMonitor:  # pyCore: phase_start, step_complete, phase_finish
    def __init__(self) -> None:
        self._initialised = True

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        raise RuntimeError("pure virtual: phase_start")

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise RuntimeError("pure virtual: step_complete")

    def phase_finish(self, phase_name: str) -> None:
        raise RuntimeError("pure virtual: phase_finish")


class IHostMemory(Strict):  # pyTypes: dtype, nbytes, the buffer protocol
    """The real one offers a buffer; Python classes cannot before 3.12, so bytes() is all it has."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def nbytes(self) -> int:
        return len(self._data)

    def __bytes__(self) -> bytes:
        return self._data
