"""The model repository for NVIDIA Triton Inference Server, read back as the server would."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from ssmdiff.errors import ConfigError
from ssmdiff.registry.registry import create
from ssmdiff.runs.exporting import ExportRequest
from ssmdiff_export.triton_server import TritonServerExporter, interface

# The messages that we write, from model_config.proto of github.com/triton-inference-server/common:
# field -> the message, or how a scalar looks. A field that is not listed is refused.
SCHEMA: dict[str, dict[str, str]] = {
    "ModelConfig": {
        "name": "string",
        "backend": "string",
        "max_batch_size": "int",
        "input": "ModelInput*",
        "output": "ModelOutput*",
        "dynamic_batching": "ModelDynamicBatching",
        "instance_group": "ModelInstanceGroup*",
        "version_policy": "ModelVersionPolicy",
        "model_warmup": "ModelWarmup*",
    },
    "ModelInput": {
        "name": "string",
        "data_type": "enum",
        "dims": "int*",
        "reshape": "ModelTensorReshape",
    },
    "ModelOutput": {
        "name": "string",
        "data_type": "enum",
        "dims": "int*",
        "reshape": "ModelTensorReshape",
    },
    "ModelTensorReshape": {"shape": "int*"},
    "ModelDynamicBatching": {
        "preferred_batch_size": "int*",
        "max_queue_delay_microseconds": "int",
    },
    "ModelInstanceGroup": {"count": "int", "kind": "enum"},
    "ModelVersionPolicy": {"latest": "Latest"},
    "Latest": {"num_versions": "int"},
    "ModelWarmup": {"name": "string", "batch_size": "int", "inputs": "InputsEntry*"},
    "InputsEntry": {"key": "string", "value": "WarmupInput"},
    "WarmupInput": {
        "data_type": "enum",
        "dims": "int*",
        "zero_data": "bool",
        "random_data": "bool",
        "input_data_file": "string",
    },
}
TYPES = {"TYPE_FP32": "tensor(float)", "TYPE_INT32": "tensor(int32)", "TYPE_INT64": "tensor(int64)"}
TOKEN = re.compile(r'\s*([A-Za-z_]\w*|-?\d+|"[^"\\\n]*"|[{}\[\]:,])')


def read_config(text: str) -> dict[str, Any]:
    """Protobuf's text format, as much of it as SCHEMA has; anything else raises."""
    tokens, at = [], 0
    text = text.rstrip()
    while at < len(text):
        found = TOKEN.match(text, at)
        assert found is not None, f"unreadable: {text[at : at + 40]!r}"
        tokens.append(found[1])
        at = found.end()
    message, rest = _message("ModelConfig", tokens)
    assert not rest
    return message


def _message(kind: str, tokens: list[str]) -> tuple[dict[str, Any], list[str]]:
    message: dict[str, Any] = {}
    while tokens and tokens[0] != "}":
        field, tokens = tokens[0], tokens[1:]
        assert field in SCHEMA[kind], f"{kind} has no field {field}"
        expected = SCHEMA[kind][field]
        repeated, expected = expected.endswith("*"), expected.rstrip("*")
        if expected in SCHEMA:
            tokens = tokens[1:] if tokens[0] == ":" else tokens
            assert tokens[0] == "{", field
            value, tokens = _message(expected, tokens[1:])
            assert tokens[0] == "}"
            values, tokens = [value], tokens[1:]
        else:
            assert tokens[0] == ":", field
            values, tokens = _scalars(expected, tokens[1:])
        if repeated:
            message.setdefault(field, []).extend(values)
        else:
            assert field not in message, f"{field} stands twice"
            (message[field],) = values
    return message, tokens


def _scalars(kind: str, tokens: list[str]) -> tuple[list[Any], list[str]]:
    if tokens[0] == "[":
        end = tokens.index("]")
        listed = tokens[1:end]
        assert listed[1::2] == [","] * len(listed[1::2])
        return [_scalar(kind, token) for token in listed[::2]], tokens[end + 1 :]
    return [_scalar(kind, tokens[0])], tokens[1:]


