"""Kernels of the selective scan: ``numba`` for CPUs, ``triton`` and ``mamba-ssm`` for GPUs."""

from collections.abc import Iterable

from ssmdiff import Component, hookimpl


@hookimpl
def ssmdiff_kernels() -> Iterable[Component]:
    yield Component(
        "numba",
        "ssmdiff_kernels.numba_scan.kernel:NumbaKernel",
        "CPU, threaded, walks the order itself",
    )
    yield Component(
        "triton",
        "ssmdiff_kernels.triton_kernel:TritonKernel",
        "CUDA and ROCm, walks the order itself",
    )
    yield Component(
        "mamba-ssm",
        "ssmdiff_kernels.mamba_ssm_kernel:MambaSsmKernel",
        "CUDA, mamba-ssm's kernel between a gather and a scatter",
        "Gu, A. & Dao, T. (2023). Mamba: Linear-Time Sequence Modeling with Selective State "
        "Spaces. arXiv:2312.00752.",
    )
