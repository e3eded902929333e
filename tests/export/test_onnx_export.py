"""Exported files beside torch: every scan, block and precision; one file for every batch."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import onnx
import pytest
from ssmdiff.errors import ConfigError, ExportError
from ssmdiff.orders.seeds import stream
from ssmdiff.registry.registry import registry
from ssmdiff_cli.main import app
from ssmdiff_export.onnx_export import export_onnx
from ssmdiff_export.parser_rules import parser_findings
from ssmdiff_export.runtime.card import ModelCard
from ssmdiff_export.tracing import GraphInputs
from ssmdiff_export.verify import TOLERANCE, Case, case_inputs, onnx_predict, reference
from tiny_runs import SMALLEST, STACK, UNET, tiny_run
from typer.testing import CliRunner

ATROUS = {"name": "regenerate", "base": "atrous"}  # random orders with restarts
BLOCKS = ("mss", "vss", "mamba", "mamba2", "conv", "attention")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run with random orders and restarts, its file, and the report."""
    folder = tmp_path_factory.mktemp("made")
    run = tiny_run(folder / "run", classes=("a", "b"), scan=ATROUS)
    return run, folder / "model.onnx", export_onnx(run, folder / "model.onnx")


def relative(got, wanted) -> float:
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


def test_one_file_serves_every_batch_and_order(made) -> None:
    run, path, _ = made
    interface, predict = GraphInputs.of(run), onnx_predict(path)
    predictions = []
    for case in (Case(7, 7, 1), Case(7, 8, 1), Case(8, 9, 5), Case(9, 10, 3)):
        inputs = case_inputs(run, interface, case)
        predictions.append(predict(inputs))
        wanted = reference(run, interface, case, inputs)
        assert relative(predictions[-1], wanted) < TOLERANCE["fp32"], case
    # Two seeds of the orders alone are two predictions, and each is torch's.
    assert relative(predictions[0], predictions[1]) > 10 * TOLERANCE["fp32"]


def test_the_report_says_how_far_from_torch_the_file_is(made) -> None:
    _, path, report = made
    assert not report.parity.blank
    assert 0 < report.parity.max_rel < TOLERANCE["fp32"]
    assert report.files == (path,)
    assert f"{report.parity.max_abs:.2e}" in report.lines[1]


def test_the_card_is_enough_to_sample(made) -> None:
    run, path, report = made
    graph = onnx.load(path)
    (entry,) = graph.metadata_props
    card = ModelCard.from_json(entry.value)
    assert entry.key == "ssmdiff"
    assert card.parity.max_abs == report.parity.max_abs
    assert (card.image_size, card.channels, card.class_names) == ((8, 8), 1, ("a", "b"))
    weights = run.checkpoint.path / "ema.safetensors"
    assert card.weights_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert card.components["model.scan"].startswith("regenerate: ssmdiff")
    plan = GraphInputs.of(run).plan
    for slot, order in enumerate(plan.draw(3)):
        recipe = card.recipes[card.slots[slot].recipe]
        drawn = recipe.draw(stream(plan.seed, "order", 3, slot))
        np.testing.assert_array_equal(drawn.index, order.index)
        np.testing.assert_array_equal(drawn.restart, order.restart)


def test_the_graph_is_as_promised(made) -> None:
    run, path, _ = made
    model = onnx.load(path)
    inputs = {i.name: i.type.tensor_type for i in model.graph.input}
    slots = len(GraphInputs.of(run).plan.slots)
    assert list(inputs) == ["x", "timesteps", "context", *(f"order_{i}" for i in range(slots))]
    assert inputs["order_0"].elem_type == onnx.TensorProto.INT32
    assert inputs["x"].shape.dim[0].dim_param == "batch"
    scans = [n for n in model.graph.node if n.domain == "ssmdiff"]
    assert [n.op_type for n in scans] == ["SelectiveScan"] * slots
    assert [(f.domain, f.name) for f in model.functions] == [("ssmdiff", "SelectiveScan")]
    assert str(path.parent) not in str(model), "the file names a folder of this machine"
    assert ".py" not in str(model)
    assert parser_findings(model) == []