def _scalar(kind: str, token: str) -> Any:
    pattern = {"int": r"-?\d+", "string": r'".*"', "bool": "true|false", "enum": r"[A-Z][A-Z0-9_]*"}
    assert re.fullmatch(pattern[kind], token), f"{token} is no {kind}"
    return {"int": int, "string": json.loads, "bool": "true".__eq__, "enum": str}[kind](token)


@pytest.mark.parametrize(
    "wrong", ['nam: "x"', "name: 3", 'name: "x" name: "y"', "input { dims: a }"]
)
def test_the_reader_refuses_what_the_server_would(wrong):
    with pytest.raises(AssertionError):
        read_config(wrong)


def read_by_protobuf(text: str) -> None:
    """Parse with the server's own model_config.proto, where it and grpcio-tools are at hand."""
    proto = os.environ.get("SSMDIFF_TRITON_PROTO")
    if proto is None:
        return
    tools = pytest.importorskip("grpc_tools.protoc")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

    target = Path(os.environ.get("TMPDIR", "/tmp")) / "ssmdiff-model-config.pb"
    arguments = ["", f"-I{Path(proto).parent}", f"--descriptor_set_out={target}", proto]
    assert tools.main(arguments) == 0
    files = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(files.file[0])
    descriptor = pool.FindMessageTypeByName("inference.ModelConfig")
    message = message_factory.GetMessageClass(descriptor)()
    text_format.Parse(text, message)
    assert message.input


def check_against_the_model(config: dict[str, Any], model: Path) -> None:
    """Names, types and dims of the configuration are those of the graph."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    batching = config["max_batch_size"] > 0
    for specs, values in (
        (config["input"], session.get_inputs()),
        (config["output"], session.get_outputs()),
    ):
        assert [spec["name"] for spec in specs] == [value.name for value in values]
        for spec, value in zip(specs, values, strict=True):
            assert TYPES[spec["data_type"]] == value.type
            shape = [-1 if isinstance(side, str) else side for side in value.shape]
            dims = spec.get("reshape", {"shape": spec["dims"]}).get("shape", [])
            assert ([-1, *dims] if batching else dims) == shape


def warm_up(config: dict[str, Any], folder: Path, model: Path) -> int:
    """Send the model what the server's warm-up would; the number of requests."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    reshaped = {spec["name"] for spec in config["input"] if "reshape" in spec}
    for request in config["model_warmup"]:
        feeds = {}
        for entry in request["inputs"]:
            name, spec = entry["key"], entry["value"]
            dtype = {"TYPE_FP32": "<f4", "TYPE_INT32": "<i4", "TYPE_INT64": "<i8"}[
                spec["data_type"]
            ]
            if "input_data_file" in spec:
                data = (folder / "warmup" / spec["input_data_file"]).read_bytes()
                array = np.frombuffer(data, dtype).reshape(spec["dims"])
            else:
                array = np.zeros(spec["dims"], dtype)
            if config["max_batch_size"]:
                array = np.stack([array] * request["batch_size"])
                array = array.reshape(len(array)) if name in reshaped else array
            else:
                assert request["batch_size"] == 1
            feeds[name] = array
        assert session.run(None, feeds)[0].shape[0] == len(feeds["x"])
    return len(config["model_warmup"])


@pytest.fixture
def small(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent / "tensorrt")
    import small_model

    yield small_model
    sys.modules.pop("small_model", None)


def test_random_orders_are_served_without_the_servers_batching(tmp_path, small):
    model = small.write(tmp_path / "model.onnx")
    (tmp_path / "warmup").mkdir()
    order = np.stack([np.arange(small.L), np.arange(small.L)[::-1]]).astype("<i4")
    (tmp_path / "warmup" / "order_0").write_bytes(order.tobytes())
    text = TritonServerExporter(device="gpu").config(*interface(model), (1, 4, 8))
    read_by_protobuf(text)
    config = read_config(text)
    assert config["max_batch_size"] == 0
    assert "dynamic_batching" not in config
    assert config["instance_group"] == [{"count": 1, "kind": "KIND_GPU"}]
    assert [spec["dims"] for spec in config["input"]] == [[-1, 1, 4, 4], [-1], [2, 16]]
    check_against_the_model(config, model)
    assert warm_up(config, tmp_path, model) == 2


