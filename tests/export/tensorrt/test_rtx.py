"""The real TensorRT for RTX, parser and builder, on a machine with a GPU or without."""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from types import SimpleNamespace

import onnx
import pytest
import small_model
from small_model import BATCH
from ssmdiff.errors import ConfigError, ExportError
from ssmdiff.registry.registry import create
from ssmdiff.runs.exporting import ExportRequest, exporter_of
from ssmdiff_cli.main import app
from ssmdiff_export.runtime.card import BODIES, EULER, OPERATORS, PRECISIONS, ZOH
from ssmdiff_export.tensorrt import check, doctor, exporter
from ssmdiff_export.tensorrt import runtime as runtime_module
from ssmdiff_export.tensorrt.binding import RTX, load_tensorrt, made, make_logger
from ssmdiff_export.tensorrt.builder import build_engine, progress_monitor
from ssmdiff_export.tensorrt.cache import EngineCache
from ssmdiff_export.tensorrt.device import Cuda, Machine
from ssmdiff_export.tensorrt.runtime import EngineDenoiser
from tiny_runs import SMALLEST, tiny_run
from trt_stub import HostDevice
from typer.testing import CliRunner

SLOW = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def rtx():
    """The real module."""
    try:
        return load_tensorrt(RTX)
    except ExportError as error:
        pytest.skip(f"needs {RTX.title}: {error}")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def build(model, *capabilities: str, batch=BATCH, **options):
    given = {"workspace_bytes": 1 << 30, "product": RTX, "capabilities": capabilities or ("8.9",)}
    return build_engine(model, batch, **given | options)


def cast_behind_the_gather(path):
    """The function as it was: u, B and C are gathered first, and cast to float32 then."""
    proto = onnx.load(path)
    (function,) = proto.functions
    nodes = list(function.node)
    moved = 0
    for cast in [n for n in nodes if n.op_type == "Cast" and n.input[0] in ("u", "B", "C")]:
        reader = next(n for n in nodes if cast.output[0] in n.input)
        reader.input[0] = cast.input[0]
        if reader.op_type == "Reshape":
            reader = next(n for n in nodes if reader.output[0] in n.input)
        assert reader.op_type == "Gather"
        result = reader.output[0]
        cast.input[0] = reader.output[0] = f"{result}_narrow"
        cast.output[0] = result
        nodes.remove(cast)
        nodes.insert(nodes.index(reader) + 1, cast)
        moved += 1
    assert moved == 3
    del function.node[:]
    function.node.extend(nodes)
    onnx.save(proto, path)
    return path


@pytest.fixture
def model(tmp_path):
    return small_model.write(tmp_path / "model.onnx")


ALL = [
    pytest.param(
        *case, marks=() if case in {("fp16", "scan", EULER), ("bf16", "scan", ZOH)} else SLOW
    )
    for case in itertools.product(PRECISIONS, BODIES, OPERATORS.values())
]


@pytest.mark.parametrize(("precision", "body", "operator"), ALL)
def test_every_body_builds_in_every_precision(tmp_path, precision, body, operator):
    model = small_model.write(tmp_path / "model.onnx", precision, operator, body=body)
    made = build(model, precision=precision)
    assert made.layers > 20
    assert made.plugin_layers == 0
    assert len(made.plan) > 10_000
    assert made.log == (), "neither warnings nor errors"


def test_a_cast_behind_the_gather_is_what_the_builder_refuses(tmp_path):
    """Why the function casts first: if this builds one day, it need not."""
    model = cast_behind_the_gather(small_model.write(tmp_path / "model.onnx", "fp16"))
    with pytest.raises(ExportError, match=r"TensorRT for RTX [\d.]+ cannot build model.onnx"):
        build(model, precision="fp16")


def test_two_builds_give_the_same_bytes_and_another_card_others(model):
    """For one batch size; for a range, the order in which shapes are computed may differ."""
    first, again = build(model, batch=(4, 4, 4)), build(model, batch=(4, 4, 4))
    assert first.plan == again.plan
    assert len(build(model, "8.9", "12.0", batch=(4, 4, 4)).plan) > len(first.plan)


def test_a_refused_node_is_named(model):
    proto = onnx.load(model)
    proto.graph.node.insert(0, onnx.helper.make_node("Unique", ["x"], ["noise"], "odd"))
    onnx.save(proto, model)
    with pytest.raises(ExportError, match=r"cannot take model.onnx\nUnique odd: "):
        build(model)


def test_a_network_with_unknown_flags_is_told(rtx):
    logger = make_logger(rtx)
    builder = rtx.Builder(logger)
    assert builder.create_network(1 << 30) is None
    with pytest.raises(ExportError, match=r"^no network; TensorRT says:\nerror: .*"):
        made(lambda: builder.create_network(1 << 30), "no network", logger)


