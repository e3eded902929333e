"""The one op and its kernels."""

from ssmdiff.ops.choice import kernel_for, kernels_used, load_kernel, set_kernel, use_kernel
from ssmdiff.ops.kernels import Kernel, ScanGradients, ScanInputs
from ssmdiff.ops.reference import TorchKernel
from ssmdiff.ops.scan_op import selective_scan

__all__ = [
    "Kernel",
    "ScanGradients",
    "ScanInputs",
    "TorchKernel",
    "kernel_for",
    "kernels_used",
    "load_kernel",
    "selective_scan",
    "set_kernel",
    "use_kernel",
]
