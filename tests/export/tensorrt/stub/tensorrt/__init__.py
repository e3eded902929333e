"""A stand-in for NVIDIA's ``tensorrt``: the names that ssmdiff uses, strict about each of them.

It checks the order of the calls and the types of the arguments, "builds" a plan that carries the
network, its profiles and its plugins' kernels, and "runs" it by ONNX Runtime on host memory.
Nothing else of TensorRT is here: an attribute that is not listed raises AttributeError.

Sources, at the tags v10.13.3 and v11.1 of github.com/NVIDIA/TensorRT:
    pyCore   python/src/infer/pyCore.cpp
    pyGraph  python/src/infer/pyGraph.cpp
    pyTypes  python/src/infer/pyFoundationalTypes.cpp
    pyOnnx   python/src/parsers/pyOnnx.cpp
    doc      python/docstrings/infer/pyCoreDoc.h

``SSMDIFF_STUB_TENSORRT`` gives the version, 10.13.3.9 by default; 11.x has fewer names.
"""

from ._base import (
    IS_11,
    VERSION,
    BuilderFlag,
    DataType,
    IHostMemory,
    ILogger,
    IProgressMonitor,
    LayerType,
    Logger,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    QuickPluginCreationRequest,
    TensorFormat,
    TensorIOMode,
)
from ._build import Builder, IBuilderConfig, INetworkDefinition, ITimingCache, OnnxParser
from ._run import ICudaEngine, IExecutionContext, Runtime

__version__ = VERSION

# pyTypes: "Also create direct mappings (so we can call trt.float32, for example)".
float32 = DataType.FLOAT
float16 = DataType.HALF
bfloat16 = DataType.BF16
int32 = DataType.INT32
int64 = DataType.INT64

__all__ = [
    "IS_11",
    "Builder",
    "BuilderFlag",
    "DataType",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "IHostMemory",
    "ILogger",
    "INetworkDefinition",
    "IProgressMonitor",
    "ITimingCache",
    "LayerType",
    "Logger",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "QuickPluginCreationRequest",
    "Runtime",
    "TensorFormat",
    "TensorIOMode",
]