def test_fixed_orders_are_batched_by_the_server(tmp_path, small):
    model = small.write(tmp_path / "model.onnx", random=False)
    text = TritonServerExporter(model_name="heads", instances=2).config(
        *interface(model), (1, 4, 8)
    )
    read_by_protobuf(text)
    config = read_config(text)
    assert (config["name"], config["backend"]) == ("heads", "onnxruntime")
    assert config["max_batch_size"] == 8
    assert config["dynamic_batching"]["preferred_batch_size"] == [4]
    assert [spec["dims"] for spec in config["input"]] == [[1, 4, 4], [1]]
    assert config["input"][1]["reshape"] == {"shape": []}
    check_against_the_model(config, model)
    assert warm_up(config, tmp_path, model) == 2


def test_the_readme_shows_a_request_that_fits(tmp_path, small):
    model = small.write(tmp_path / "model.onnx")
    readme = TritonServerExporter().readme(*interface(model))
    body = json.loads(readme.split("```json\n")[1].split("```")[0])
    assert [(i["name"], i["datatype"], i["shape"]) for i in body["inputs"]] == [
        ("x", "FP32", [1, 1, 4, 4]),
        ("timesteps", "FP32", [1]),
        ("order_0", "INT32", [2, 16]),
    ]
    assert "each row must visit every token once" in readme


@pytest.mark.slow
def test_a_run_becomes_a_repository(tmp_path):
    from ssmdiff_export.tensorrt.doctor import tiny_run

    run = tiny_run(tmp_path / "run", "euler", widths=(1,))
    out = tmp_path / "repository"
    request = ExportRequest(run, out, verify=False)
    exporter = TritonServerExporter(batch=(1, 2, 4))
    result = exporter.export(request)
    folder, model = out / "ssmdiff", out / "ssmdiff" / "1" / "model.onnx"
    assert set(result.files) == {p for p in out.rglob("*") if p.is_file()}
    config = read_config((folder / "config.pbtxt").read_text())
    check_against_the_model(config, model)
    slots = [i.name for i in onnx.load(model).graph.input if i.name.startswith("order_")]
    assert slots
    assert sorted(p.name for p in (folder / "warmup").iterdir()) == sorted(slots)
    assert warm_up(config, folder, model) == 2
    with pytest.raises(ConfigError, match="is there already"):
        exporter.export(request)
    assert exporter.recognises(out)
    assert not exporter.recognises(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"Inference Server serves; sample from .*model.onnx"):
        exporter.open(out)


def test_a_folder_with_other_things_is_never_replaced(tmp_path):
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "thesis.tex").write_text("years of work")
    request = ExportRequest(None, tmp_path / "repository", overwrite=True)
    with pytest.raises(ConfigError, match="holds something else"):
        TritonServerExporter().export(request)
    assert (tmp_path / "repository" / "thesis.tex").exists()


def test_options_that_make_no_sense_are_refused():
    made = create("exporter", {"name": "triton-server", "model_name": "heads", "instances": 2})
    assert (made.name, made.instances) == ("heads", 2)
    with pytest.raises(ConfigError, match="backend"):
        create("exporter", {"name": "triton-server", "backend": "onix"})
    with pytest.raises(ConfigError, match=r"batch.*fewest, usual and most images"):
        create("exporter", {"name": "triton-server", "batch": [4, 2, 8]})
    with pytest.raises(ConfigError, match="body is of an ONNX file"):
        TritonServerExporter(backend="tensorrt", body="chunked")
    with pytest.raises(ConfigError, match="no folder's name"):
        TritonServerExporter(model_name="../x")
    with pytest.raises(ConfigError, match="runs on a GPU"):
        TritonServerExporter(backend="tensorrt", device="cpu")