@pytest.mark.slow
def test_fixed_orders_are_int32_constants_that_equal_slots_share(tmp_path) -> None:
    run = tiny_run(tmp_path / "run", scan="atrous", backbone=STACK)
    export_onnx(run, tmp_path / "model.onnx", body="chunked")
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert [i.name for i in graph.input] == ["x", "timesteps"]
    scans = [n for n in graph.node if n.domain == "ssmdiff"]
    assert len(scans) == 2
    (order,) = {n.input[5] for n in scans}
    (table,) = [onnx.numpy_helper.to_array(t) for t in graph.initializer if t.name == order]
    (wanted, _) = GraphInputs.of(run).plan.draw(0)
    assert table.dtype == np.int32
    np.testing.assert_array_equal(np.where(table < 0, -1 - table, table), wanted.index)
    np.testing.assert_array_equal(table < 0, wanted.restart)


@pytest.mark.slow
def test_large_weights_go_into_one_sibling_with_its_hash(tmp_path) -> None:
    run = tiny_run(tmp_path / "run", block="conv", backbone=SMALLEST)
    path = tmp_path / "model.onnx"
    report = export_onnx(run, path, precision="fp16", external_above=1000)
    data = tmp_path / "model.onnx.data"
    assert report.files == (path, data)
    model = onnx.load(path, load_external_data=False)
    named = {
        entry.value
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    assert named == {data.name}
    external = ModelCard.from_json(model.metadata_props[0].value).external_data
    assert external.sha256 == hashlib.sha256(data.read_bytes()).hexdigest()
    assert external.bytes == data.stat().st_size
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", data.name, "run"]
    # A smaller model in its place leaves no weights of the last one behind.
    export_onnx(run, path, verify=False, overwrite=True)
    assert not data.exists()


@pytest.mark.slow
def test_bfloat16_is_compared_through_a_twin_that_rounds(tmp_path) -> None:
    run = tiny_run(tmp_path / "run", block="conv", backbone=SMALLEST)
    report = export_onnx(run, tmp_path / "model.onnx", precision="bf16")
    assert 1e-3 < report.parity.max_rel < TOLERANCE["bf16"], "bfloat16 has three digits"
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert onnx.TensorProto.BFLOAT16 in {t.data_type for t in graph.initializer}
    assert {i.type.tensor_type.elem_type for i in graph.input} == {onnx.TensorProto.FLOAT}


def test_a_file_that_is_there_is_kept(tmp_path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("mine")
    with pytest.raises(ConfigError, match=r"is there already; .*--overwrite"):
        export_onnx(None, path)
    assert path.read_text() == "mine"


@pytest.mark.slow
def test_a_strangers_scan_exports_and_samples(tmp_path, install, fresh_registry) -> None:
    """A package of one file; ssmdiff does not know it."""
    install(
        "ssmdiff-riffle",
        """
        import math
        import numpy as np
        import ssmdiff

        class Riffle(ssmdiff.Scan):
            stochastic = True

            def directions(self, dims):
                return 2

            def order(self, grid, generator=None):
                rows = [np.argsort(generator.random(math.prod(grid))) for _ in range(2)]
                return ssmdiff.ScanOrder(np.stack(rows))

        @ssmdiff.hookimpl
        def ssmdiff_scans():
            yield ssmdiff.Component("riffle", Riffle, "cards")
        """,
    )
    from ssmdiff_export.runtime import OnnxSampler

    run = tiny_run(tmp_path / "run", scan="riffle")
    report = export_onnx(run, tmp_path / "model.onnx")
    assert report.parity.max_rel < TOLERANCE["fp32"]
    card = ModelCard.from_json(onnx.load(tmp_path / "model.onnx").metadata_props[0].value)
    assert card.components["model.scan"] == "riffle: ssmdiff-riffle 1.0"
    assert {slot.recipe for slot in card.slots} == {None}
    images = OnnxSampler(tmp_path / "model.onnx").sample(2, seed=3, steps=3)
    np.testing.assert_allclose(images, run.sample(2, seed=3, steps=3).numpy(), atol=1e-3)


@pytest.mark.slow
def test_the_command_exports_compares_and_says_so(tmp_path) -> None:
    tiny_run(tmp_path / "run", block="conv", backbone=SMALLEST)
    out = tmp_path / "model.onnx"
    command = ["export", str(tmp_path / "run"), "--out", str(out), "--check-tensorrt"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert f"model: {out}" in done.output
    assert "compared with torch: largest difference" in done.output
    asked = "TensorRT for RTX 1." in done.output and "takes and builds it" in done.output
    assert asked or "is in our table of TensorRT's parser" in done.output
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "onx", "--out", "m"], "did you mean 'onnx'?"),
        (["--out", "m", "--precision", "fp8"], "expected fp32, fp16, bf16"),
        (["--out", "m", "--body", "loop"], "'chunked' or 'linear-attention'"),
        (["--out", "m", "--batch", "8:1:64"], "such as 1:8:64"),
        ([], "--out is missing"),
    ],
)
def test_a_wrong_word_is_named(words, message, tmp_path) -> None:
    tiny_run(tmp_path / "run", block="conv", backbone=SMALLEST)
    done = CliRunner().invoke(app, ["export", str(tmp_path / "run"), *words])
    assert done.exit_code == 2
    assert message in done.stderr


