"""ONNX's LinearAttention in the place of our scans: the recurrence, whole models, who may not."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import onnxruntime as ort
import pytest
import torch
from ssmdiff.errors import ExportError
from ssmdiff.ops.kernels import ScanInputs
from ssmdiff.ops.reference import TorchKernel
from ssmdiff_export import linear_attention
from ssmdiff_export.onnx_export import export_onnx
from ssmdiff_export.runtime import OnnxSampler
from ssmdiff_export.tracing import GraphInputs
from ssmdiff_export.verify import TOLERANCE
from tiny_runs import SMALLEST, STACK, tiny_run

ATROUS = {"name": "regenerate", "base": "atrous"}  # random orders with restarts
BODY = "linear-attention"
K, L, D, N, H, P = 3, 13, 5, 4, 2, 3


class Both(torch.nn.Module):
    """Both scans, beside each other in one graph."""

    def forward(self, u, steps, A, B, C, order, x, dt, A2, D2, bias, restart):
        with torch.no_grad():
            y = linear_attention.selective_scan(u, steps, A, B, C, order)
            z = linear_attention.state_space_duality(x, dt, A2, B, C, D2, bias, restart)
            return y, z


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    """Of any batch, as torch writes it and our export finishes it."""
    shapes = {
        "u": (2, L, D), "steps": (2, K, L, D), "A": (K, D, N), "B": (2, K, L, N),
        "C": (2, K, L, N), "order": (K, L), "x": (2, K, L, H, P), "dt": (2, K, L, H), "A2": (K, H),
        "D2": (K, H), "bias": (K, H), "restart": (K, L),
    }  # fmt: skip
    kinds = {"order": torch.int32, "restart": torch.bool}
    example = [torch.zeros(s, dtype=kinds.get(n, torch.float32)) for n, s in shapes.items()]
    batch = torch.export.Dim("batch", min=1)
    dynamic = [{0: batch} if shape[0] == 2 else None for shape in shapes.values()]
    program = torch.onnx.export(
        Both(), tuple(example), dynamo=True, dynamic_shapes=tuple(dynamic), optimize=False,
        input_names=list(shapes), output_names=["y", "z"], opset_version=20, verbose=False,
    )  # fmt: skip
    assert program is not None
    linear_attention.raise_opset(program.model)
    return program.model_proto


def arrays(batch: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(batch)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    order = np.stack([rng.permutation(L) for _ in range(K)]).astype(np.int32)
    anew = rng.random((K, L)) < 0.3
    return {
        "u": normal(batch, L, D),
        "steps": np.log1p(np.exp(normal(batch, K, L, D) - 1)),
        "A": -np.exp(normal(K, D, N)),
        "B": normal(batch, K, L, N),
        "C": normal(batch, K, L, N),
        "order": np.where(anew, -1 - order, order).astype(np.int32),
        "x": normal(batch, K, L, H, P),
        "dt": normal(batch, K, L, H),
        "A2": -np.exp(normal(K, H)),
        "D2": normal(K, H),
        "bias": normal(K, H),
        "restart": rng.random((K, L)) < 0.3,
    }


def recurrence(given: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Both in float64: the op's reference, one direction at a time, and Mamba-2's recurrence."""
    wide = {k: v.astype(np.float64) for k, v in given.items() if v.dtype == np.float32}
    t = {k: torch.from_numpy(v) for k, v in wide.items()}
    rows = []
    for k in range(K):
        one = slice(k, k + 1)
        order = torch.from_numpy(given["order"][one])
        inputs = ScanInputs(
            t["u"], t["steps"][:, one], t["A"][one], t["B"][:, one], t["C"][:, one], order,
            None, None, False,
        )  # fmt: skip
        rows.append(TorchKernel().forward(inputs).numpy())
    delta = np.log1p(np.exp(wide["dt"] + wide["bias"][:, None]))
    state = np.zeros((len(delta), K, H, P, N))
    z = np.empty_like(wide["x"])
    for step in range(L):
        state[:, given["restart"][:, step]] = 0
        d, x = delta[:, :, step], wide["x"][:, :, step]
        B, C = (wide[name][:, :, step, None, None] for name in "BC")
        state = np.exp(d * wide["A2"])[..., None, None] * state + (d[..., None] * x)[..., None] * B
        z[:, :, step] = (state * C).sum(-1) + wide["D2"][..., None] * x
    return np.stack(rows, 1), z


