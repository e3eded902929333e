"""From an ONNX file to an engine, over the stub of TensorRT 10.13 and 11."""

from __future__ import annotations

import dataclasses
import importlib
import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import small_model
from ssmdiff.errors import ConfigError, ExportError
from ssmdiff.runs.config import resolve
from ssmdiff.runs.exporting import ExportRequest
from ssmdiff_export.model_file import FileModel, open_onnx
from ssmdiff_export.runtime import ModelCard, OnnxSampler
from ssmdiff_export.runtime.card import EULER, ZOH
from ssmdiff_export.tensorrt import binding, exporter
from ssmdiff_export.tensorrt.builder import build_engine, progress_monitor
from ssmdiff_export.tensorrt.cache import EngineCache, EngineKey
from ssmdiff_export.tensorrt.exporter import TensorRTExporter
from ssmdiff_export.tensorrt.runtime import EngineDenoiser, load_engine

BATCH = (1, 4, 8)
A_DENOISER = SimpleNamespace(config=resolve({}))
"""What is looked at of a run before an engine is made."""


@pytest.fixture
def model(tmp_path):
    return small_model.write(tmp_path / "model.onnx")


def build(model, **options):
    return build_engine(model, BATCH, workspace_bytes=1 << 30, **options)


def summary(trt, plan):
    return trt.Runtime(trt.Logger()).deserialize_cuda_engine(plan)._summary


def keep(cache, device, trt, build, card, model_sha256="0" * 64):
    key = EngineKey(model_sha256, "fp32", BATCH, 1 << 30, device.machine(trt.__version__))
    return key, cache.put(key, build.plan, card)


@pytest.mark.parametrize("operator", [EULER, ZOH])
def test_a_scan_becomes_a_layer_of_the_plugin(trt, tmp_path, operator):
    """What the plugin does with it: test_trt_real.py, under NVIDIA's own package."""
    made = build(small_model.write(tmp_path / "m.onnx", "fp16", operator), precision="fp16")
    assert (made.plugin_layers, made.log) == (1, ())


def test_every_dynamic_input_gets_the_profile_and_no_other(trt, model):
    profile = summary(trt, build(model).plan)["profiles"]
    assert profile == [
        {
            "x": [[1, 1, 4, 4], [4, 1, 4, 4], [8, 1, 4, 4]],
            "timesteps": [[1], [4], [8]],
        }
    ]


def test_fp32_means_float32(trt, model):
    assert "TF32" not in summary(trt, build(model, precision="fp32").plan)["flags"]
    assert "TF32" in summary(trt, build(model, precision="fp16").plan)["flags"]


def test_the_network_is_strongly_typed_and_the_workspace_is_limited(trt, model):
    internals = importlib.import_module("tensorrt._build")
    build(model)
    flags = trt.NetworkDefinitionCreationFlag
    asked = internals.CREATED["networks"][-1]._flags
    assert asked & 1 << int(flags.PREFER_AOT_PYTHON_PLUGINS)
    assert bool(asked & 1 << int(flags.STRONGLY_TYPED)) == trt.__version__.startswith("10.")
    pools = internals.CREATED["configs"][-1]._pools
    assert pools == {trt.MemoryPoolType.WORKSPACE: 1 << 30}


def test_timings_are_kept_and_given_to_the_next_build(trt, model, tmp_path):
    internals = importlib.import_module("tensorrt._build")
    timings = tmp_path / "timing.bin"
    build(model, timing_cache=timings)
    assert timings.read_bytes() == b"stub timing cache"
    timings.write_bytes(b"earlier")
    build(model, timing_cache=timings)
    assert internals.CREATED["configs"][-1].get_timing_cache()._data == b"earlier"


def test_a_failed_build_tells_what_tensorrt_logged(trt, model):
    importlib.import_module("tensorrt._build").FAIL_BUILD.append("no kernel for this layer")
    with pytest.raises(ExportError, match=r"cannot build model.onnx; TensorRT says:\nerror: no k"):
        build(model)


