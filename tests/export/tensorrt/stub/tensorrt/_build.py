"""Builder, network, ONNX parser and configuration."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import onnx

from . import _base
from ._base import (
    BuilderFlag,
    DataType,
    IHostMemory,
    IProgressMonitor,
    LayerType,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    Severity,
    Strict,
    need,
    need_logger,
)

_TYPES = {
    onnx.TensorProto.FLOAT: DataType.FLOAT,
    onnx.TensorProto.FLOAT16: DataType.HALF,
    onnx.TensorProto.BFLOAT16: DataType.BF16,
    onnx.TensorProto.INT32: DataType.INT32,
    onnx.TensorProto.INT64: DataType.INT64,
}
MAGIC = b"STUB-TRT"
CREATED: dict[str, list[Any]] = {"configs": [], "networks": []}
"""What was asked of the stub, newest last: for tests."""
FAIL_BUILD: list[str] = []
"""Sentences that make the next build fail with that in the log."""


class ITensor(Strict):  # pyGraph: name, shape, dtype
    _properties = ("name", "shape")

    def __init__(self, name: str, dtype: DataType, shape: tuple[int, ...]) -> None:
        self.name, self._dtype, self.shape = name, dtype, shape

    @property
    def dtype(self) -> DataType:
        return self._dtype


class ILayer(Strict):  # pyGraph: type
    _properties = ("name",)

    def __init__(self, kind: LayerType, name: str) -> None:
        self._type, self.name = kind, name

    @property
    def type(self) -> LayerType:
        return self._type


class INetworkDefinition(Strict):  # pyGraph: num_*, get_layer, get_input, get_output
    _properties = ("name",)

    def __init__(self, flags: int) -> None:
        self._flags, self._layers, self._model = flags, [], b""
        self._inputs: list[ITensor] = []
        self._outputs: list[ITensor] = []

    num_layers = property(lambda self: len(self._layers))
    num_inputs = property(lambda self: len(self._inputs))
    num_outputs = property(lambda self: len(self._outputs))

    def get_layer(self, index: int) -> ILayer:
        return self._layers[need(index, int, "get_layer")]

    def get_input(self, index: int) -> ITensor:
        return self._inputs[need(index, int, "get_input")]

    def get_output(self, index: int) -> ITensor:
        return self._outputs[need(index, int, "get_output")]


class ParserError(Strict):  # pyOnnx: desc(), node_name(), node_operator(), __str__
    def __init__(self, node: str, operator: str, text: str) -> None:
        self._node, self._operator, self._text = node, operator, text

    def desc(self) -> str:
        return self._text

    def node_name(self) -> str:
        return self._node

    def node_operator(self) -> str:
        return self._operator

    def __str__(self) -> str:
        return f"In node 0 with name: {self._node} and operator: {self._operator}: {self._text}"


class OnnxParser(Strict):  # pyOnnx: init(network, logger), parse_from_file(model) -> bool
    def __init__(self, network: INetworkDefinition, logger: Any) -> None:
        self._network = need(network, INetworkDefinition, "OnnxParser")
        self._logger = need_logger(logger, "OnnxParser")
        self._errors: list[ParserError] = []

    num_errors = property(lambda self: len(self._errors))

    def get_error(self, index: int) -> ParserError:
        return self._errors[need(index, int, "get_error")]

    def parse_from_file(self, model: str) -> bool:
        path = need(model, str, "OnnxParser.parse_from_file")
        proto = onnx.load(path)
        network = self._network
        network._model = proto.SerializeToString()
        values = {v.name: v for v in (*proto.graph.input, *proto.graph.output)}
        constants = {t.name for t in proto.graph.initializer}
        network._inputs = [
            self._tensor(values[v.name]) for v in proto.graph.input if v.name not in constants
        ]
        network._outputs = [self._tensor(v) for v in proto.graph.output]
        for node in proto.graph.node:
            attributes = {a.name: a for a in node.attribute}
            # ModelImporter.cpp: plugin_namespace set and registered -> plugin, else the function.
            if "plugin_namespace" in attributes and self._registered(node, attributes):
                network._layers.append(ILayer(LayerType.PLUGIN_V3, node.name))
            else:
                network._layers.append(ILayer(LayerType.ELEMENTWISE, node.name))
            if node.op_type == "RandomUniform":
                self._errors.append(ParserError(node.name, node.op_type, "unsupported here"))
        return not self._errors

    @staticmethod
    def _registered(node: Any, attributes: dict[str, Any]) -> bool:
        from . import plugin

        namespace = attributes["plugin_namespace"].s.decode()
        if attributes["plugin_version"].s != b"1":
            return False  # quick plugins are registered as version "1" (_lib.py)
        return f"{namespace}::{node.op_type}" in plugin.QDP_REGISTRY

    @staticmethod
    def _tensor(value: Any) -> ITensor:
        tensor = value.type.tensor_type
        shape = tuple(
            dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim
        )
        return ITensor(value.name, _TYPES[tensor.elem_type], shape)


class IOptimizationProfile(Strict):  # pyCore: set_shape(input, min, opt, max) -> None
    def __init__(self) -> None:
        self._shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        need(input, str, "set_shape")
        shapes = [tuple(need(shape, (tuple, list), "set_shape")) for shape in (min, opt, max)]
        if len({len(shape) for shape in shapes}) != 1 or any(
            not 0 <= a <= b <= c for a, b, c in zip(*shapes, strict=True)
        ):
            raise RuntimeError("Shape provided for opt is inconsistent with other shapes.")
        self._shapes[input] = shapes

    def __bool__(self) -> bool:
        return bool(self._shapes)


class ITimingCache(Strict):  # pyCore: serialize() -> IHostMemory
    def __init__(self, data: bytes) -> None:
        self._data = data

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._data or b"stub timing cache")


class IBuilderConfig(Strict):  # pyCore: py::class_<IBuilderConfig>
    _properties = ("progress_monitor", "builder_optimization_level")

    def __init__(self) -> None:
        self._pools: dict[MemoryPoolType, int] = {}
        self._profiles: list[IOptimizationProfile] = []
        self._flags = {BuilderFlag.TF32}  # on by default
        self._cache: ITimingCache | None = None
        self.progress_monitor: IProgressMonitor | None = None
        self.builder_optimization_level = 3

    num_optimization_profiles = property(lambda self: len(self._profiles))

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        need(pool, MemoryPoolType, "set_memory_pool_limit")
        self._pools[pool] = need(pool_size, int, "set_memory_pool_limit")

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._profiles.append(need(profile, IOptimizationProfile, "add_optimization_profile"))
        return len(self._profiles) - 1 if profile else -1

    def set_flag(self, flag: BuilderFlag) -> None:
        self._flags.add(need(flag, BuilderFlag, "set_flag"))

    def clear_flag(self, flag: BuilderFlag) -> None:
        self._flags.discard(need(flag, BuilderFlag, "clear_flag"))

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(bytes(need(serialized_timing_cache, bytes, "create_timing_cache")))

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        self._cache = need(cache, ITimingCache, "set_timing_cache")
        need(ignore_mismatch, bool, "set_timing_cache")
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache


class Builder(Strict):  # pyCore: py::class_<IBuilder>(m, "Builder")
    _properties = ("max_threads",)

    def __init__(self, logger: Any) -> None:
        self._logger = need_logger(logger, "Builder")

    def create_network(self, flags: int = 0) -> INetworkDefinition | None:
        need(flags, int, "create_network")
        known = sum(1 << int(flag) for flag in NetworkDefinitionCreationFlag)
        if flags & ~known:  # as 11.4 and TensorRT for RTX 1.7 do
            self._logger.log(Severity.ERROR, f"createNetworkV2: unknown flags {flags:#x}")
            return None
        network = INetworkDefinition(flags)
        CREATED["networks"].append(network)
        return network

    def create_builder_config(self) -> IBuilderConfig:
        CREATED["configs"].append(IBuilderConfig())
        return CREATED["configs"][-1]

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> IHostMemory | None:
        need(network, INetworkDefinition, "build_serialized_network")
        need(config, IBuilderConfig, "build_serialized_network")
        error = self._wrong(network, config) or (FAIL_BUILD.pop() if FAIL_BUILD else "")
        monitor = config.progress_monitor
        if monitor is not None and not error:
            monitor.phase_start("Building the engine", None, 2)
            monitor.phase_start("Timing", "Building the engine", 1)
            goes_on = monitor.step_complete("Timing", 0)
            monitor.phase_finish("Timing")
            goes_on = goes_on and all(
                monitor.step_complete("Building the engine", i) for i in (0, 1)
            )
            monitor.phase_finish("Building the engine")
            error = "" if goes_on else "Build cancelled by the progress monitor."
        if error:
            self._logger.log(Severity.ERROR, error)
            return None
        return IHostMemory(self._plan(network, config))

    @staticmethod
    def _wrong(network: INetworkDefinition, config: IBuilderConfig) -> str:
        strongly = 1 << int(NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        if not _base.IS_11 and not network._flags & strongly:
            return "stub: the network is not strongly typed"
        if not network._outputs:
            return "Network must have at least one output"
        for tensor in network._inputs:
            if -1 not in tensor.shape:
                continue
            if not config._profiles:
                return f"{tensor.name}: dynamic input is missing an optimization profile."
            for profile in config._profiles:
                shapes = profile._shapes.get(tensor.name)
                if shapes is None:
                    return f"{tensor.name}: dimensions are missing in profile 0."
                for shape in shapes:
                    fits = len(shape) == len(tensor.shape) and all(
                        real in (-1, s) for real, s in zip(tensor.shape, shape, strict=True)
                    )
                    if not fits:
                        return f"{tensor.name}: profile {shape} does not fit {tensor.shape}."
        return ""

    def _plan(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes:
        summary = {
            "version": _base.VERSION,
            "profiles": [profile._shapes for profile in config._profiles],
            "flags": sorted(flag.name for flag in config._flags),
            "inputs": [[t.name, int(t.dtype), list(t.shape)] for t in network._inputs],
            "outputs": [[t.name, int(t.dtype), list(t.shape)] for t in network._outputs],
        }
        header = json.dumps(summary).encode()
        body = len(header).to_bytes(8, "little") + header + network._model
        return MAGIC + hashlib.sha256(body).digest() + body
