"""Rows X8 and X9 of the catalogue of faults: exports that are not the model."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from ssmdiff.errors import ExportError
from ssmdiff_export import onnx_export
from ssmdiff_export.onnx_export import check, export_onnx
from ssmdiff_export.tracing import GraphInputs
from ssmdiff_export.verify import compare, onnx_predict

sys.path.insert(0, str(Path(__file__).parents[1] / "export"))
from tiny_runs import SMALLEST, STACK, tiny_run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    run = tiny_run(folder / "run", scan="regenerate", backbone=STACK)
    export_onnx(run, folder / "model.onnx", verify=False)
    return run, folder / "model.onnx"


def test_x8_a_wrong_weight_leaves_no_file(tmp_path, monkeypatch) -> None:
    run = tiny_run(tmp_path / "run", block="conv", backbone=SMALLEST)
    write = onnx_export._write

    def wrong(model, path, *rest):
        external = write(model, path, *rest)
        proto = onnx.load(path)
        largest = max(proto.graph.initializer, key=lambda t: np.prod(t.dims))
        values = onnx.numpy_helper.to_array(largest).copy()
        values.flat[0] += 1
        largest.CopyFrom(onnx.numpy_helper.from_array(values, largest.name))
        onnx.save(proto, path)
        return external

    monkeypatch.setattr(onnx_export, "_write", wrong)
    with pytest.raises(ExportError, match="does not agree with torch: the largest difference is"):
        export_onnx(run, tmp_path / "model.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_x8_values_that_are_not_finite_do_not_agree(made) -> None:
    run, _ = made

    def nothing(inputs):
        return np.full_like(inputs["x"], np.nan)

    with pytest.raises(ExportError, match="the largest difference is inf"):
        compare(run, nothing, "fp32", "model.onnx")


def test_x8_an_order_that_was_baked_in_is_told(made) -> None:
    run, path = made
    predict, interface = onnx_predict(path), GraphInputs.of(run)
    baked = interface.arrays(interface.plan.draw(1))
    with pytest.raises(ExportError, match="a random order was baked in"):
        compare(run, lambda inputs: predict(inputs | baked), "fp32", "model.onnx")


def test_x8_a_graph_that_ignores_an_order_is_refused(made, tmp_path) -> None:
    run, path = made
    model = onnx.load(path)
    first, second = (n for n in model.graph.node if n.domain == "ssmdiff")
    second.input[5] = first.input[5]
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ExportError, match=r"expected .*order_1.*: an order was baked in"):
        check(tmp_path / "model.onnx", GraphInputs.of(run))


@pytest.mark.parametrize(
    ("name", "axis", "dynamic", "message"),
    [
        ("x", 2, True, "axis 2 of 'x' is dynamic"),
        ("order_0", 1, True, "axis 1 of 'order_0' is dynamic"),
        ("timesteps", 0, False, "axis 0 of 'timesteps' is fixed"),
    ],
)
def test_x9_the_batch_and_nothing_else_is_dynamic(
    made, tmp_path, name, axis, dynamic, message
) -> None:
    run, path = made
    model = onnx.load(path)
    (given,) = (i for i in model.graph.input if i.name == name)
    side = given.type.tensor_type.shape.dim[axis]
    if dynamic:
        side.dim_param = "side"
    else:
        side.dim_value = 1
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ExportError, match=message):
        check(tmp_path / "model.onnx", GraphInputs.of(run))