def test_a_network_that_tensorrt_does_not_make_is_told(trt, model, monkeypatch):
    asked = ("EXPLICIT_PRECISION",)
    monkeypatch.setattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_PRECISION", 30, raising=False)
    product = dataclasses.replace(binding.TENSORRT, network_flags=(((10, 13), asked),))
    with pytest.raises(
        ExportError, match=r"makes no network with EXPLICIT_PRECISION; TensorRT say"
    ):
        build(model, product=product)


def test_a_refused_node_is_named(trt, model):
    proto = onnx.load(model)
    # The stub's parser takes all operators but one.
    noise = onnx.helper.make_node("RandomUniform", [], ["noise"], "dice", shape=[1])
    proto.graph.node.insert(0, noise)
    onnx.save(proto, model)
    with pytest.raises(ExportError, match="RandomUniform dice: "):
        build(model)


def test_a_scan_that_is_not_taken_by_the_plugin_is_an_error(trt, tmp_path):
    model = small_model.write(tmp_path / "m.onnx", namespace="another")
    with pytest.raises(ExportError, match="0 plugin layers of 1 scans"):
        build(model)


def test_a_damaged_file_never_reaches_tensorrt(trt, model, monkeypatch):
    def opened(*_):
        raise AssertionError("TensorRT opened the file")

    monkeypatch.setattr(trt.OnnxParser, "parse_from_file", opened)
    model.write_bytes(model.read_bytes()[:-100])
    with pytest.raises(ExportError):
        build(model)


def test_the_monitor_shows_phases_and_lets_the_build_go_on(trt, model, monkeypatch):
    from ssmdiff_export.tensorrt import builder

    seen = []

    class Progress:
        def add_task(self, name, total):
            seen.append((name, total))
            return name

        def update(self, task, completed):
            seen.append((task, completed))

        def remove_task(self, task):
            seen.append(task)

    class Shown:
        def __init__(self, trt, show):
            assert show

        def __enter__(self):
            return progress_monitor(trt, Progress())

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(builder, "_monitor", Shown)
    assert build(model, progress=True).plan
    assert seen[:2] == [("Building the engine", 2), ("Timing", 1)]
    assert seen[-1] == "Building the engine"


def test_without_tensorrt_the_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(binding.importlib.sys.modules, "tensorrt", None)
    with pytest.raises(ExportError, match=r"not installed .*pip install tensorrt"):
        binding.load_tensorrt()


def test_a_folder_named_tensorrt_is_no_tensorrt(monkeypatch, tmp_path):
    (tmp_path / "tensorrt").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(binding.importlib.sys.modules, "tensorrt", raising=False)
    with pytest.raises(ExportError, match="is another 'tensorrt'"):
        binding.load_tensorrt()
    monkeypatch.delitem(binding.importlib.sys.modules, "tensorrt")


def test_an_old_tensorrt_is_refused(trt, monkeypatch):
    monkeypatch.setattr(trt, "__version__", "10.9.0.34")
    with pytest.raises(ExportError, match=r"10\.9\.0\.34 is too old. TensorRT 10\.13 or newer"):
        binding.load_tensorrt()


def feeds(size, seed=0):
    g = np.random.default_rng(seed)
    order = np.stack([g.permutation(small_model.L) for _ in range(small_model.K)])
    order[0, 5] = -1 - order[0, 5]
    return {
        "x": g.standard_normal((size, 1, 4, 4)).astype(np.float32),
        "timesteps": g.uniform(0, 999, size).astype(np.float32),
        "order_0": order.astype(np.int32),
    }


@pytest.fixture
def denoiser(trt, model, cache, device):
    _, engine = keep(cache, device, trt, build(model), {"name": "small"})
    return EngineDenoiser(engine, device)


