"""Our plugin under NVIDIA's own ``tensorrt.plugin``, which is Python and open.

Skipped unless SSMDIFF_TENSORRT_SOURCE names a checkout of github.com/NVIDIA/TensorRT (10.13 or 11).
The compiled half is a stand-in: symbolic integers that compute, and base classes without content.
"""

from __future__ import annotations

import importlib
import os
import sys
from enum import IntEnum
from pathlib import Path

import pytest
from ssmdiff_export.runtime.card import DOMAIN, EULER, ZOH
from ssmdiff_export.tensorrt import nvrtc

SOURCE = os.environ.get("SSMDIFF_TENSORRT_SOURCE")
pytestmark = pytest.mark.skipif(SOURCE is None, reason="SSMDIFF_TENSORRT_SOURCE is not set")

B, K, L, D, N = 4, 3, 16, 70, 16


class IDimensionExpr:
    def __init__(self, value, constant=True):
        self.value, self.constant = value, constant

    def is_constant(self):
        return self.constant

    def get_constant_value(self):
        assert self.constant
        return self.value


class DimensionOperation(IntEnum):
    SUM, PROD, MAX, MIN, SUB, EQUAL, LESS, FLOOR_DIV, CEIL_DIV = range(9)


class ExprBuilder:
    def constant(self, value):
        return IDimensionExpr(value)

    def operation(self, operation, a, b):
        compute = {
            DimensionOperation.SUM: lambda x, y: x + y,
            DimensionOperation.PROD: lambda x, y: x * y,
            DimensionOperation.CEIL_DIV: lambda x, y: -(-x // y),
        }[operation]
        return IDimensionExpr(compute(a.value, b.value), a.constant and b.constant)


class Dims(list):
    MAX_DIMS = 8


class PluginTensorDesc:
    def __init__(self, type_=None, dims=(), format_=None):
        self.type, self.dims, self.format, self.scale = type_, Dims(dims), format_, 1.0


class DynamicPluginTensorDesc:
    def __init__(self, desc):
        self.desc = desc
        self.min = self.max = self.opt = desc.dims


class PluginField:
    def __init__(self, name, data=None, type=None):
        self.name, self.data, self.type = name, data, type


class Registry:
    def __init__(self):
        self.creators = {}

    def register_creator(self, creator, namespace):
        self.creators[namespace, creator.name] = creator

    def get_creator(self, name, version, namespace):
        assert version == "1"
        return self.creators[namespace, name]


class Setter(dict):
    nbSymExprs = 0  # noqa: N815


@pytest.fixture
def real(monkeypatch, trt):
    """The stub with NVIDIA's plugin package and what it takes from the compiled module."""
    registry = Registry()
    empty = [
        "IPluginV3", "IPluginV3QuickCore", "IPluginV3QuickBuild", "IPluginV3QuickAOTBuild",
        "IPluginV3QuickRuntime", "IPluginCreatorV3Quick", "IPluginResource", "ISymExpr", "ITensor",
    ]  # fmt: skip
    members = {name: type(name, (), {}) for name in empty}
    types = ["UNKNOWN", "CHAR", "FLOAT16", "FLOAT32", "FLOAT64", "INT8", "INT16", "INT32", "INT64"]
    members |= {
        "IDimensionExpr": IDimensionExpr,
        "DimensionOperation": DimensionOperation,
        "Dims": Dims,
        "DimsExprs": lambda length: [None] * length,
        "PluginTensorDesc": PluginTensorDesc,
        "DynamicPluginTensorDesc": DynamicPluginTensorDesc,
        "PluginField": PluginField,
        "PluginFieldCollection": list,
        "PluginFieldType": IntEnum("PluginFieldType", types),
        "PluginArgType": IntEnum("PluginArgType", ["INT"]),
        "PluginArgDataType": IntEnum("PluginArgDataType", ["INT8", "INT16", "INT32"]),
        "TensorRTPhase": IntEnum("TensorRTPhase", ["BUILD", "RUNTIME"]),
        "get_plugin_registry": lambda: registry,
    }
    for name, member in members.items():
        monkeypatch.setattr(trt, name, member, raising=False)
    monkeypatch.setattr(
        trt, "__path__", [str(Path(SOURCE, "python/packaging/bindings_wheel/tensorrt"))]
    )
    for name in list(sys.modules):
        if name.startswith("tensorrt.plugin"):
            monkeypatch.delitem(sys.modules, name)
    importlib.import_module("ssmdiff_export.tensorrt.plugin")
    assert SOURCE in str(sys.modules["tensorrt.plugin"].__file__)
    return trt, registry


@pytest.mark.parametrize("trt", ["11.1.0.9"], indirect=True)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("operator", [EULER, ZOH])
def test_nvidias_package_takes_our_plugin(real, operator, precision):
    trt, registry = real
    creator = registry.get_creator(operator, "1", DOMAIN)
    request = trt.QuickPluginCreationRequest.PREFER_AOT
    plugin = creator.create_plugin(operator, DOMAIN, [], trt.TensorRTPhase.BUILD, request)
    dtype = {"fp32": trt.float32, "fp16": trt.float16, "bf16": trt.bfloat16}[precision]
    float32, linear = trt.float32, trt.TensorFormat.LINEAR
    types = [dtype, float32, float32, dtype, dtype, trt.int32]
    shapes = [(B, L, D), (B, K, L, D), (K, D, N), (B, K, L, N), (B, K, L, N), (K, L)]
    assert plugin.get_num_outputs() == 1
    # The order in which TensorRT calls: types, shapes, formats, configuration, kernel.
    assert plugin.get_output_data_types(types, [len(s) for s in shapes]) == [dtype]
    dims = [
        [IDimensionExpr(side, not (i == 0 and len(shape) > 2 and shape[0] == B))
         for i, side in enumerate(shape)]
        for shape in shapes
    ]  # fmt: skip
    (output,) = plugin.get_output_shapes(dims, [], ExprBuilder())
    assert [e.value for e in output] == [B, K, L, D]
    described = [
        DynamicPluginTensorDesc(PluginTensorDesc(t, s, linear))
        for t, s in zip([*types, dtype], [*shapes, (B, K, L, D)], strict=True)
    ]
    supported = plugin.get_supported_format_combinations(described, 6)
    combinations = [tuple(d.type for d in supported[i : i + 7]) for i in range(0, 21, 7)]
    assert len(supported) == 21
    assert (*types, dtype) in combinations
    plugin.configure_plugin(described[:6], described[6:])
    assert plugin.get_valid_tactics() == []
    plugin.set_tactic(0)
    launch, extras = type("Launch", (), {})(), Setter()
    plugin.get_launch_params(dims, described, 6, launch, extras, ExprBuilder())
    assert launch.grid_x.expr.value == B * K * 2  # 70 channels: two blocks of 64 threads
    assert launch.block_x.expr.value == 64
    assert launch.shared_mem.expr.value == 0
    assert [extras[i].expr.value for i in range(extras.nbSymExprs)] == [L, D, K]
    name, ptx = plugin.get_kernel([d.desc for d in described[:6]], [d.desc for d in described[6:]])
    assert name == nvrtc.kernel_name(operator == ZOH, precision, N)
    assert f".entry {name}(".encode() in ptx
