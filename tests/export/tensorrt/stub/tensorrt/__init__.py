"""A stand-in for NVIDIA's ``tensorrt``: the names that ssmdiff uses, strict about each of them.

For what nothing else here does: TensorRT's builder, which comes from elsewhere than PyPI, and a
runtime without a card. It checks the order of the calls and the types of the arguments, "builds" a
plan that carries the network and its profiles, and "runs" it by ONNX Runtime on host memory. An
attribute that is not listed raises AttributeError.

Its names, values and signatures are compared with the real bindings of 10.13.3 and 11.4
(test_trt_real.py). What they do is written after these, at the tags v10.13.3 and v11.1 of
github.com/NVIDIA/TensorRT:
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
from ._build import (
    Builder,
    IBuilderConfig,
    ILayer,
    INetworkDefinition,
    IOptimizationProfile,
    ITensor,
    ITimingCache,
    OnnxParser,
    ParserError,
)
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
    "ILayer",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IProgressMonitor",
    "ITensor",
    "ITimingCache",
    "LayerType",
    "Logger",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "ParserError",
    "QuickPluginCreationRequest",
    "Runtime",
    "TensorFormat",
    "TensorIOMode",
]
