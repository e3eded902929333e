"""Runtime, engine and execution context; "device memory" is host memory, run by ONNX Runtime."""

from __future__ import annotations

import ctypes
import hashlib
import json
from typing import Any

import numpy as np
import onnxruntime

from . import _base
from ._base import DataType, Severity, Strict, TensorIOMode, need, need_logger
from ._build import MAGIC

_NUMPY = {DataType.FLOAT: np.float32, DataType.INT32: np.int32, DataType.INT64: np.int64}


class Runtime(Strict):  # pyCore: init(logger), deserialize_cuda_engine(serialized_engine)
    _properties = ("max_threads", "temporary_directory")

    def __init__(self, logger: Any) -> None:
        self._logger = need_logger(logger, "Runtime")

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        """doc: "The ICudaEngine, or None if it could not be deserialized"."""
        data = bytes(need(serialized_engine, (bytes, memoryview), "deserialize_cuda_engine"))
        digest, body = data[len(MAGIC) : len(MAGIC) + 32], data[len(MAGIC) + 32 :]
        if not data.startswith(MAGIC) or hashlib.sha256(body).digest() != digest:
            self._logger.log(
                Severity.ERROR, "IRuntime::deserializeCudaEngine: Error Code 1: Serialization"
            )
            return None
        size = int.from_bytes(body[:8], "little")
        summary = json.loads(body[8 : 8 + size])
        if summary["version"] != _base.VERSION:
            self._logger.log(
                Severity.ERROR,
                f"The engine plan file is not compatible with this version of TensorRT, expecting "
                f"library version {_base.VERSION} got {summary['version']}, please rebuild.",
            )
            return None
        return ICudaEngine(summary, body[8 + size :])


class ICudaEngine(Strict):  # pyCore: py::class_<ICudaEngine>
    def __init__(self, summary: dict[str, Any], model: bytes) -> None:
        self._summary, self._model = summary, model
        self._tensors = {
            name: (TensorIOMode[mode], DataType(dtype), tuple(shape))
            for mode, key in (("INPUT", "inputs"), ("OUTPUT", "outputs"))
            for name, dtype, shape in summary[key]
        }

    num_io_tensors = property(lambda self: len(self._tensors))
    num_optimization_profiles = property(lambda self: len(self._summary["profiles"]))
    device_memory_size_v2 = property(lambda self: 4096)
    num_layers = property(lambda self: 1)
    if not _base.IS_11:
        device_memory_size = property(lambda self: 4096)  # gone in 11

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[need(index, int, "get_tensor_name")]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return self._tensors[need(name, str, "get_tensor_mode")][0]

    def get_tensor_dtype(self, name: str) -> DataType:
        return self._tensors[need(name, str, "get_tensor_dtype")][1]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[need(name, str, "get_tensor_shape")][2]

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        need(profile_index, int, "get_tensor_profile_shape")
        shapes = self._summary["profiles"][profile_index][need(name, str, "profile_shape")]
        return [tuple(shape) for shape in shapes]

    def create_execution_context(self, strategy: Any = None) -> IExecutionContext:
        return IExecutionContext(self)


class IExecutionContext(Strict):  # pyCore: py::class_<IExecutionContext>
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._session: onnxruntime.InferenceSession | None = None

    def set_input_shape(self, name: str, shape: Any) -> bool:
        mode, _, real = self._engine._tensors[need(name, str, "set_input_shape")]
        shape = tuple(need(shape, (tuple, list), "set_input_shape"))
        fits = len(shape) == len(real) and all(
            r in (-1, s) for r, s in zip(real, shape, strict=True)
        )
        if mode is not TensorIOMode.INPUT or not fits:
            return False
        if -1 in real:
            low, _, high = self._engine.get_tensor_profile_shape(name, 0)
            if not all(a <= s <= b for a, s, b in zip(low, shape, high, strict=True)):
                return False
        self._shapes[name] = shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        mode, _, shape = self._engine._tensors[need(name, str, "get_tensor_shape")]
        if mode is TensorIOMode.INPUT:
            return self._shapes.get(name, shape)
        batch = next((s[0] for n, s in self._shapes.items() if n == "x"), -1)
        return tuple(batch if dim == -1 else dim for dim in shape)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if need(name, str, "set_tensor_address") not in self._engine._tensors:
            return False
        self._addresses[name] = need(memory, int, "set_tensor_address")
        return True

    def infer_shapes(self) -> list[str]:
        return [
            name
            for name, (mode, _, shape) in self._engine._tensors.items()
            if mode is TensorIOMode.INPUT and -1 in shape and name not in self._shapes
        ]

    def execute_async_v3(self, stream_handle: int) -> bool:
        need(stream_handle, int, "execute_async_v3")
        tensors = self._engine._tensors
        if self.infer_shapes() or set(self._addresses) != set(tensors):
            return False
        if self._session is None:
            self._session = onnxruntime.InferenceSession(
                self._engine._model, providers=["CPUExecutionProvider"]
            )
        inputs = [name for name, row in tensors.items() if row[0] is TensorIOMode.INPUT]
        outputs = [name for name in tensors if name not in inputs]
        results = self._session.run(outputs, {name: self._memory(name) for name in inputs})
        for name, result in zip(outputs, results, strict=True):
            self._memory(name)[...] = result
        return True

    def _memory(self, name: str) -> np.ndarray:
        dtype = np.dtype(_NUMPY[self._engine.get_tensor_dtype(name)])
        shape = self.get_tensor_shape(name)
        size = int(np.prod(shape)) * dtype.itemsize
        memory = (ctypes.c_char * size).from_address(self._addresses[name])
        return np.frombuffer(memory, dtype).reshape(shape)
