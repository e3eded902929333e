"""Run by test_trt_real.py in a process of its own: our plugin in NVIDIA's hands, as far as CPUs go.

    python real_plugin_program.py model.onnx SelectiveScan

``tensorrt`` is the real binding of TensorRT 11 with its own package ``tensorrt.plugin``; parser and
builder under it are those of TensorRT for RTX. They import no quick plugins, so a plugin of the
other kind stands in the network and hands everything that the builder asks to the quick one: types,
shapes in the builder's own expressions, formats, tactics, launch and kernel. What came of it is
printed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import tensorrt_bindings

sys.modules["tensorrt"] = tensorrt_bindings

import tensorrt as trt  # noqa: E402
from ssmdiff_export.runtime.card import DOMAIN  # noqa: E402
from ssmdiff_export.tensorrt import plugin as ours  # noqa: E402, F401  # registers both operators
from tensorrt.plugin._tensor import SymExprImpl  # noqa: E402

SHELL = "shell"
SEEN: dict = {}


def _keep(symbol, expression) -> None:
    trt.ISymExpr.expr.fset(symbol, expression)  # the real one can be written and not read
    symbol.kept = expression


SymExprImpl.expr = property(lambda symbol: symbol.kept, _keep)


class Launch:
    """What the builder fills in: NVIDIA gives no way to make one in Python."""


class Extras(dict):
    nbSymExprs = 0  # noqa: N815


def quick(operator: str):
    creator = trt.get_plugin_registry().get_creator(operator, "1", DOMAIN)
    request = trt.QuickPluginCreationRequest.PREFER_AOT
    fields = trt.PluginFieldCollection([])
    return creator.create_plugin(operator, DOMAIN, fields, trt.TensorRTPhase.BUILD, request)


def described(kind, dims) -> trt.DynamicPluginTensorDesc:
    desc = trt.PluginTensorDesc()
    desc.type, desc.format, desc.dims = kind, trt.TensorFormat.LINEAR, dims
    dynamic = trt.DynamicPluginTensorDesc()
    dynamic.desc, dynamic.min, dynamic.opt, dynamic.max = desc, dims, dims, dims
    return dynamic


class Shell(trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime):
    def __init__(self, operator: str) -> None:
        trt.IPluginV3.__init__(self)
        trt.IPluginV3OneCore.__init__(self)
        trt.IPluginV3OneBuild.__init__(self)
        trt.IPluginV3OneRuntime.__init__(self)
        self.num_outputs = 1
        self.plugin_namespace, self.plugin_name, self.plugin_version = SHELL, operator, "1"
        self.quick = quick(operator)

    def get_capability_interface(self, type):
        return self

    def get_output_data_types(self, input_types):
        self.types = self.quick.get_output_data_types(input_types, [3, 4, 3, 4, 4, 2])
        SEEN["types"] = [t.name for t in self.types]
        return self.types

    def get_output_shapes(self, inputs, shape_inputs, builder):
        if not hasattr(self.quick, "input_types"):
            return [trt.DimsExprs(inputs[1])]
        shapes = self.quick.get_output_shapes(inputs, shape_inputs, builder)
        sides = [[e.get_constant_value() for e in dims] for dims in (*inputs, *shapes)]
        SEEN["output"] = sides[-1]
        kinds = [*self.quick.input_types, *self.types]
        descs = [described(kind, dims) for kind, dims in zip(kinds, sides, strict=True)]
        combinations = self.quick.get_supported_format_combinations(descs, 6)
        SEEN["combinations"] = [
            [d.type.name for d in combinations[i : i + 7]] for i in range(0, len(combinations), 7)
        ]
        self.quick.configure_plugin(descs[:6], descs[6:])
        SEEN["tactics"] = self.quick.get_valid_tactics()
        self.quick.set_tactic(0)
        launch, extras = Launch(), Extras()
        self.quick.get_launch_params(inputs, descs, 6, launch, extras, builder)
        SEEN["launch"] = {
            name: value.expr.get_constant_value() for name, value in vars(launch).items()
        }
        SEEN["extras"] = [extras[i].expr.get_constant_value() for i in range(extras.nbSymExprs)]
        name, ptx = self.quick.get_kernel([d.desc for d in descs[:6]], [d.desc for d in descs[6:]])
        SEEN["kernel"], SEEN["entry"] = name, f".entry {name}(".encode() in ptx
        return shapes

    def supports_format_combination(self, pos, in_out, num_inputs):
        linear = in_out[pos].desc.format == trt.TensorFormat.LINEAR
        names = [in_out[i].desc.type.name for i in range(pos + 1)]
        return linear and names in [c[: pos + 1] for c in SEEN["combinations"]]

    def configure_plugin(self, inputs, outputs): ...

    def on_shape_change(self, inputs, outputs): ...

    def get_valid_tactics(self):
        return []

    def set_tactic(self, tactic): ...

    def get_fields_to_serialize(self):
        return trt.PluginFieldCollection([])

    def attach_to_context(self, context):
        return self.clone()

    def clone(self):
        copy = Shell(self.plugin_name)
        copy.__dict__.update(self.__dict__)
        return copy


class Creator(trt.IPluginCreatorV3One):
    def __init__(self, operator: str) -> None:
        trt.IPluginCreatorV3One.__init__(self)
        self.name, self.plugin_namespace, self.plugin_version = operator, SHELL, "1"
        self.field_names = trt.PluginFieldCollection([])

    def create_plugin(self, name, fields, phase):
        return Shell(self.name)


def main() -> None:
    model, operator = Path(sys.argv[1]), sys.argv[2]
    creator = Creator(operator)
    trt.get_plugin_registry().register_creator(creator, SHELL)
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.read_bytes()):
        sys.exit("\n".join(parser.get_error(i).desc() for i in range(parser.num_errors)))
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    SEEN["plugins"] = sum(layer.type == trt.LayerType.PLUGIN_V3 for layer in layers)
    config = builder.create_builder_config()
    SEEN["bytes"] = len(bytes(builder.build_serialized_network(network, config) or b""))
    print(json.dumps(SEEN))


if __name__ == "__main__":
    main()
