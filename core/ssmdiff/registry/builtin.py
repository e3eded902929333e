"""What the core itself contributes: the reference kernel, and TensorBoard."""

from collections.abc import Iterable

from ssmdiff.registry.component import Component
from ssmdiff.registry.hookspecs import hookimpl


@hookimpl
def ssmdiff_kernels() -> Iterable[Component]:
    yield Component("torch", "ssmdiff.ops.reference:TorchKernel", "plain reference, runs anywhere")


@hookimpl
def ssmdiff_callbacks() -> Iterable[Component]:
    yield Component(
        "tensorboard", "ssmdiff_train.callbacks:TensorBoard", "event files in the run's folder"
    )
