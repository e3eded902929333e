"""A stand-in for NVIDIA Triton Inference Server: one model of a repository, by ONNX Runtime.

Written after the server's documents of the KServe protocol and its binary extension, and not after
our client: it refuses what the server would, by what ``config.pbtxt`` says.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

TYPES = {"FP32": np.dtype("<f4"), "INT32": np.dtype("<i4"), "INT64": np.dtype("<i8")}


class RefusedError(Exception):
    """What the server answers with 400."""


class Model:
    """A model of a repository."""

    def __init__(self, folder: Path) -> None:
        text = (folder / "config.pbtxt").read_text()
        self.most = int(re.search(r"^max_batch_size: (\d+)$", text, re.M)[1])
        self.session = ort.InferenceSession(
            folder / "1" / "model.onnx", providers=["CPUExecutionProvider"]
        )
        self.shapes = {i.name: i.shape for i in self.session.get_inputs()}
        self.calls: list[dict[str, Any]] = []

    def infer(self, head: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        feeds, at = {}, 0
        for given in head["inputs"]:
            dtype, shape = TYPES[given["datatype"]], given["shape"]
            size = given["parameters"]["binary_data_size"]
            values = np.frombuffer(body[at : at + size], dtype)
            at += size
            if values.size != np.prod(shape):
                raise RefusedError(f"unexpected size for input '{given['name']}'")
            feeds[given["name"]] = self.taken(given["name"], values.reshape(shape))
        if at != len(body):
            raise RefusedError("unexpected additional input data")
        if feeds.keys() != self.shapes.keys():
            raise RefusedError(f"expected inputs {sorted(self.shapes)}, got {sorted(feeds)}")
        self.calls.append(head)
        (asked,) = head["outputs"]
        (found,) = self.session.run([asked["name"]], feeds)
        assert asked["parameters"] == {"binary_data": True}
        described = {"name": asked["name"], "datatype": "FP32", "shape": list(found.shape)}
        described["parameters"] = {"binary_data_size": found.nbytes}
        return {"model_version": "1", "outputs": [described]}, found.astype("<f4").tobytes()

    def taken(self, name: str, value: np.ndarray) -> np.ndarray:
        if self.most == 0:
            return value
        if value.ndim < 2 or len(value) > self.most:
            raise RefusedError(f"inference request batch-size must be <= {self.most} for '{name}'")
        return value[:, 0] if len(self.shapes[name]) == 1 else value


@contextmanager
def serving(repository: Path) -> Iterator[tuple[str, Model]]:
    """The address of a server over the one model of a repository, and the model."""
    (config,) = repository.glob("*/config.pbtxt")
    model = Model(config.parent)
    path = f"/v2/models/{config.parent.name}/infer"

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            size = int(self.headers["Inference-Header-Content-Length"])
            if self.path != path:
                return self.answer(404, {"error": f"Request for unknown model: {self.path}"})
            try:
                head, body = model.infer(json.loads(content[:size]), content[size:])
            except RefusedError as refused:
                return self.answer(400, {"error": str(refused)})
            return self.answer(200, head, body)

        def answer(self, status: int, head: dict[str, Any], body: bytes = b"") -> None:
            text = json.dumps(head).encode()
            self.send_response(status)
            if body:
                self.send_header("Inference-Header-Content-Length", str(len(text)))
            self.send_header("Content-Length", str(len(text) + len(body)))
            self.end_headers()
            self.wfile.write(text + body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", model
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
