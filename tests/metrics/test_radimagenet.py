"""RadImageNet's ResNet-50: the table of its file, what is refused, what the network sees."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from sets import noise
from ssmdiff import ConfigError, DataError, create
from ssmdiff_metrics import radimagenet
from ssmdiff_metrics.checkpoints import require_keys, table
from ssmdiff_metrics.radimagenet import renamed, resnet50

State = dict[str, torch.Tensor]
TABLE = "radimagenet_resnet50.json"


def state() -> State:
    """Tensors of the file's names and shapes, each of one number in memory."""
    return {
        key: torch.zeros((), dtype=torch.long)
        if key.endswith("num_batches_tracked")
        else torch.full((), 0.5 if key.endswith("running_var") else 0.01).expand(shape)
        for key, shape in table(TABLE).items()
    }


def saved(path: Path, of: object) -> dict[str, str]:
    torch.save(of, path)
    return {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


@pytest.mark.slow  # MONAI takes seconds to import
def test_the_network_of_full_size_has_the_tensors_of_the_file() -> None:
    with torch.device("meta"):
        network = resnet50()
        assert network(torch.zeros(2, 3, 224, 224)).shape == (2, 2048)
    built = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert {renamed(key): shape for key, shape in table(TABLE).items()} == built
    assert len(built) == 318
    # That of a ResNet-50, 25,557,032, without its head for 1,000 classes.
    assert sum(p.numel() for p in network.parameters()) == 25_557_032 - 2048 * 1000 - 1000
    strides = [m.stride for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert strides.count((2, 2)) == 1 + 3 + 3, "the first, three of 3 x 3, three beside them"
    assert network.layer2[0].conv2.stride == (2, 2)


@pytest.mark.slow
def test_the_file_is_loaded_whole_and_the_network_sees_minus_one_to_one_in_bgr(tmp_path) -> None:
    made = create("features", {"name": "radimagenet", **saved(tmp_path / "r.pt", state())})
    made.fit(noise(2))
    assert float(made.network.bn1.running_var.sum()) == 32
    seen = []
    made.network = lambda x: seen.append(x) or torch.zeros(len(x), 2048)
    red = np.zeros((1, 3, 30, 40), np.uint8)
    red[:, 0] = 255
    assert made(red).shape == (1, 2048)
    grey = noise(1, (1, 224, 224)).all
    made(grey)
    assert seen[0].shape == (1, 3, 224, 224)
    assert seen[0][0, :, 0, 0].tolist() == [-1, -1, 1]
    np.testing.assert_allclose(seen[1][0, 1], (grey[0, 0] - 127.5) * 2 / 255, atol=1e-6)
    with pytest.raises(ConfigError, match="see 1 or 3 channels"):
        made(grey.repeat(2, axis=1))


def change(**changes: torch.Tensor | None) -> State:
    found = state()
    for key, tensor in changes.items():
        name = key.replace("__", ".")
        if tensor is None:
            del found[name]
        else:
            found[name] = tensor
    return found


@pytest.mark.parametrize(
    ("of", "said"),
    [
        (lambda: change(backbone__0__bias=torch.zeros(64)), "1 keys are unknown, 0 are missing"),
        (lambda: change(backbone__7__2__conv3__weight=None), "backbone.7.2.conv3.weight among"),
        (lambda: change(backbone__0__weight=torch.zeros(64, 1, 7, 7)), "1 have other shapes"),
        (lambda: {renamed(k): v for k, v in state().items()}, "318 keys are unknown, 318 are"),
        (lambda: [torch.zeros(2)], "holds no dict of tensors"),
    ],
)
def test_what_is_not_that_network_is_refused(of, said: str) -> None:
    with pytest.raises(DataError, match=said):
        require_keys(of(), TABLE, "x.pt is not it")


def test_it_is_not_opened_unless_its_hash_is_right(monkeypatch, tmp_path: Path) -> None:
    options = saved(tmp_path / "r.pt", {})
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("the file was opened"))
    made = create("features", {"name": "radimagenet", **options, "sha256": "0" * 64})
    with pytest.raises(DataError, match="It was not opened"):
        made.fit(noise(2))
    made = create("features", {"name": "radimagenet", **options, "path": str(tmp_path / "no.pt")})
    with pytest.raises(ConfigError, match="which is not there"):
        made.fit(noise(2))
    with pytest.raises(ConfigError, match="path"):
        create("features", {"name": "radimagenet"})


def test_what_torch_cannot_read_is_said(tmp_path: Path) -> None:
    path = tmp_path / "text.pt"
    path.write_text("no weights")
    made = radimagenet.RadImageNet(str(path), hashlib.sha256(b"no weights").hexdigest())
    with pytest.raises(DataError, match="is no state dict that torch can read"):
        made.fit(noise(2))
