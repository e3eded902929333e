"""NVIDIA's own bindings: the stub has their names, our plugin passes their checks, they build."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import onnx
import pytest
import real_binding
import small_model
from small_model import D, K, L, N
from ssmdiff.errors import ExportError
from ssmdiff_export.runtime.card import EULER, OPERATORS, PRECISIONS, ZOH
from ssmdiff_export.tensorrt import nvrtc
from ssmdiff_export.tensorrt.binding import RTX, load_tensorrt
from trt_stub import stub_drift, stub_offers

IMAGES = 4
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def lean(tmp_path_factory):
    return real_binding.environment(tmp_path_factory.mktemp("lean"), "lean")


@pytest.fixture(scope="module")
def over_rtx(tmp_path_factory):
    return real_binding.environment(tmp_path_factory.mktemp("over"), "rtx")


# The stub beside the real bindings, name by name and signature by signature


@pytest.mark.parametrize("trt", ["11.1.0.9"], indirect=True)
def test_the_stub_of_11_claims_nothing_that_the_binding_lacks(trt, lean):
    claimed = stub_offers(trt)
    assert len(claimed) >= 20
    assert sum(map(len, claimed.values())) > 80
    real = real_binding.offered_by_binding(lean, list(claimed))
    assert stub_drift(claimed, real) == []


@pytest.mark.parametrize("trt", ["10.13.3.9"], indirect=True)
def test_the_stub_of_10_claims_nothing_that_the_binding_lacks(trt, tmp_path):
    claimed = stub_offers(trt)
    environment = real_binding.environment(tmp_path / "old", "rtx", major=10)
    real = real_binding.offered_by_binding(environment, list(claimed))
    assert stub_drift(claimed, real) == []


@pytest.mark.parametrize("trt", ["11.1.0.9"], indirect=True)
@pytest.mark.parametrize(
    ("owner", "name", "planted", "told"),
    [
        ("IBuilderConfig", "set_workspace", lambda self, pool: None, "has no set_workspace"),
        ("Builder", "create_network", lambda self, bits=0: None, "takes flags, not bits"),
        ("IExecutionContext", "infer_shapes", property(lambda self: 1), "is a method"),
    ],
)
def test_a_wrong_name_in_the_stub_is_found(trt, lean, monkeypatch, owner, name, planted, told):
    if inspect.isfunction(planted):
        planted.__name__ = name
    monkeypatch.setattr(getattr(trt, owner), name, planted, raising=False)
    claimed = stub_offers(trt)
    real = real_binding.offered_by_binding(lean, list(claimed))
    (drift,) = stub_drift(claimed, real)
    assert drift.startswith((f"{owner}.{name} ", f"{owner} "))
    assert told in drift


@pytest.mark.parametrize("trt", ["11.1.0.9"], indirect=True)
def test_what_the_runtime_asks_of_an_engine_is_there_in_rtx_too(trt):
    """No card runs an engine here: names and signatures are what can be compared."""
    try:
        rtx = load_tensorrt(RTX)
    except ExportError as error:
        pytest.skip(str(error))
    claimed = stub_offers(trt)
    alike = ("Runtime", "ICudaEngine", "IExecutionContext", "ITensor", "TensorIOMode", "DataType")
    found = real_binding.offered(rtx, list(claimed))
    assert stub_drift({name: claimed[name] for name in alike}, found) == []
    assert ["runtime_config"] in real_binding.arguments(rtx.ICudaEngine.create_execution_context)
    assert real_binding.arguments(rtx.ICudaEngine.create_runtime_config) == [[]]
    assert "dynamic_shapes_kernel_specialization_strategy" in dir(rtx.IRuntimeConfig)
    assert "EAGER" in rtx.DynamicShapesKernelSpecializationStrategy.__members__
    for capability in RTX.capabilities:
        assert f"SM{capability.replace('.', '')}" in rtx.ComputeCapability.__members__


# Our plugin in the hands of NVIDIA's package, registry and expressions

CHECKS = """
import tensorrt as trt, tensorrt.plugin as trtp
from ssmdiff_export.tensorrt import plugin
registry = trt.get_plugin_registry()
for name in ("SelectiveScan", "SelectiveScanZoh"):
    creator = registry.get_creator(name, "1", "ssmdiff")
    print(type(creator).__name__, creator.name, creator.plugin_namespace, creator.plugin_version)
def bare(u): return u
def described(u: trtp.TensorDesc) -> trtp.TensorDesc: return u.like()
def twice(): trtp.register("ssmdiff::SelectiveScan")(plugin.describe)
def kernel(u: trtp.TensorDesc, outputs: tuple[trtp.TensorDesc], tactic: int): ...
def reserved(): trtp.register("trt::scan")(described)
def unannotated(): trtp.register("ours::bare")(bare)
def unregistered(): trtp.autotune("ours::scan")(described)
def without_return():
    trtp.register("ours::scan")(described)
    trtp.aot_impl("ours::scan")(kernel)
