"""An ONNX file to a serialised engine of either TensorRT."""

from __future__ import annotations

import importlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssmdiff import ExportError, write_atomically

from ssmdiff_export.runtime.card import DOMAIN, EULER, ZOH
from ssmdiff_export.tensorrt.binding import (
    TENSORRT,
    Product,
    load_tensorrt,
    logged,
    made,
    make_logger,
)

Batch = tuple[int, int, int]
SCANS = (EULER, ZOH)


@dataclass(frozen=True)
class Build:
    """A serialised engine and what the builder told about it."""

    plan: bytes
    plugin_layers: int
    layers: int
    build_s: float
    log: tuple[str, ...]


def build_engine(
    model: Path,
    batch: Batch,
    *,
    precision: str = "fp32",
    workspace_bytes: int,
    timing_cache: Path | None = None,
    progress: bool = False,
    product: Product = TENSORRT,
    capabilities: tuple[str, ...] = (),
) -> Build:
    """Build an engine, for this machine's GPU or for cards of these capabilities.

    The network is strongly typed: the precision is what the file's Casts say. That is the only way
    in TensorRT 11 and TensorRT for RTX, and works the same in TensorRT 10.

    Args:
        model: An ONNX file; it is checked before TensorRT opens it.
        batch: Fewest, usual and most images of a call; the engine is tuned for the usual.
        precision: Of the file; in ``fp32`` TensorFloat-32 is switched off.
        workspace_bytes: What the builder may use for temporary tensors.
        timing_cache: A file of earlier timings to start from and to add to; in a private folder.
        progress: Show the builder's phases.
        product: Whose engine.
        capabilities: Of the cards, such as ``("8.6", "12.0")``, if the product is told them.

    Raises:
        ExportError: The file is damaged, holds what TensorRT cannot take, or the build fails; what
            TensorRT logged is in the message.
    """
    from ssmdiff_export.runtime.files import check_model_file

    check_model_file(model)
    trt = load_tensorrt(product)
    if product.plugin:
        importlib.import_module("ssmdiff_export.tensorrt.plugin")
    logger = make_logger(trt)
    name = f"{product.title} {trt.__version__}"
    start_s = time.perf_counter()
    builder = made(lambda: trt.Builder(logger), f"{name} makes no builder", logger)
    network = _network(trt, product, builder, name, logger)
    _parse(trt, network, logger, model, name)
    plugin_layers = _count_plugins(trt, network, model, name) if product.plugin else 0
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
    if precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)
    if capabilities:
        config.num_compute_capabilities = len(capabilities)
    for i, capability in enumerate(capabilities):
        known = getattr(trt.ComputeCapability, f"SM{capability.replace('.', '')}")
        config.set_compute_capability(known, i)
    config.add_optimization_profile(_profile(builder, network, batch))
    if timing_cache is not None:
        earlier = timing_cache.read_bytes() if timing_cache.is_file() else b""
        config.set_timing_cache(config.create_timing_cache(earlier), False)
    with _monitor(trt, progress) as monitor:
        if monitor is not None:
            config.progress_monitor = monitor
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ExportError(f"{name} cannot build {model.name}{logged(logger)}")
    if timing_cache is not None:
        write_atomically(timing_cache, bytes(config.get_timing_cache().serialize()))
    return Build(
        bytes(plan),
        plugin_layers,
        network.num_layers,
        time.perf_counter() - start_s,
        tuple(logger.lines),
    )


def _network(trt: Any, product: Product, builder: Any, name: str, logger: Any) -> Any:
    flags = product.flags(trt.__version__)
    known = trt.NetworkDefinitionCreationFlag
    bits = sum(1 << int(getattr(known, flag)) for flag in flags)
    asked = " and ".join(flags) or "no flags"
    return made(
        lambda: builder.create_network(bits), f"{name} makes no network with {asked}", logger
    )


def _parse(trt: Any, network: Any, logger: Any, model: Path, name: str) -> None:
    parser = trt.OnnxParser(network, logger)
    if parser.parse_from_file(str(model.resolve())):
        return
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    detail = "".join(f"\n{error.node_operator()} {error.node_name()}: {error}" for error in errors)
    raise ExportError(f"{name} cannot take {model.name}{detail or logged(logger)}")


def _count_plugins(trt: Any, network: Any, model: Path, name: str) -> int:
    """How many layers are ours; the file's scans must all be.

    Raises:
        ExportError: TensorRT took the function of a node in place of the plugin.
    """
    import onnx

    graph = onnx.load(model, load_external_data=False).graph
    expected: int = sum(n.domain == DOMAIN and n.op_type in SCANS for n in graph.node)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    found = sum(layer.type == trt.LayerType.PLUGIN_V3 for layer in layers)
    if found != expected:
        raise ExportError(
            f"{name} made {found} plugin layers of {expected} scans in "
            f"{model.name}; expected one for each, because the scan's plain body is far slower"
        )
    return expected


def _profile(builder: Any, network: Any, batch: Batch) -> Any:
    """The range of batch sizes, on every input whose first axis is dynamic.

    Raises:
        ExportError: Another axis is dynamic.
    """
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        shape = tuple(tensor.shape)
        if -1 not in shape:
            continue
        if -1 in shape[1:]:
            raise ExportError(f"input {tensor.name} has shape {shape}; only the batch may vary")
        profile.set_shape(tensor.name, *((size, *shape[1:]) for size in batch))
    return profile


class _monitor:
    """Context in which the builder's phases are shown on the terminal, if there is one."""

    def __init__(self, trt: Any, show: bool) -> None:
        self._trt, self._show = trt, show
        self._progress: Any = None

    def __enter__(self) -> Any:
        if not self._show or not sys.stderr.isatty():
            return None
        from rich.console import Console
        from rich.progress import Progress

        self._progress = Progress(console=Console(file=sys.stderr), transient=True)
        self._progress.start()
        return progress_monitor(self._trt, self._progress)

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()


def progress_monitor(trt: Any, progress: Any) -> Any:
    """A ``trt.IProgressMonitor`` that shows phases as tasks of a rich ``Progress``.

    It is called from the builder's threads, and what it raises would cancel the build.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.tasks: dict[str, Any] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.tasks[phase_name] = progress.add_task(phase_name, total=num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self.tasks:
                progress.update(self.tasks[phase_name], completed=step + 1)
            return True

        def phase_finish(self, phase_name: str) -> None:
            if phase_name in self.tasks:
                progress.remove_task(self.tasks.pop(phase_name))

    return Monitor()