def test_both_scans_are_their_recurrences(graph) -> None:
    """In ONNX Runtime and in onnx's own evaluator; orders, restarts and any batch."""
    onnx.checker.check_model(graph, full_check=True)
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        given = arrays(batch)
        assert (given["order"] < 0).any()
        assert given["restart"].any()
        for run in (session.run, onnx.reference.ReferenceEvaluator(graph).run):
            for got, wanted in zip(run(None, given), recurrence(given), strict=True):
                assert np.abs(got - wanted).max() <= 2e-6 * np.abs(wanted).max()


def test_the_graph_holds_the_operator_with_a_head_a_channel_and_a_state_given(graph) -> None:
    nodes = [n for n in graph.graph.node if n.op_type == "LinearAttention"]
    heads = []
    for node in nodes:
        found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert (found["update_rule"], found["scale"]) == (b"gated", 1.0)
        assert node.input[3], "past_state is asked for by NVIDIA's kernels"
        assert found["q_num_heads"] == found["kv_num_heads"]
        heads.append(found["q_num_heads"])
    assert heads == [D, H]
    assert {(o.domain, o.version) for o in graph.opset_import} == {("", 27)}


def test_zoh_is_refused_in_a_sentence() -> None:
    given = {name: torch.from_numpy(value) for name, value in arrays(1).items()}
    inputs = [given[name] for name in ("u", "steps", "A", "B", "C", "order")]
    with pytest.raises(ExportError, match=r"has 'zoh'\. Give --body scan or chunked"):
        linear_attention.selective_scan(*inputs, "zoh")


@pytest.mark.slow
def test_a_run_under_zoh_is_refused_and_nothing_is_written(tmp_path) -> None:
    table = {"name": "mamba", "discretization": "zoh"}
    run = tiny_run(tmp_path / "run", block=table, backbone=STACK)
    with pytest.raises(ExportError, match=r"has 'zoh'\. Give --body scan or chunked"):
        export_onnx(run, tmp_path / "model.onnx", body=BODY)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("block", "precision", "nodes"),
    [
        ("mss", "fp32", 2),
        ("mss", "fp16", 2),
        ("mamba2", "fp32", 2),
        pytest.param("mss", "bf16", 2, marks=pytest.mark.night),
        pytest.param("vss", "fp32", 2, marks=pytest.mark.night),
        pytest.param("mamba2", "fp16", 2, marks=pytest.mark.night),
        pytest.param("mamba", "fp32", 8, marks=pytest.mark.night),  # one for each direction
    ],
)
def test_a_whole_model_is_torchs_and_draws_its_images(block, precision, nodes, tmp_path) -> None:
    run = tiny_run(tmp_path / "run", scan=ATROUS, block=block, backbone=STACK)
    path = tmp_path / "model.onnx"
    report = export_onnx(run, path, body=BODY, precision=precision)
    assert 0 < report.parity.max_rel < TOLERANCE[precision]
    model = onnx.load(path)
    kinds = [n.op_type for n in model.graph.node if n.op_type == "LinearAttention"]
    assert len(kinds) == nodes
    assert not [n for n in model.graph.node if n.domain]
    assert not model.functions
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 27)]
    if precision == "fp32":
        sampler = OnnxSampler(path, threads=1)
        assert sampler.card.body == BODY
        images = sampler.sample(2, seed=3, steps=3)
        np.testing.assert_allclose(images, run.sample(2, seed=3, steps=3).numpy(), atol=1e-3)


