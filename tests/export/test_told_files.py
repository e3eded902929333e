"""Files of a model that is told a condition of each kind: the run's images, in every runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ssmdiff import Condition, Conditions, ConfigError, ExportRequest, Run, create
from ssmdiff_export.parser_rules import check_parser_rules
from ssmdiff_export.runtime import OnnxSampler
from ssmdiff_export.runtime.drawing import told
from ssmdiff_export.runtime.served import ServedModel
from stand_in_server import serving
from tiny_runs import SMALLEST, tiny_run

pytestmark = pytest.mark.slow
SIZE = (8, 8)
CONDITIONS = Conditions(
    [
        Condition("label", "label", ("t1", "flair"), optional=True),
        Condition("findings", "labels", ("nodule", "effusion")),
        Condition("age", "number", low=20, high=80, optional=True),
        Condition("mask", "mask", ("out", "in"), optional=True),
        Condition("other", "image", channels=2, optional=True),
    ]
)
DRAWN = np.random.default_rng(0)
TOLD: dict[str, Any] = {
    "label": 1,
    "findings": {"effusion"},
    "age": 33.5,
    "mask": DRAWN.integers(0, 2, SIZE),
    "other": DRAWN.uniform(-1, 1, (2, *SIZE)).astype(np.float32),
}
OTHERS: dict[str, Any] = {
    "label": None,
    "findings": [set(), {0, 1}],
    "age": 79,
    "mask": 1 - TOLD["mask"],
    "other": None,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("told") / "run"
    parts = {"backbone": SMALLEST, "scan": "raster", "block": {"name": "mss", "state": 2}}
    return tiny_run(folder, ("t1", "flair"), conditions=CONDITIONS, **parts)


def export(run: Run, target: str, out: Path, precision: str = "fp32") -> Path:
    create("exporter", target).export(ExportRequest(run, out, precision=precision))
    return out


def drawn(model: Any, **changes: Any) -> Any:
    return np.asarray(model.sample(2, steps=3, told={**TOLD, **changes}))


def test_each_condition_is_heeded_alike(run: Run, tmp_path: Path) -> None:
    export(run, "triton-server", tmp_path / "served")
    file = tmp_path / "served" / "ssmdiff" / "1" / "model.onnx"
    inputs = {
        value.name: [d.dim_value or None for d in value.type.tensor_type.shape.dim]
        for value in onnx.load(file).graph.input
    }
    assert inputs["x"] == [None, 1 + 2 + 2 + 1, *SIZE]
    assert inputs["context"] == [None, 3 + 2 + 10]
    check_parser_rules(file)
    archive = create("exporter", "pt2").open(export(run, "pt2", tmp_path / "told.pt2"))
    sampler = OnnxSampler(file)
    assert sampler.conditions == archive.conditions == run.conditions == CONDITIONS
    before = drawn(run)
    with serving(tmp_path / "served") as (url, _):
        served = ServedModel(tmp_path / "served" / "card.json", url)
        for name, value in [(None, None), *OTHERS.items()]:
            changes = {} if name is None else {name: value}
            expected = drawn(run, **changes)
            if name is not None:
                assert np.abs(expected - before).max() > 1e-3, name
            for model in (sampler, archive, served):
                np.testing.assert_allclose(drawn(model, **changes), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_agrees_within_its_tolerance(
    run: Run, tmp_path: Path, precision: str
) -> None:
    file = export(run, "onnx", tmp_path / "half.onnx", precision)  # compared before it is kept
    parity = OnnxSampler(file).card.parity if precision == "fp16" else None
    assert parity is None or 0 < parity.max_rel < parity.tolerance


def test_the_command_of_the_runtime_is_told_by_name(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "mask.npy", TOLD["mask"])
    words = ["age=33.5", "findings=effusion", f"mask={tmp_path / 'mask.npy'}", "other=none"]
    found = told(run, words)  # type: ignore[arg-type]
    assert (found["age"], found["findings"], found["other"]) == (33.5, ("effusion",), None)
    np.testing.assert_array_equal(found["mask"], TOLD["mask"])
    assert told(run, ["label=t1"]) == {"label": "t1"}  # type: ignore[arg-type]
    for wrong, said in (
        ("age=old", "could not convert string to float: 'old'; expected 20 to 80"),
        ("age", "expected NAME=VALUE"),
        ("mask=none.npy", "No such file"),
        ("aeg=3", "did you mean 'age'"),
    ):
        with pytest.raises(ConfigError, match=said):
            told(run, [wrong])  # type: ignore[arg-type]
