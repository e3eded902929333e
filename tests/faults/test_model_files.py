"""Rows X1 to X7 and X12 of the fault catalogue: files from strangers.

X2 (a pickle under another name) and the first half of X3 stand in test_checkpoint.py, X12 (a silent
fall-back to the CPU) in tests/export/test_runtime.py.
"""

import dataclasses
import hashlib
import json
import os
import pickle
import sys

import onnx
import pytest
from model_files import card, model, write
from onnx import TensorProto, helper
from ssmdiff.errors import ExportError
from ssmdiff_cli.main import app
from ssmdiff_export.runtime import OnnxSampler, check_model_file
from ssmdiff_export.runtime.card import ExternalData
from typer.testing import CliRunner

NAME = "model.onnx.data"


@pytest.fixture(autouse=True)
def nothing_opens_it(monkeypatch):
    """No library may open a file that is refused."""

    def opened(*arguments, **options):
        raise AssertionError("the file was opened")

    monkeypatch.setattr("onnxruntime.InferenceSession", opened)


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".onnx"])
def test_x1_a_pickle_is_never_loaded(tmp_path, suffix):
    canary = tmp_path / "canary"
    file = tmp_path / f"model{suffix}"
    file.write_bytes(pickle.dumps(Canary(canary)))
    result = CliRunner().invoke(app, ["sample", str(file), "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert f"{file} is refused: " in " ".join(result.output.split())
    assert not canary.exists()


def test_x3_a_card_of_any_size_is_not_read(tmp_path):
    path = write(tmp_path / "model.onnx", model(" " * (1 << 24) + "{}"))
    with pytest.raises(ExportError, match="model card has 16777218 bytes, over 16777216"):
        check_model_file(path)


def test_x3_a_file_without_a_card_or_with_two_is_refused(tmp_path):
    proto = model()
    del proto.metadata_props[:]
    with pytest.raises(ExportError, match="it has no model cards"):
        check_model_file(write(tmp_path / "none.onnx", proto))
    for _ in range(2):
        proto.metadata_props.add(key="ssmdiff", value=card().to_json())
    with pytest.raises(ExportError, match="it has 2 model cards"):
        check_model_file(write(tmp_path / "two.onnx", proto))


@pytest.mark.parametrize("kind", ["scan", "block", "backbone"])
@pytest.mark.parametrize("name", ["os:system", "evil.module:Scan", "../../evil", "Évil", "", 7])
def test_x4_a_card_names_components_and_no_modules(tmp_path, kind, name):
    document = json.loads(card().to_json())
    document[kind]["name"] = name
    path = write(tmp_path / "model.onnx", model(json.dumps(document)))
    with pytest.raises(ExportError, match=f"{kind!r} is dict; expected .* registered component"):
        check_model_file(path)


def test_x4_a_scan_that_nobody_registered_is_not_imported(tmp_path, monkeypatch):
    from ssmdiff_export.runtime.sampler import FilePlan

    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    slot = dataclasses.replace(card().slots[0], recipe=None)
    stranger = card(scan={"name": "evil"}, slots=(slot,), recipes={})
    with pytest.raises(ExportError, match="there is no scan named 'evil'"):
        FilePlan(read_back(stranger), 0).draw(0)
    assert "evil" not in sys.modules


def read_back(stranger):
    return type(stranger).from_json(stranger.to_json())


def outside(location, known=NAME, offset=0, data=None):
    """A model whose constant lies in the file ``location``."""
    data = (b"\0\0\0\x3f" + bytes(60)) if data is None else data
    external = ExternalData(known, len(data), hashlib.sha256(data).hexdigest())
    proto = model(card(external_data=external))
    (half,) = [t for t in proto.graph.initializer if t.name == "half"]
    half.ClearField("raw_data")
    half.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", 4)):
        half.external_data.add(key=key, value=str(value))
    return proto, data


def test_x5_the_one_known_sibling_is_accepted(tmp_path):
    proto, data = outside(NAME)
    (tmp_path / NAME).write_bytes(data)
    assert check_model_file(write(tmp_path / "model.onnx", proto)).external == tmp_path / NAME


@pytest.mark.parametrize(
    "location",
    ["/etc/passwd", "../secret", "sub/secret", "..", ".", "", "a\\b", "C:secret", "x\0y",
     "*/_ORT_MEM_ADDR_/*"],
)  # fmt: skip
def test_x5_weights_anywhere_but_beside_the_file_are_refused(tmp_path, location):
    proto, data = outside(location, known=NAME)
    (tmp_path / NAME).write_bytes(data)
    with pytest.raises(ExportError, match="expected the name of a file beside it"):
        check_model_file(write(tmp_path / "model.onnx", proto))


@pytest.mark.parametrize("link", ["symbolic", "hard"])
def test_x5_a_link_is_refused(tmp_path, link):
    proto, data = outside(NAME)
    secret = tmp_path / "secret"
    secret.write_bytes(data)
    if link == "symbolic":
        (tmp_path / NAME).symlink_to(secret)
    else:
        (tmp_path / NAME).hardlink_to(secret)
    with pytest.raises(ExportError, match="is a link"):
        check_model_file(write(tmp_path / "model.onnx", proto))


def test_x5_another_sibling_another_content_or_none_is_refused(tmp_path):
    proto, data = outside("other.data")
    (tmp_path / "other.data").write_bytes(data)
    with pytest.raises(ExportError, match=r"lie in \['other.data'\], and its card names"):
        check_model_file(write(tmp_path / "model.onnx", proto))
    proto, data = outside(NAME)
    with pytest.raises(ExportError, match="cannot read"):
        check_model_file(write(tmp_path / "model.onnx", proto))
    (tmp_path / NAME).write_bytes(data[:-1] + b"x")
    with pytest.raises(ExportError, match="is not the file that was exported"):
        check_model_file(write(tmp_path / "model.onnx", proto))
    proto, data = outside(NAME, offset=1000)
    (tmp_path / NAME).write_bytes(data)
    with pytest.raises(ExportError, match=r"lies at 1000 to 1004 .* which has 64 bytes"):
        check_model_file(write(tmp_path / "model.onnx", proto))


def hidden(place):
    """An external tensor where a careless reader does not look."""
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    proto = model()
    if place == "attribute":
        proto.graph.node.append(helper.make_node("Constant", [], ["t"], value=tensor))
    elif place == "function":
        proto.functions[0].node.append(helper.make_node("Constant", [], ["t"], value=tensor))
    elif place == "subgraph":
        graph = helper.make_graph([], "g", [], [], [tensor])
        proto.graph.node.append(helper.make_node("If", ["c"], ["t"], then_branch=graph))
    else:
        sparse = onnx.SparseTensorProto(dims=[4])
        sparse.values.CopyFrom(tensor)
        proto.graph.sparse_initializer.append(sparse)
    return proto


@pytest.mark.parametrize("place", ["attribute", "function", "subgraph", "sparse"])
def test_x5_weights_outside_are_found_wherever_they_are_named(tmp_path, place):
    with pytest.raises(ExportError, match=r"weights lie in '\.\./secret'"):
        check_model_file(write(tmp_path / "model.onnx", hidden(place)))


@pytest.mark.parametrize(
    "domain", ["com.microsoft", "pyop", "ai.onnx.contrib", "ai.onnx.ml", "evil", "SSMDIFF"]
)
@pytest.mark.parametrize("place", ["graph", "subgraph", "function"])
def test_x6_an_unknown_domain_is_refused(tmp_path, domain, place):
    proto = model()
    node = helper.make_node("PyOp", ["x"], ["z"], domain=domain)
    if place == "graph":
        proto.graph.node.append(node)
    elif place == "function":
        proto.functions[0].node.append(node)
    else:
        graph = helper.make_graph([node], "g", [], [])
        proto.graph.node.append(helper.make_node("If", ["c"], ["t"], then_branch=graph))
    with pytest.raises(ExportError, match=f"a node is of the domain {domain!r}"):
        check_model_file(write(tmp_path / "model.onnx", proto))


def test_x6_operators_that_we_do_not_have_and_functions_of_others_are_refused(tmp_path):
    path = tmp_path / "model.onnx"
    proto = model()
    proto.graph.node.append(helper.make_node("System", ["x"], ["z"], domain="ssmdiff"))
    with pytest.raises(ExportError, match="ssmdiff has no node 'System'"):
        check_model_file(write(path, proto))
    proto = model()
    proto.functions[0].domain = ""  # would stand for ONNX's own operator of that name
    with pytest.raises(ExportError, match="a function that is not of the domain 'ssmdiff'"):
        check_model_file(write(path, proto))
    proto = model()
    proto.opset_import.append(helper.make_opsetid("evil", 1))
    with pytest.raises(ExportError, match="version 1 of the domain 'evil'"):
        check_model_file(write(path, proto))


@pytest.mark.parametrize(("opset", "ir"), [(17, 10), (99, 10), (20, 3), (20, 99)])
def test_x7_an_opset_or_ir_version_that_we_do_not_write_is_refused(tmp_path, opset, ir):
    proto = model()
    proto.ir_version = ir
    proto.opset_import[0].version = opset
    with pytest.raises(ExportError, match="version"):
        check_model_file(write(tmp_path / "model.onnx", proto))


def test_x7_a_tensor_that_lies_about_its_shape_is_refused(tmp_path):
    proto = model()
    proto.graph.initializer[0].dims[0] = 1 << 40
    with pytest.raises(
        ExportError, match=r"a tensor of shape \[1099511627776, 2, 3\] has 48 bytes"
    ):
        check_model_file(write(tmp_path / "model.onnx", proto))


def test_x7_a_file_beyond_protobufs_limit_is_refused_unread(tmp_path):
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(1 << 31)  # sparse: no bytes on the disk
    with pytest.raises(ExportError, match="has 2147483648 bytes; expected 1 to 2147483647"):
        check_model_file(path)


def test_x7_no_file_an_empty_one_a_folder_and_a_pipe_are_refused(tmp_path):
    (tmp_path / "empty.onnx").touch()
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "loop.onnx").symlink_to("loop.onnx")
    for name, message in {
        "none": "No such file", "empty": "has 0 bytes", "pipe": "no regular file",
        "folder": "no regular file", "loop": "cannot read", "nul\0": "cannot read",
    }.items():  # fmt: skip
        with pytest.raises(ExportError, match=message):
            OnnxSampler(tmp_path / f"{name}.onnx")


def test_an_option_of_a_run_is_no_option_of_a_file(tmp_path):
    path = write(tmp_path / "model.onnx")
    result = CliRunner().invoke(app, ["sample", str(path), "--checkpoint", "latest"])
    assert result.exit_code == 2
    assert "--checkpoint is of a run, and a file of onnx was given" in " ".join(
        result.output.split()
    )