def test_the_engine_predicts_what_the_file_does(denoiser, model, device):
    session = OnnxSampler(model)._session
    for size in (3, 8, 3):
        inputs = feeds(size, seed=size)
        np.testing.assert_array_equal(denoiser.run(inputs), session.run(inputs))
    assert device.captures == 2, "one preparation for each batch size"
    assert denoiser.batch == BATCH
    assert denoiser.device_memory_bytes == 4096


def test_predictions_do_not_share_memory(denoiser):
    first = denoiser.run(feeds(2, 0))
    kept = first.copy()
    denoiser.run(feeds(2, 1))
    np.testing.assert_array_equal(first, kept)


def test_inputs_that_do_not_fit_are_refused(denoiser):
    with pytest.raises(ExportError, match=r"batch of 9 images is outside the engine's 1 to 8"):
        denoiser.run(feeds(9))
    inputs = feeds(2)
    with pytest.raises(ExportError, match=r"takes .*order_0"):
        denoiser.run({k: v for k, v in inputs.items() if k != "order_0"})
    with pytest.raises(ExportError, match=r"order_0 has shape \(2, 15\); expected \(2, 16\)"):
        denoiser.run(inputs | {"order_0": inputs["order_0"][:, :-1]})


def test_sampling_from_an_engine_is_sampling_from_the_file(trt, tmp_path, cache, device):
    model = small_model.write(tmp_path / "model.onnx", random=False)
    card = small_model.card(random=False)
    made = build(model)
    keep(cache, device, trt, made, json.loads(card.to_json()))
    path = tmp_path / "model.engine"
    path.write_bytes(made.plan)
    engine = load_engine(path, device, EngineCache(cache.folder))
    assert ModelCard.from_json(json.dumps(engine.card)) == card
    images = FileModel(card, engine, {}).sample(3, seed=1, batch_size=2)
    expected = open_onnx(model).sample(3, seed=1, batch_size=2)
    assert images.shape == (3, 1, 4, 4)
    np.testing.assert_array_equal(images.numpy(), expected.numpy())


def test_the_exporter_looks_before_it_works(tmp_path):
    out = tmp_path / "model.engine"
    out.write_text("something")
    with pytest.raises(ConfigError, match="is there already"):
        TensorRTExporter().export(ExportRequest(None, out))
    with pytest.raises(ConfigError, match=r"ends with .engine or .plan"):
        TensorRTExporter().export(ExportRequest(None, tmp_path / "model.trt"))


def test_without_tensorrt_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(binding.importlib.sys.modules, "tensorrt", None)
    with pytest.raises(ExportError, match="TensorRT is not installed"):
        TensorRTExporter().export(ExportRequest(A_DENOISER, tmp_path / "model.engine"))
    assert list(tmp_path.iterdir()) == []


def test_what_the_exporter_writes_can_be_loaded(trt, model, tmp_path, cache, device, monkeypatch):
    def small_engine(run, folder, *_, **options):
        assert options["batch"] == BATCH
        made = build(model, precision=options["precision"])
        _, engine = keep(cache, device, trt, made, {"name": "small"})
        return exporter.Made(engine, EngineDenoiser(engine, device), made, None)

    monkeypatch.setattr(exporter, "Cuda", lambda: device)
    monkeypatch.setattr(exporter, "EngineCache", lambda: cache)
    monkeypatch.setattr(exporter, "make_engine", small_engine)
    out = tmp_path / "out" / "model.engine"
    result = TensorRTExporter(batch=BATCH).export(ExportRequest(A_DENOISER, out))
    assert result.files == (out,)
    assert "1 scans by the plugin" in result.lines[0]
    assert [p.name for p in out.parent.iterdir()] == ["model.engine"]
    assert load_engine(out, device, cache).batch == BATCH
    copy = tmp_path / "copy.onnx"  # its name says nothing
    copy.write_bytes(out.read_bytes())
    monkeypatch.setattr(exporter, "default_folder", lambda: cache.folder)
    assert TensorRTExporter().recognises(copy)
    copy.write_bytes(out.read_bytes()[:-1])
    assert not TensorRTExporter().recognises(copy)
