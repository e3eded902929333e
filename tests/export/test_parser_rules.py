"""What our table of TensorRT's parser lacks is named, node by node; and the table is right."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from ssmdiff.errors import ExportError
from ssmdiff_export.function import scan_function
from ssmdiff_export.parser_rules import check_parser_rules, parser_findings, rules
from ssmdiff_export.runtime.card import BODIES, OPERATORS
from ssmdiff_export.tensorrt.binding import RTX, load_tensorrt

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
node, value = helper.make_node, helper.make_tensor_value_info
AXIS = helper.make_tensor("axis", INT64, [1], [1])


def model(*nodes, kind=FLOAT, opset=20, initializers=(), inputs=(), functions=()):
    graph = helper.make_graph(
        list(nodes),
        "g",
        [value("x", kind, [2, 3]), *inputs],
        [value("y", kind, None)],
        list(initializers),
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ssmdiff", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions))


TRIPS = value("trips", INT64, [])
STEP = helper.make_graph(
    [node("Identity", ["more"], ["on"]), node("Unique", ["h"], ["h2"], name="inside")],
    "step",
    [value("i", INT64, []), value("more", TensorProto.BOOL, []), value("h", FLOAT, [2, 3])],
    [value("on", TensorProto.BOOL, []), value("h2", FLOAT, [2, 3])],
)
REFUSED = [
    (model(node("Unique", ["x"], ["y"], name="a")), "a (Unique): no such operator"),
    (model(node("Relu", ["x"], ["y"], name="b"), kind=TensorProto.INT32), "'x' is INT32"),
    (model(node("Relu", ["x"], ["y"]), opset=29), "file (opset): 29; expected 6 to 28"),
    (
        model(node("ReduceSum", ["x", "axes"], ["y"]), inputs=[value("axes", INT64, [1])]),
        "input 1 (axes) is not known",
    ),
    (
        model(node("CumSum", ["x", "axis"], ["y"]), inputs=[value("axis", INT64, [])]),
        "input 1 (axis) is not known",
    ),
    (model(node("Exp", ["x"], ["y"]), kind=INT64), "is INT64"),
    (
        model(node("ScatterND", ["x", "axis", "x"], ["y"], reduction="add"), initializers=[AXIS]),
        "reduction 'add' is not supported",
    ),
    (model(node("RandomUniform", [], ["y"], shape=[2])), "random numbers"),
    (
        model(
            node("ScatterElements", ["x", "i", "x"], ["y"], reduction="add"),
            inputs=[value("i", INT64, [2, 3])],
        ),
        "reduction 'add' is not supported",
    ),
    (model(node("Fused", ["x"], ["y"], domain="com.microsoft")), "domain 'com.microsoft'"),
    (model(node("SelectiveScan", ["x"], ["y"], domain="ssmdiff")), "domain 'ssmdiff'"),
    (
        model(node("Loop", ["trips", "", "x"], ["y", "all"], body=STEP, name="l"), inputs=[TRIPS]),
        "l (Loop): its trip count is dynamic",
    ),
    (
        model(node("Loop", ["trips", "", "x"], ["y"], body=STEP, name="l"), inputs=[TRIPS]),
        "l/inside (Unique): no such operator",
    ),
]


@pytest.mark.parametrize(("bad", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_what_is_not_documented_is_named(bad, message) -> None:
    assert any(message in str(finding) for finding in parser_findings(bad))


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("operator", OPERATORS.values())
def test_our_own_functions_are_documented(operator, body) -> None:
    assert parser_findings(model(functions=[scan_function(operator, body)])) == []


def test_a_node_inside_a_function_is_named_with_it() -> None:
    function = scan_function("SelectiveScan")
    function.node.append(node("Unique", ["u"], ["z"], name="odd"))
    (finding,) = parser_findings(model(functions=[function]))
    assert finding.node == "SelectiveScan/odd"


def test_every_documented_operator_is_one_of_onnx() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas()}
    own = {"ImageScaler", "ParametricSoftplus", "ScaledTanh"}  # experimental ones of ONNX 1.2
    assert set(rules().operators) - known <= own


def test_a_file_is_refused_with_all_its_nodes(tmp_path) -> None:
    many = [node("Unique", ["x"], [f"y{i}"], name=f"n{i}") for i in range(12)]
    onnx.save(model(*many, node("Relu", ["x"], ["y"])), tmp_path / "m.onnx")
    with pytest.raises(ExportError, match=r"(?s)12 nodes that .*n9 \(Unique\).*and 2 more"):
        check_parser_rules(tmp_path / "m.onnx")


# The table against the real parser and builder: benchmarks/parser_rules.py asked them of each model
# of benchmarks/parser_nodes.py, and wrote down what they said.

RECORD = json.loads((BENCHMARKS / "results" / "parser_rules.json").read_text("utf-8"))
APART = {
    "RandomNormal": "it builds; the seed is ignored, so no file of ours may hold one",
    "RandomUniformLike": "likewise",
    "Attention opset 23": "the builder has no kernel for this shape; the table knows no shapes",
    "Attention dynamic batch": "likewise",
}


@pytest.fixture(scope="module")
def nodes():
    """The synthetic models by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        return {case.name: case.model for case in importlib.import_module("parser_nodes").cases()}


def test_the_table_says_what_the_real_builder_says(nodes) -> None:
    said = {row["case"]: row for row in RECORD["cases"]}
    assert said.keys() == nodes.keys()
    assert len(said) >= 60
    assert sum(row["builds"] for row in said.values()) > 100
    assert sum(not row["builds"] for row in said.values()) > 20
    taken = {name for name, model in nodes.items() if not parser_findings(model)}
    apart = taken ^ {name for name, row in said.items() if row["builds"]}
    assert apart == APART.keys(), RECORD["tensorrt"]
    assert rules().tensorrt == RECORD["table"]


@pytest.mark.slow
def test_the_record_is_what_the_installed_one_says(nodes, monkeypatch) -> None:
    try:
        trt = load_tensorrt(RTX)
    except ExportError as error:
        pytest.skip(str(error))
    monkeypatch.syspath_prepend(BENCHMARKS)
    ask = importlib.import_module("parser_rules").asked
    said = {row["case"]: row for row in RECORD["cases"]}
    version = f"{RTX.title} {trt.__version__}"
    if RECORD["tensorrt"] != version:
        pytest.skip(f"{version} is here; the record is of {RECORD['tensorrt']}")
    for name, model in nodes.items():
        found = ask(trt, model)
        assert found["parses"] == said[name]["parses"], (name, found)
        assert found["builds"] == said[name]["builds"], (name, found)
