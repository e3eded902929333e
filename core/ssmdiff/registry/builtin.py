"""What the core itself contributes: the reference kernel."""

from collections.abc import Iterable

from ssmdiff.registry.component import Component
from ssmdiff.registry.hookspecs import hookimpl


@hookimpl
def ssmdiff_kernels() -> Iterable[Component]:
    yield Component("torch", "ssmdiff.ops.reference:TorchKernel", "plain reference, runs anywhere")