def test_without_the_onnx_package_the_extra_is_named(tmp_path, monkeypatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnx" else find(name)
    )
    tiny_run(tmp_path / "run", block="conv", backbone=SMALLEST)
    words = ["export", str(tmp_path / "run"), "--out", str(tmp_path / "m.onnx")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert "pip install 'ssmdiff[onnx]'" in done.stderr


def test_a_block_that_torch_cannot_trace_is_named(tmp_path, monkeypatch) -> None:
    run = tiny_run(tmp_path / "run", block="conv", backbone=SMALLEST)
    forward = type(run.model).forward

    def branching(self, *arguments, **named):
        y = forward(self, *arguments, **named)
        return y + 1 if float(y.sum()) > 0 else y

    monkeypatch.setattr(type(run.model), "forward", branching)
    with pytest.raises(ExportError, match="'isotropic' with block 'conv' does not run under"):
        export_onnx(run, tmp_path / "model.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def pushed(*cases, always):
    """The cases as parameters; those for which ``always`` is false wait for the night tier."""
    parameters = []
    for case in cases:
        marks = [] if always(*case) else [pytest.mark.night]
        name = "-".join(c["name"] if isinstance(c, dict) else c for c in case)
        parameters.append(pytest.param(*case, marks=marks, id=name))
    return parameters


FAMILIES = {"raster", "zigzag", "hilbert", "atrous", "layers", "random", "regenerate"}


def scans():
    """All but the one that serves volumes alone: backbones take images."""
    names = sorted(set(registry().names("scan")) - {"tri"})
    return pushed(*((name,) for name in names), always=FAMILIES.__contains__)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("block", "backbone", "precision"),
    pushed(
        *itertools.product(BLOCKS, (UNET, STACK), TOLERANCE),
        always=lambda block, backbone, precision: (
            backbone is (UNET if block == "mss" else STACK)
            and (precision == "fp32" or block in ("mss", "mamba2"))
        ),
    ),
)
def test_every_block_in_every_precision(block, backbone, precision, tmp_path) -> None:
    run = tiny_run(tmp_path / "run", scan=ATROUS, block=block, backbone=backbone)
    report = export_onnx(run, tmp_path / "model.onnx", precision=precision)
    assert report.parity.max_rel < TOLERANCE[precision]


@pytest.mark.slow
@pytest.mark.parametrize("scan", scans())
def test_every_scan(scan, tmp_path) -> None:
    run = tiny_run(tmp_path / "run", scan=scan, backbone=STACK)
    report = export_onnx(run, tmp_path / "model.onnx")
    assert report.parity.max_rel < TOLERANCE["fp32"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("block", "discretization", "body"),
    pushed(
        *itertools.product(["mss", "vss", "mamba"], ["euler", "zoh"], ["scan", "chunked"]),
        always=lambda block, discretization, body: block == "mss",
    ),
)
def test_every_body_and_discretisation(block, discretization, body, tmp_path) -> None:
    table = {"name": block, "discretization": discretization}
    run = tiny_run(tmp_path / "run", scan=ATROUS, block=table, backbone=STACK)
    report = export_onnx(run, tmp_path / "model.onnx", body=body)
    assert report.parity.max_rel < TOLERANCE["fp32"]
