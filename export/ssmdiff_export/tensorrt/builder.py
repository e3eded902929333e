"""An ONNX file to a serialised TensorRT engine."""

from __future__ import annotations

import importlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssmdiff import ExportError, write_atomically

from ssmdiff_export.runtime.card import DOMAIN
from ssmdiff_export.tensorrt.binding import load_tensorrt, logged, make_logger, version_tuple

Batch = tuple[int, int, int]


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
) -> Build:
    """Build an engine for this machine's GPU.

    The network is strongly typed: the precision is what the file's Casts say. That is the only way
    in TensorRT 11, and works the same in 10.

    Args:
        model: An ONNX file; it is checked before TensorRT opens it.
        batch: Fewest, usual and most images of a call; the engine is tuned for the usual.
        precision: Of the file; in ``fp32`` TensorFloat-32 is switched off.
        workspace_bytes: What the builder may use for temporary tensors.
        timing_cache: A file of earlier timings to start from and to add to; in a private folder.
        progress: Show the builder's phases.

    Raises:
        ExportError: The file is damaged, holds what TensorRT cannot take, or the build fails; what
            TensorRT logged is in the message.
    """
    from ssmdiff_export.runtime.files import check_model_file

    check_model_file(model)
    trt = load_tensorrt()
    importlib.import_module("ssmdiff_export.tensorrt.plugin")
    logger = make_logger(trt)
    start_s = time.perf_counter()
    builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(trt))
    _parse(trt, network, logger, model)
    plugin_layers = _count_plugins(trt, network, model)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
    if precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)
    config.add_optimization_profile(_profile(builder, network, batch))
    if timing_cache is not None:
        earlier = timing_cache.read_bytes() if timing_cache.is_file() else b""
        config.set_timing_cache(config.create_timing_cache(earlier), False)
    with _monitor(trt, progress) as monitor:
        if monitor is not None:
            config.progress_monitor = monitor
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ExportError(f"TensorRT {trt.__version__} cannot build {model.name}{logged(logger)}")
    if timing_cache is not None:
        write_atomically(timing_cache, bytes(config.get_timing_cache().serialize()))
    return Build(
        bytes(plan),
        plugin_layers,
        network.num_layers,
        time.perf_counter() - start_s,
        tuple(logger.lines),
    )


def _network_flags(trt: Any) -> int:
    known = trt.NetworkDefinitionCreationFlag
    flags = [known.PREFER_AOT_PYTHON_PLUGINS]
    if version_tuple(trt.__version__) < (11, 0):  # later, all networks are
        flags.append(known.STRONGLY_TYPED)
    return sum(1 << int(flag) for flag in flags)


def _parse(trt: Any, network: Any, logger: Any, model: Path) -> None:
    parser = trt.OnnxParser(network, logger)
    if parser.parse_from_file(str(model.resolve())):
        return
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    detail = "".join(f"\n{error.node_operator()} {error.node_name()}: {error}" for error in errors)
    raise ExportError(
        f"TensorRT {trt.__version__} cannot take {model.name}{detail or logged(logger)}"
    )


def _count_plugins(trt: Any, network: Any, model: Path) -> int:
    """How many layers are ours; the file's scans must all be.

    Raises:
        ExportError: TensorRT took the function of a node in place of the plugin.
    """
    import onnx

    graph = onnx.load(model, load_external_data=False).graph
    expected: int = sum(node.domain == DOMAIN for node in graph.node)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    found = sum(layer.type == trt.LayerType.PLUGIN_V3 for layer in layers)
    if found != expected:
        raise ExportError(
            f"TensorRT {trt.__version__} made {found} plugin layers of {expected} scans in "
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
