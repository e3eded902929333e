"""The scan as a plugin of TensorRT for RTX: a shell that parses and builds, without a kernel.

    python scan_shell.py model.onnx model.rtx 8.9

TensorRT for RTX takes plugins of version 3 that a creator of version "One" registers. The parser
finds one by the attributes ``plugin_namespace`` and ``plugin_version`` of a node, which every scan
in a file of ``ssmdiff export`` has, and prefers it to the function in the file. What is here is all
that a builder asks of such a plugin. ``enqueue`` is what a card asks, and is left out: a kernel
that no card has run would be a guess. An engine that is built so does not run.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import tensorrt_rtx_bindings as trt
import tensorrt_rtx_libs

NAMESPACE, VERSION = "ssmdiff", "1"
OPERATORS = ("SelectiveScan", "SelectiveScanZoh")
REALS = (trt.float32, trt.float16, trt.bfloat16)


class Scan(trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime):
    """u, delta, A, B, C, order to y (B, K, L, D): shapes and types, and nothing computed."""

    def __init__(self, operator: str) -> None:
        trt.IPluginV3.__init__(self)
        trt.IPluginV3OneCore.__init__(self)
        trt.IPluginV3OneBuild.__init__(self)
        trt.IPluginV3OneRuntime.__init__(self)
        self.num_outputs = 1
        self.plugin_namespace, self.plugin_name, self.plugin_version = NAMESPACE, operator, VERSION

    def get_capability_interface(self, type: Any) -> Scan:
        return self

    def get_output_data_types(self, input_types: list[Any]) -> list[Any]:
        return [input_types[0]]

    def get_output_shapes(
        self, inputs: list[Any], shape_inputs: list[Any], builder: Any
    ) -> list[Any]:
        return [trt.DimsExprs(inputs[1])]

    def supports_format_combination(self, pos: int, in_out: list[Any], num_inputs: int) -> bool:
        """u, B, C and y of one type, delta and A float32, order int32; all row-major."""
        kind, real = in_out[pos].desc.type, in_out[0].desc.type
        fits = {1: (trt.float32,), 2: (trt.float32,), 5: (trt.int32,)}.get(pos, (real,))
        linear = in_out[pos].desc.format == trt.TensorFormat.LINEAR
        return linear and real in REALS and kind in fits

    def configure_plugin(self, inputs: list[Any], outputs: list[Any]) -> None: ...

    def on_shape_change(self, inputs: list[Any], outputs: list[Any]) -> None: ...

    def get_valid_tactics(self) -> list[int]:
        return []

    def set_tactic(self, tactic: int) -> None: ...

    def get_fields_to_serialize(self) -> Any:
        return trt.PluginFieldCollection([])

    def attach_to_context(self, context: Any) -> Scan:
        return self.clone()

    def clone(self) -> Scan:
        return Scan(self.plugin_name)

    def enqueue(self, *_: Any) -> None:
        raise NotImplementedError("a shell: it has no kernel")


class Creator(trt.IPluginCreatorV3One):
    """Makes the plugin of a node."""

    def __init__(self, operator: str) -> None:
        trt.IPluginCreatorV3One.__init__(self)
        self.name, self.plugin_namespace, self.plugin_version = operator, NAMESPACE, VERSION
        self.field_names = trt.PluginFieldCollection([])

    def create_plugin(self, name: str, fields: Any, phase: Any) -> Scan:
        return Scan(self.name)


def register() -> None:
    """Both operators, once in a process."""
    registry = trt.get_plugin_registry()
    for operator in OPERATORS:
        registry.register_creator(Creator(operator), NAMESPACE)


def build(model: Path, capability: str) -> tuple[bytes, int]:
    """The engine's bytes, and how many of its layers are plugins."""
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(model)):
        sys.exit("\n".join(parser.get_error(i).desc() for i in range(parser.num_errors)))
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    plugins = sum(layer.type == trt.LayerType.PLUGIN_V3 for layer in layers)
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    sm = getattr(trt.ComputeCapability, f"SM{capability.replace('.', '')}")
    config.set_compute_capability(sm, 0)
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        if -1 in tensor.shape:
            profile.set_shape(tensor.name, *((n, *tensor.shape[1:]) for n in (1, 8, 64)))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        sys.exit("the builder refuses it")
    return bytes(plan), plugins


def with_the_library_by_its_plain_name() -> None:
    """Begin anew with a place where ``libtensorrt_rtx.so`` is found.

    Where a plugin is met, the parser opens the library by that name, and the process aborts if
    there is none. The wheel has ``libtensorrt_rtx.so.1`` alone, and the loader reads its path when
    a process begins: so a link is made, and this program starts again.
    """
    try:
        ctypes.CDLL("libtensorrt_rtx.so")
    except OSError:
        place = Path(tempfile.gettempdir()) / f"rtx-library-{os.getuid()}"
        place.mkdir(mode=0o700, exist_ok=True)
        if place.stat().st_uid != os.getuid() or place.stat().st_mode & 0o077:
            sys.exit(f"{place} is not yours alone; remove it")
        (library,) = Path(tensorrt_rtx_libs.__file__).parent.glob("libtensorrt_rtx.so.*")
        link = place / "libtensorrt_rtx.so"
        link.unlink(missing_ok=True)
        link.symlink_to(library)
        paths = [str(place), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(paths)}
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def main() -> None:
    model, out, capability = sys.argv[1:]
    with_the_library_by_its_plain_name()
    register()
    plan, plugins = build(Path(model), capability)
    Path(out).write_bytes(plan)
    print(f"{out}: {plugins} plugin layers, {len(plan) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
