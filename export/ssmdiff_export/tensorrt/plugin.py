"""The two operators as TensorRT plugins, compiled ahead of time: importing this registers them.

The kernel of ``kernel.cu`` goes into the engine as PTX, so that an engine runs without Python and
without this package. Names, namespace and version are those of the nodes' attributes. Written after
python/packaging/bindings_wheel/tensorrt/plugin of github.com/NVIDIA/TensorRT, 10.13.3 and 11.1.
"""

# No "from __future__ import annotations": tensorrt.plugin reads the annotations as objects.

from typing import Any, TypeAlias

import tensorrt as trt
import tensorrt.plugin as trtp
from ssmdiff import ExportError

from ssmdiff_export.runtime.card import DOMAIN, EULER, ZOH
from ssmdiff_export.tensorrt.nvrtc import kernel_name, scan_ptx

THREADS = 64  # a block's; a thread walks one channel, so small blocks spread a scan over the GPU
Desc: TypeAlias = trtp.TensorDesc
Compiled = tuple[str | bytes, str | bytes, trtp.KernelLaunchParams, trtp.SymIntExprs]
# The same for all of a node's types: u, B, C and y together; delta and A float32; order int32.
TYPES = "FP32|FP16|BF16"
REALS = {trt.DataType.FLOAT: "fp32", trt.DataType.HALF: "fp16", trt.DataType.BF16: "bf16"}


def describe(u: Desc, delta: Desc, A: Desc, B: Desc, C: Desc, order: Desc) -> Desc:
    """y: the shape of delta (B, K, L, D), the type of u."""
    y = delta.like()
    y.dtype = u.dtype
    return y


def combinations(
    u: Desc, delta: Desc, A: Desc, B: Desc, C: Desc, order: Desc, outputs: tuple[Desc]
) -> list[trtp.AutoTuneCombination]:
    """The types that the kernel comes in; everything row-major."""
    combination = trtp.AutoTuneCombination()
    combination.pos([0, 3, 4, 6], TYPES)
    combination.pos([1, 2], "FP32")
    combination.pos([5], "INT32")
    return [combination]


def compiled(zoh: bool, u: Desc, delta: Desc, A: Desc) -> tuple[Any, ...]:
    """Kernel name, PTX, launch and the extra arguments L, D, K.

    Raises:
        ExportError: The state's size is not known when the engine is built, or is too large.
    """
    images, K, L, D = (delta.shape_expr[i] for i in range(4))
    state = A.shape_expr[2]
    if not state.is_constant:
        raise ExportError("the size N of the scan's state must be fixed in an engine")
    N = state.constant_value()
    real = REALS[u.dtype]
    launch = trtp.KernelLaunchParams()
    launch.grid_x = images * K * trtp.cdiv(D, THREADS)
    launch.block_x = THREADS
    extras = trtp.SymIntExprs.from_tuple([trtp.SymInt32(dim) for dim in (L, D, K)])
    return kernel_name(zoh, real, N), scan_ptx(zoh, real, N), launch, extras


def compiled_euler(
    u: Desc, delta: Desc, A: Desc, B: Desc, C: Desc, order: Desc, outputs: tuple[Desc], tactic: int
) -> Compiled:
    return compiled(False, u, delta, A)  # type: ignore[return-value]


def compiled_zoh(
    u: Desc, delta: Desc, A: Desc, B: Desc, C: Desc, order: Desc, outputs: tuple[Desc], tactic: int
) -> Compiled:
    return compiled(True, u, delta, A)  # type: ignore[return-value]


for _name, _implementation in ((EULER, compiled_euler), (ZOH, compiled_zoh)):
    _identity = f"{DOMAIN}::{_name}"
    trtp.register(_identity)(describe)
    trtp.autotune(_identity)(combinations)
    trtp.aot_impl(_identity)(_implementation)
