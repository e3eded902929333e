"""Kernels of the selective scan: ``numba`` for CPUs."""

from collections.abc import Iterable

from ssmdiff import Component, hookimpl


@hookimpl
def ssmdiff_kernels() -> Iterable[Component]:
    yield Component(
        "numba", "ssmdiff_kernels.numba_kernel:NumbaKernel", "CPU, threaded, walks the order itself"
    )