for wrong in (twice, unannotated, reserved, unregistered, without_return):
    try:
        wrong()
    except ValueError as error:
        print(wrong.__name__, "refused:", str(error).splitlines()[0])
    else:
        print(wrong.__name__, "taken")
"""


def test_the_lean_registry_has_our_plugin_and_the_package_checks_it(lean):
    said = real_binding.run(CHECKS, lean).splitlines()
    for operator in OPERATORS.values():
        assert f"_TemplatePluginCreator {operator} ssmdiff 1" in said
    refused = [line for line in said if " refused: " in line]
    assert len(refused) == 5, said
    assert not [line for line in said if line.endswith(" taken")]


CASES = [
    pytest.param(*case, marks=() if case == ("fp16", ZOH) else SLOW)
    for case in [(precision, operator) for precision in PRECISIONS for operator in (EULER, ZOH)]
]


@pytest.mark.parametrize(("precision", "operator"), CASES)
def test_nvidias_package_runs_our_plugin_and_a_builder_takes_it(
    over_rtx, tmp_path, precision, operator
):
    try:
        nvrtc.library()
    except ExportError as error:
        pytest.skip(str(error))
    model = fixed_batch(
        small_model.write(tmp_path / "m.onnx", precision, operator, namespace="shell")
    )
    program = Path(__file__).parent / "real_plugin_program.py"
    seen = json.loads(real_binding.run(program, over_rtx, model, operator).splitlines()[-1])
    kind = {"fp32": "FLOAT", "fp16": "HALF", "bf16": "BF16"}[precision]
    assert seen["types"] == [kind]
    assert seen["output"] == [IMAGES, K, L, D]
    assert [kind, "FLOAT", "FLOAT", kind, kind, "INT32", kind] in seen["combinations"]
    assert len(seen["combinations"]) == 3
    assert seen["tactics"] == []
    blocks = {"grid_x": IMAGES * K * -(-D // 64), "grid_y": 1, "grid_z": 1}
    assert seen["launch"] == blocks | {"block_x": 64, "block_y": 1, "block_z": 1, "shared_mem": 0}
    assert seen["extras"] == [L, D, K]
    assert seen["kernel"] == nvrtc.kernel_name(operator == ZOH, precision, N)
    assert seen["entry"]
    assert seen["plugins"] == 1
    assert seen["bytes"] > 10_000


def fixed_batch(path: Path) -> Path:
    """So that every expression of a shape has a value."""
    proto = onnx.load(path)
    for value in (*proto.graph.input, *proto.graph.output):
        side = value.type.tensor_type.shape.dim[0]
        if side.dim_param:
            side.dim_value = IMAGES
    onnx.save(proto, path)
    return path


# Our builder under the binding of TensorRT 11, over the builder of TensorRT for RTX

BUILD = """
import dataclasses
from pathlib import Path
from ssmdiff import ExportError
from ssmdiff_export.tensorrt.binding import TENSORRT
from ssmdiff_export.tensorrt.builder import build_engine
model, timings = Path(sys.argv[1]), Path(sys.argv[1]).with_suffix(".timings")
flags = (((10, 13), ("STRONGLY_TYPED",)),)
plain = dataclasses.replace(TENSORRT, network_flags=flags, plugin=False)
def build(product):
    try:
        made = build_engine(model, (1, 4, 8), workspace_bytes=1 << 30, product=product,
                            timing_cache=timings, progress=True)
        print("built", made.layers, len(made.plan), made.log, timings.is_file())
    except ExportError as error:
        print("refused", str(error).replace(chr(10), " "))
build(plain)
build(dataclasses.replace(plain, plugin=True))
build(TENSORRT)
"""


@SLOW
def test_the_builders_calls_are_those_of_the_real_binding(over_rtx, tmp_path):
    model = small_model.write(tmp_path / "model.onnx", "fp16")
    built, plugin, flags = (
        line
        for line in real_binding.run(BUILD, over_rtx, model).splitlines()
        if line.startswith(("built", "refused"))
    )
    word, layers, size, *rest = built.split()
    assert (word, rest) == ("built", ["()", "True"])
    assert int(layers) > 20
    assert int(size) > 10_000
    # Our quick plugin is registered by now; the builder underneath takes none of that kind.
    assert "cannot take model.onnx SelectiveScan scan_0: " in plugin
    assert "IPluginCreatorV3One creator only" in plugin
    assert "TensorRT 11" in flags
    assert (
        "makes no network with PREFER_AOT_PYTHON_PLUGINS; TensorRT says: error: IBuilder" in flags
    )