def test_the_monitor_is_called_and_the_build_goes_on(rtx, model, monkeypatch):
    from ssmdiff_export.tensorrt import builder

    seen = []

    class Progress:
        def add_task(self, name, total):
            seen.append(name)
            return name

        def update(self, *_, **__): ...

        def remove_task(self, task): ...

    class Shown:
        def __init__(self, trt, show):
            assert show

        def __enter__(self):
            return progress_monitor(rtx, Progress())

        def __exit__(self, *_): ...

    monkeypatch.setattr(builder, "_monitor", Shown)
    assert build(model, progress=True).plan
    assert seen


def test_without_it_the_sentence_says_how_to_get_it(monkeypatch):
    for name in RTX.modules:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        ExportError, match=r"TensorRT for RTX is not installed .*ssmdiff\[tensorrt-"
    ):
        load_tensorrt(RTX)


def test_an_old_one_is_refused(rtx, monkeypatch):
    monkeypatch.setattr(rtx, "__version__", "1.4.0.1")
    with pytest.raises(ExportError, match=r"TensorRT for RTX 1.4.0.1 is too old. .* 1.7 or newer"):
        load_tensorrt(RTX)


# From a run to an engine, and back to images where a card is


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An engine of a run for the cards of two capabilities, and the folder of its cache."""
    folder = tmp_path_factory.mktemp("exported")
    run = tiny_run(folder / "run", backbone=SMALLEST)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        out = folder / "tiny.rtx"
        target = create(
            "exporter", {"name": "tensorrt-rtx", "capability": "12.0,8.9", "batch": BATCH}
        )
        made = target.export(ExportRequest(run, out))
    return out, made, folder / "cache"


@SLOW
def test_a_run_becomes_an_engine_without_a_gpu(exported, rtx, monkeypatch):
    out, made, cache = exported
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    assert made.files == (out,)
    text = "\n".join(made.lines)
    assert "the ONNX file it was built from compared with torch: largest difference" in text
    assert f"capability 8.9,12.0 with TensorRT for RTX {rtx.__version__}" in text
    (manifest,) = EngineCache().engines()
    assert manifest["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    expected = Machine(rtx.__version__, "any", "8.9,12.0", "any", "tensorrt-rtx")
    assert Machine(**manifest["key"]["machine"]) == expected
    assert tuple(manifest["key"]["batch"]) == BATCH
    assert manifest["card"]["image_size"] == [8, 8]
    assert exporter_of(out)[0] == "tensorrt-rtx"
    copy = out.with_suffix(".onnx")
    copy.write_bytes(out.read_bytes())
    assert exporter_of(copy)[0] == "tensorrt-rtx", "told by its content"


def sample(out, *arguments):
    return CliRunner().invoke(app, ["sample", str(out), "--n", "1", "--steps", "1", *arguments])


def sentence(result) -> str:
    """What a refusal says; one line of it."""
    assert result.exit_code != 0
    said = " ".join(result.stderr.split())
    assert "Traceback" not in said
    return said


def no_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def card(monkeypatch, capability: str):
    """A machine with this card, as far as it is asked what it has."""
    device = HostDevice("a card")
    monkeypatch.setattr(
        device, "machine", lambda v, p: Machine(v, "a card", capability, "580.1", p)
    )
    monkeypatch.setattr(runtime_module, "Cuda", lambda: device)


@SLOW
def test_sampling_says_that_there_is_no_gpu(exported, monkeypatch, tmp_path):
    out, _, cache = exported
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    no_gpu(monkeypatch)
    said = sentence(sample(out))
    assert "an engine needs an NVIDIA GPU and a CUDA build of torch" in said


@SLOW
def test_sampling_refuses_a_damaged_file_and_says_why(exported, monkeypatch, tmp_path):
    out, _, cache = exported
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    damaged = tmp_path / "damaged.rtx"
    damaged.write_bytes(out.read_bytes()[:-7])
    said = sentence(sample(damaged))
    assert "was not built by this user on this machine, or was changed since" in said
    assert "ssmdiff export RUN --to tensorrt-rtx --out FILE.rtx" in said


@SLOW
def test_sampling_refuses_other_cards_and_other_versions(exported, monkeypatch, tmp_path, rtx):
    out, _, cache = exported
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    card(monkeypatch, "8.6")
    assert "capability 8.9,12.0 there, 8.6 here; build it here: ssmdiff export RUN --to " in (
        sentence(sample(out))
    )
    card(monkeypatch, "9.0")
    assert "TensorRT for RTX serves no card of capability 9.0" in sentence(sample(out))
    card(monkeypatch, "8.9")
    version = rtx.__version__
    monkeypatch.setattr(rtx, "__version__", "1.8.0.1")
    assert f"tensorrt {version} there, 1.8.0.1 here; build it here" in sentence(sample(out))


@SLOW
def test_without_a_driver_the_real_runtime_says_so(exported, monkeypatch, tmp_path):
    """A card is claimed and there is none: TensorRT itself gives None, and its log."""
    try:
        Cuda()
    except ExportError:
        pass
    else:
        pytest.skip("there is a GPU")
    out, _, cache = exported
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    card(monkeypatch, "8.9")
    said = sentence(sample(out))
    assert "TensorRT for RTX" in said
    assert "does not take the engine; build it anew; TensorRT says: error: " in said


@SLOW
def test_the_contract_suite_passes_with_or_without_a_card():
    result = CliRunner().invoke(app, ["plugins", "check", "tensorrt-rtx"])
    assert result.exit_code == 0, result.output
    assert " 0 failed" in result.output


def test_capabilities_are_read_as_a_person_writes_them():
    assert create("exporter", "tensorrt-rtx").capability == "8.6,8.9,12.0"
    for given in ("8.9, 12.0", [12.0, 8.9], "12.0,8.9,8.9"):
        assert create("exporter", {"name": "tensorrt-rtx", "capability": given}).capability == (
            "8.9,12.0"
        )
    assert create("exporter", {"name": "tensorrt-rtx", "capability": 12.0}).capability == "12.0"
    with pytest.raises(ConfigError, match=r"builds for cards of capability 8.0, .*; got 7.5"):
        create("exporter", {"name": "tensorrt-rtx", "capability": 7.5})


def test_a_context_has_its_kernels_before_a_graph_is_made_of_it(rtx):
    """What can be seen without a card: what is asked of an engine."""
    asked = SimpleNamespace()
    assert hasattr(rtx.IRuntimeConfig, "dynamic_shapes_kernel_specialization_strategy")
    engine = SimpleNamespace(
        create_runtime_config=lambda: asked, create_execution_context=lambda config: config
    )
    denoiser = EngineDenoiser.__new__(EngineDenoiser)
    denoiser._product, denoiser._trt, denoiser._engine = RTX, rtx, engine
    eager = rtx.DynamicShapesKernelSpecializationStrategy.EAGER
    assert denoiser._context().dynamic_shapes_kernel_specialization_strategy == eager


# --check-tensorrt and the doctor


def test_the_check_asks_the_builder(model, monkeypatch):
    monkeypatch.setattr(check, "CAPABILITIES", "8.9")
    no_gpu(monkeypatch)
    said = check.check_tensorrt(model)
    assert said.startswith("TensorRT for RTX 1.")
    assert "takes and builds it for cards of capability 8.9: " in said


def test_the_check_finds_what_the_parser_takes_and_the_builder_does_not(tmp_path, monkeypatch):
    model = cast_behind_the_gather(small_model.write(tmp_path / "model.onnx", "fp16"))
    monkeypatch.setattr(check, "CAPABILITIES", "8.9")
    no_gpu(monkeypatch)
    with pytest.raises(ExportError, match=r"cannot build model.onnx; TensorRT says:"):
        check.check_tensorrt(model, "fp16")


def test_without_a_builder_the_check_holds_the_table_and_says_so(model, monkeypatch):
    monkeypatch.setattr(check, "_builder", lambda: None)
    said = check.check_tensorrt(model)
    assert said.startswith("every node is in our table of TensorRT's parser")
    assert "was not asked itself" in said


@SLOW
def test_the_doctor_says_how_far_it_came(tmp_path, monkeypatch):
    no_gpu(monkeypatch)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(doctor, "TRIALS", (("zoh", "fp16"),))
    monkeypatch.setattr(doctor, "CAPABILITIES", "8.9")
    monkeypatch.setattr(doctor, "tiny_run", lambda folder, _: tiny_run(folder, backbone=SMALLEST))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["doctor", "--tensorrt"])
    assert result.exit_code == 0, result.output
    (product,) = json.loads((tmp_path / "ssmdiff-tensorrt.json").read_text())["products"]
    (trial,) = product["trials"]
    assert trial["status"] == "built"
    assert trial["parity_of"] == "the ONNX file"
    assert trial["parity"]["max_rel"] <= trial["parity"]["tolerance"]
    assert trial["engine_bytes"] > 10_000
    assert "milliseconds" not in trial
    assert "zoh-fp16     built" in result.output
    assert "built and not run here: an engine needs an NVIDIA GPU" in result.output


def test_the_doctor_builds_for_the_card_that_is_here(monkeypatch, rtx):
    device = HostDevice("NVIDIA H100")
    monkeypatch.setattr(doctor, "Cuda", lambda: device)
    monkeypatch.setattr(exporter, "Cuda", lambda: device)
    found, machine, elsewhere = doctor._place(RTX, rtx.__version__, None)
    assert found is None
    assert machine.capability == doctor.CAPABILITIES
    assert elsewhere == "capability 8.6,8.9,12.0 there, 9.0 here"
    monkeypatch.setattr(device, "machine", lambda v, p: Machine(v, "RTX 3090", "8.6", "1", p))
    found, machine, elsewhere = doctor._place(RTX, rtx.__version__, None)
    assert (found, machine.capability, elsewhere) == (device, "8.6", "")
