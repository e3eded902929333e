"""DINOv2's large network: the table of its file, what is refused, and what the network is given."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sets import noise
from ssmdiff import ConfigError, DataError, create
from ssmdiff_metrics.checkpoints import require_keys, table
from ssmdiff_metrics.dinov2 import renamed, vit_large

TABLE = "dinov2_large.json"


@pytest.mark.slow  # transformers takes seconds to import
def test_the_network_of_full_size_has_the_tensors_of_the_file() -> None:
    pytest.importorskip("transformers")
    with torch.device("meta"):
        network = vit_large()
        tokens = network(pixel_values=torch.zeros(2, 3, 224, 224)).last_hidden_state
    assert tokens.shape == (2, 1 + 16 * 16, 1024)
    built = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert renamed(table(TABLE), network) == built
    assert sum(np.prod(shape) for shape in table(TABLE).values()) == 304_368_640


def saved(path: Path, of: dict[str, torch.Tensor]) -> dict[str, str]:
    save_file(of, path)
    return {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def made(**options: str):
    return create("features", {"name": "dinov2", **options})


def test_another_network_is_refused(tmp_path: Path) -> None:
    small = {"embeddings.cls_token": torch.zeros(1, 1, 384), "head.weight": torch.zeros(2)}
    with pytest.raises(DataError, match="1 keys are unknown, 438 are missing, 1 have other shapes"):
        made(**saved(tmp_path / "m.safetensors", small)).fit(noise(2))
    sound = {key: torch.empty(shape, device="meta") for key, shape in table(TABLE).items()}
    require_keys(sound, TABLE, "sound")


def test_it_is_not_opened_unless_its_hash_is_right(tmp_path: Path) -> None:
    options = saved(tmp_path / "m.safetensors", {"x": torch.zeros(2)})
    with pytest.raises(DataError, match="It was not opened"):
        made(**options | {"sha256": "0" * 64}).fit(noise(2))
    with pytest.raises(ConfigError, match="which is not there"):
        made(**options | {"path": str(tmp_path / "no")}).fit(noise(2))
    text = tmp_path / "text"
    text.write_text("no weights")
    of_text = {"path": str(text), "sha256": hashlib.sha256(b"no weights").hexdigest()}
    with pytest.raises(DataError, match="is no safetensors file"):
        made(**of_text).fit(noise(2))


def test_the_network_sees_imagenet_s_range_and_gives_the_class_token() -> None:
    network = made(path="unused", sha256="0" * 64, resize="torch")
    seen = []

    def forward(pixel_values: torch.Tensor) -> SimpleNamespace:
        seen.append(pixel_values)
        tokens = torch.arange(257.0).reshape(1, 257, 1).expand(len(pixel_values), 257, 1024)
        return SimpleNamespace(last_hidden_state=tokens)

    network.network = forward
    white = np.full((2, 1, 30, 20), 255, np.uint8)
    found = network(white)
    assert found.shape == (2, 1024)
    assert not found.any(), "token 0"
    expected = (1 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    assert seen[0].shape == (2, 3, 224, 224)
    np.testing.assert_allclose(seen[0][1, :, 100, 7], expected, rtol=1e-5)
    with pytest.raises(ConfigError, match="see 1 or 3 channels"):
        network(white.repeat(2, axis=1))


def test_resize_and_weights_are_in_the_digest() -> None:
    first = made(path="x", sha256="0" * 64).digest()
    assert made(path="y", sha256="0" * 64).digest() == first
    assert made(path="x", sha256="1" * 64).digest() != first
    assert made(path="x", sha256="0" * 64, resize="tf1").digest() != first
