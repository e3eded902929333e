"""The one op and its kernels."""

from ssmdiff.ops.kernels import (
    Kernel,
    ScanGradients,
    ScanInputs,
    StateKeepingKernel,
    backward_from,
    both_passes,
    decode_order,
    forward_keeping,
    kept_every,
    kept_shape,
    note_order,
    order_rows,
    restarts_in,
)
from ssmdiff.ops.reference import TorchKernel, states_of
from ssmdiff.ops.scan_op import (
    kernel_for,
    kernels_used,
    load_kernel,
    preferred_kernels,
    require_kernel,
    selective_scan,
    set_kernel,
    use_kernel,
)

__all__ = [
    "Kernel",
    "ScanGradients",
    "ScanInputs",
    "StateKeepingKernel",
    "TorchKernel",
    "backward_from",
    "both_passes",
    "decode_order",
    "forward_keeping",
    "kept_every",
    "kept_shape",
    "kernel_for",
    "kernels_used",
    "load_kernel",
    "note_order",
    "order_rows",
    "preferred_kernels",
    "require_kernel",
    "restarts_in",
    "selective_scan",
    "set_kernel",
    "states_of",
    "use_kernel",
]
