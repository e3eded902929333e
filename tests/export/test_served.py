"""The client of a model repository: its requests, its answers, and the images of the file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from model_files import card, model, write
from ssmdiff.errors import ConfigError, ExportError
from ssmdiff_export.runtime import OnnxSampler
from ssmdiff_export.runtime.served import ServedModel, prediction_of, request_of
from ssmdiff_export.triton_server import TritonServerExporter, interface
from stand_in_server import serving


def repository(folder: Path, conditional: bool = False, name: str = "ssmdiff") -> Path:
    """As the target writes it, of a file made by hand; orders are random, so nothing is batched."""
    classes = {"class_conditional": True, "class_names": ("a", "b")} if conditional else {}
    version = folder / name / "1"
    version.mkdir(parents=True)
    file = write(version / "model.onnx", model(card(**classes), conditional))
    text = TritonServerExporter(model_name=name).config(*interface(file), (1, 4, 8))
    (folder / name / "config.pbtxt").write_text(text)
    (folder / "card.json").write_text(card(**classes).to_json())
    return folder


@pytest.mark.parametrize("conditional", [False, True])
def test_a_served_model_draws_the_images_of_its_file(tmp_path, conditional) -> None:
    folder = repository(tmp_path, conditional)
    sampler = OnnxSampler(folder / "ssmdiff" / "1" / "model.onnx", threads=1)
    options = {"seed": 4, "steps": 5, "batch_size": 2, "scheduler": "ddpm"}
    with serving(folder) as (url, served):
        drawn = ServedModel(folder / "card.json", url).sample(3, **options)
    np.testing.assert_allclose(drawn, sampler.sample(3, **options), rtol=0, atol=1e-6)
    assert [call["inputs"][0]["shape"][0] for call in served.calls] == [2] * 5 + [1] * 5
    assert ("context" in {i["name"] for i in served.calls[0]["inputs"]}) == conditional


def test_fixed_orders_are_sent_as_a_server_that_batches_takes_them(tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent / "tensorrt")
    import small_model

    version = tmp_path / "heads" / "1"
    version.mkdir(parents=True)
    file = small_model.write(version / "model.onnx", random=False)
    exporter = TritonServerExporter(model_name="heads")
    (tmp_path / "heads" / "config.pbtxt").write_text(exporter.config(*interface(file), (1, 2, 2)))
    (tmp_path / "card.json").write_text(small_model.card(random=False).to_json())
    with serving(tmp_path) as (url, served):
        client = ServedModel(tmp_path / "card.json", url, "heads")
        drawn = client.sample(2, seed=1, steps=2)
        shapes = {i["name"]: i["shape"] for i in served.calls[0]["inputs"]}
        assert shapes == {"x": [2, 1, 4, 4], "timesteps": [2, 1]}
        with pytest.raises(ExportError, match=r"refuses \(400\): .*batch-size must be <= 2"):
            client.sample(3, seed=1, steps=2, batch_size=3)
    wanted = OnnxSampler(file, threads=1).sample(2, seed=1, steps=2)
    np.testing.assert_allclose(drawn, wanted, rtol=0, atol=1e-6)
    sys.modules.pop("small_model", None)


def test_requests_are_those_of_nvidias_own_client() -> None:
    """Header and bytes, and its reader reads what our stand-in answers; where it is installed."""
    http = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
    rng = np.random.default_rng(0)
    inputs = {
        "x": rng.standard_normal((2, 1, 3, 5), dtype=np.float32),
        "timesteps": np.array([7, 9], np.float32),
        "context": np.array([0, 1], np.int64),
        "order_0": np.arange(10, dtype=np.int32).reshape(2, 5),
    }
    theirs = []
    for name, value in inputs.items():
        kind = {"float32": "FP32", "int64": "INT64", "int32": "INT32"}[value.dtype.name]
        theirs.append(http.InferInput(name, list(value.shape), kind))
        theirs[-1].set_data_from_numpy(value, binary_data=True)
    asked = [http.InferRequestedOutput("prediction", binary_data=True)]
    content, size = http.InferenceServerClient.generate_request_body(theirs, outputs=asked)
    head, body = request_of(inputs)
    assert json.loads(head) == json.loads(content[:size])
    assert body == content[size:]

    answer = {"name": "prediction", "datatype": "FP32", "shape": [2, 1, 3, 5]}
    answer["parameters"] = {"binary_data_size": inputs["x"].nbytes}
    text = json.dumps({"outputs": [answer]}).encode()
    whole = text + inputs["x"].tobytes()
    read = http.InferenceServerClient.parse_response_body(whole, header_length=len(text))
    np.testing.assert_array_equal(read.as_numpy("prediction"), inputs["x"])
    np.testing.assert_array_equal(prediction_of(whole, str(len(text))), inputs["x"])


def answer(shape=(1, 2), size=None, kind="FP32", name="prediction", tail=b"") -> tuple[bytes, str]:
    values = np.ones(shape, np.float32).tobytes() + tail
    told = {"binary_data_size": len(values) if size is None else size}
    outputs = [{"name": name, "datatype": kind, "shape": list(shape), "parameters": told}]
    head = json.dumps({"outputs": outputs}).encode()
    return head + values, str(len(head))


@pytest.mark.parametrize(
    "wrong",
    [
        answer(size=4), answer(kind="FP16"), answer(name="other"), answer(tail=b"more"),
        (answer()[0], "-1"), (answer()[0], "1000000"), (answer()[0][:-3], answer()[1]),
        (b"<html>", None), (b"[]", None), (b'{"outputs": [{}]}', None),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_refused(wrong) -> None:
    assert prediction_of(*answer()).tolist() == [[1, 1]]
    with pytest.raises((ValueError, KeyError, TypeError)):
        prediction_of(*wrong)


def test_a_server_without_the_binary_extension_is_understood() -> None:
    output = {"name": "prediction", "datatype": "FP32", "shape": [2, 1], "data": [0.5, -1]}
    found = prediction_of(json.dumps({"outputs": [output]}).encode(), None)
    assert (found.dtype, found.tolist()) == (np.float32, [[0.5], [-1]])


def test_what_goes_wrong_is_one_sentence(tmp_path) -> None:
    folder = repository(tmp_path)
    unknown = r"refuses \(404\): Request for unknown model"
    with serving(folder) as (url, _), pytest.raises(ExportError, match=unknown):
        ServedModel(folder / "card.json", url, "other").sample(1, steps=1)
    with pytest.raises(ExportError, match=r"cannot be reached .* Is tritonserver running"):
        ServedModel(folder / "card.json", url).sample(1, steps=1)
    with pytest.raises(ConfigError, match="expected an address such as"):
        ServedModel(folder / "card.json", "ftp://x")
    with pytest.raises(ConfigError, match=r"none\.json cannot be read"):
        ServedModel(folder / "none.json", url)


ALONE = """
import sys
for absent in ("torch", "pluggy", "pydantic", "onnx", "onnxruntime", "rich", "typer"):
    sys.modules[absent] = None
sys.argv = ["client.py", *sys.argv[1:]]
from ssmdiff_export.runtime.served import main
from pathlib import Path
main(Path("card.json"), model="ssmdiff", batch_size=4)
"""


def test_the_client_needs_numpy_alone(tmp_path) -> None:
    folder = repository(tmp_path / "repository")
    with serving(folder) as (url, _):
        words = ["--url", url, "--n", "3", "--seed", "2", "--out", "images.npy"]
        done = subprocess.run(
            [sys.executable, "-c", ALONE, *words], cwd=folder, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr
    wanted = OnnxSampler(folder / "ssmdiff" / "1" / "model.onnx").sample(3, seed=2)
    np.testing.assert_allclose(np.load(folder / "images.npy"), wanted, rtol=0, atol=1e-6)