# NVIDIA's own parser and builder need no GPU. In a process of its own: a library that is not found
# there ends the process. The kernels' library registers itself when its own function is called.
BUILD = """
import ctypes
import sys
import tensorrt_rtx_bindings as trt

logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)
register = ctypes.CDLL(sys.argv[2]).initLibNvTensorRTRtxPlugins
register.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
assert register(None, b"")
network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
parser = trt.OnnxParser(network, logger)
parsed = parser.parse_from_file(sys.argv[1])
assert parsed, [parser.get_error(i).desc() for i in range(parser.num_errors)]
config = builder.create_builder_config()
profile = builder.create_optimization_profile()
for i in range(network.num_inputs):
    value = network.get_input(i)
    if -1 in value.shape:
        sizes = [[n if side == -1 else side for side in value.shape] for n in (1, 2, 4)]
        profile.set_shape(value.name, *sizes)
config.add_optimization_profile(profile)
config.num_compute_capabilities = 1
config.set_compute_capability(trt.ComputeCapability.SM86, 0)
layers = [network.get_layer(i).type.name for i in range(network.num_layers)]
print("layers", layers.count("PLUGIN_V3"), layers.count("LOOP_OUTPUT"))
engine = builder.build_serialized_network(network, config)
print("bytes", 0 if engine is None else engine.nbytes)
"""
NEEDED = ("tensorrt_rtx_bindings", "tensorrt_rtx_libs", "onnxruntime_ep_nv_tensorrt_rtx")
# What NVIDIA's kernels want of the driver's library when they are loaded; none is called.
DRIVER = """
#define NONE(name) int name(void) { return 100; }
NONE(cuFuncSetAttribute) NONE(cuGetErrorName) NONE(cuInit) NONE(cuLaunchKernel)
NONE(cuModuleGetFunction) NONE(cuModuleLoadData) NONE(cuModuleUnload)
"""


@pytest.fixture(scope="module")
def nvidia(tmp_path_factory) -> tuple[Path, Path]:
    """The library of kernels, and a folder with the libraries that it is linked against."""
    found = {name: importlib.util.find_spec(name) for name in NEEDED}
    compiler = shutil.which("cc") or shutil.which("gcc")
    if None in found.values() or compiler is None:
        pytest.skip(
            "TensorRT for RTX with its kernels, or a C compiler, is not installed; pip install "
            "tensorrt_rtx_cu13_bindings tensorrt_rtx_cu13_libs onnxruntime_ep_nv_tensorrt_rtx_cu13"
        )
    libs, provider = (Path(found[name].submodule_search_locations[0]) for name in NEEDED[1:])
    folder = tmp_path_factory.mktemp("libraries")
    (runtime,) = libs.glob("libtensorrt_rtx.so.1")
    for name in ("libtensorrt_rtx.so", "libtensorrt_rtx.so.1"):
        (folder / name).symlink_to(runtime)
    (cuda,) = provider.glob("libcudart.so.13*")
    (folder / "libcudart.so.13").symlink_to(cuda)
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:  # no driver here
        (folder / "driver.c").write_text(DRIVER)
        words = ["-shared", "-fPIC", "-o", folder / "libcuda.so.1", folder / "driver.c"]
        subprocess.run([compiler, *words], check=True)
    return provider / "libtensorrt_plugins.so", folder


@pytest.mark.slow
@pytest.mark.parametrize("block", ["mss", "mamba2"])
def test_nvidias_parser_takes_the_file_and_builds_it(nvidia, block, tmp_path) -> None:
    """As one kernel a scan, and no loop; without a card, so nothing is run."""
    kernels, folder = nvidia
    run = tiny_run(tmp_path / "run", scan=ATROUS, block=block, backbone=SMALLEST)
    export_onnx(run, tmp_path / "model.onnx", body=BODY, verify=False)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(tmp_path / "model.onnx"), str(kernels)],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert said["layers"] == f"{len(GraphInputs.of(run).plan.slots)} 0"
    assert int(said["bytes"]) > 10_000
