"""A model that NVIDIA Triton Inference Server has; the loop over the steps runs here.

The requests are those of the KServe protocol, version 2, over HTTP, with its binary extension: a
JSON header, whose length stands in ``Inference-Header-Content-Length``, and the arrays' bytes in
the order of the header, little-endian. Needs numpy alone.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from ssmdiff import ConfigError, ExportError

from ssmdiff_export.runtime.card import ModelCard
from ssmdiff_export.runtime.drawing import arguments, draw, run
from ssmdiff_export.runtime.sampler import Array, ArrayModel

LENGTH = "Inference-Header-Content-Length"
KINDS = {"FP32": "<f4", "INT32": "<i4", "INT64": "<i8"}
TIMEOUT_S = 600.0
"""Of one call of the network, which waits for those of others."""
_MOST_HEADER = 1 << 20


class ServedModel(ArrayModel):
    """A model on a server::

        from ssmdiff_export.runtime.served import ServedModel
        images = ServedModel("repository/card.json", "http://localhost:8000").sample(16, seed=0)

    Its images are those of the file that the server has.

    Args:
        card: ``card.json`` of the model repository.
        url: Of the server.
        model: The model's name there.
    """

    def __init__(self, card: str | Path, url: str, model: str = "ssmdiff") -> None:
        try:
            self.card = ModelCard.from_json(Path(card).read_bytes())
        except OSError as error:
            raise ConfigError(f"{card} cannot be read: {error.strerror}") from error
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"--url {url}: expected an address such as http://localhost:8000")
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self.url, self.model = url, model
        self._path = f"{parts.path.rstrip('/')}/v2/models/{model}/infer"
        self._connection = kind(parts.hostname, parts.port, timeout=TIMEOUT_S)

    def origin(self) -> dict[str, Any]:
        """The server and the model there, as JSON."""
        return {"url": self.url, "model": self.model, **super().origin()}

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Array:
        """The prediction for the graph's inputs by name.

        Raises:
            ExportError: The server cannot be reached, refuses, or answers with something else.
        """
        rows = {name: self._row(value) for name, value in inputs.items()}
        head, body = request_of(rows)
        headers = {"Content-Type": "application/octet-stream", LENGTH: str(len(head))}
        where = f"the server at {self.url}"
        try:
            self._connection.request("POST", self._path, head + body, headers)
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise ExportError(
                f"{where} cannot be reached ({error}). Is tritonserver running, with its HTTP port "
                "open?"
            ) from error
        if answer.status != 200:
            raise ExportError(f"{where} refuses ({answer.status}): {_refusal(content)}")
        try:
            prediction = prediction_of(content, answer.getheader(LENGTH))
        except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
            raise ExportError(f"{where} answers with something else: {error}") from error
        expected = (len(inputs["x"]), *self.card.shape)
        if prediction.shape != expected:
            raise ExportError(
                f"{where} predicts {prediction.shape} for images of {expected}; is it the "
                "model of this card?"
            )
        return prediction

    def _row(self, value: NDArray[Any]) -> NDArray[Any]:
        """Where the server batches, one number for each image is sent as (batch, 1)."""
        batches = all(slot.order is None for slot in self.card.slots)
        return value[:, None] if batches and value.ndim == 1 else value


def request_of(inputs: Mapping[str, NDArray[Any]]) -> tuple[bytes, bytes]:
    """Header and body of a call."""
    kinds = {np.dtype(kind): word for word, kind in KINDS.items()}
    parts = {name: np.ascontiguousarray(value) for name, value in inputs.items()}
    head = {
        "inputs": [
            {
                "name": name,
                "shape": list(value.shape),
                "datatype": kinds[value.dtype],
                "parameters": {"binary_data_size": value.nbytes},
            }
            for name, value in parts.items()
        ],
        "outputs": [{"name": "prediction", "parameters": {"binary_data": True}}],
    }
    body = b"".join(
        value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()
        for value in parts.values()
    )
    return json.dumps(head).encode(), body


def prediction_of(content: bytes, length: str | None) -> Array:
    """The array of an answer; as numbers in the JSON from a server without the extension."""
    size = len(content) if length is None else int(length)
    if not 0 < size <= min(len(content), _MOST_HEADER if length else len(content)):
        raise ValueError(f"its header has {size} of {len(content)} bytes")
    head = json.loads(content[:size])
    (output,) = (one for one in head["outputs"] if one["name"] == "prediction")
    shape = [int(side) for side in output["shape"]]
    if output["datatype"] != "FP32" or any(side < 0 for side in shape):
        raise ValueError(f"its prediction is {output['datatype']} of {shape}")
    if "data" in output:
        return np.array(output["data"], np.float32).reshape(shape)
    told = int(output["parameters"]["binary_data_size"])
    if not told == len(content) - size == 4 * math.prod(shape):
        raise ValueError(f"{len(content) - size} bytes for a prediction of {shape}")
    return np.frombuffer(content, "<f4", offset=size).reshape(shape).astype(np.float32)


def _refusal(content: bytes) -> str:
    try:
        return str(json.loads(content)["error"])[:500]
    except (ValueError, KeyError, TypeError, RecursionError):
        return content[:200].decode("utf-8", "replace") or "no reason is given"


def main(card: Path, model: str, batch_size: int) -> None:
    """What ``client.py`` of a model repository runs.

    Args:
        card: Beside it.
        model: As the server calls it.
        batch_size: Images of a call.
    """
    parser = argparse.ArgumentParser(description="Images of a model that a server has.")
    parser.add_argument("--url", default="http://localhost:8000", help="Of the server.")
    arguments(parser, batch_size)
    asked = parser.parse_args()
    run(lambda: draw(ServedModel(card, asked.url, model), asked))
