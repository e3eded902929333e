"""Inception from its file: the hash before anything else, the layer, the range, the resizes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sets import noise
from ssmdiff import ConfigError, DataError, create
from ssmdiff_cli.main import app
from ssmdiff_metrics import inception
from ssmdiff_metrics.inception import SIDE, resized
from typer.testing import CliRunner

LEVELS = noise(3, (1, 20, 24)).all


def network(options: dict[str, str], **more):
    made = create("features", {"name": "inception", **options, **more})
    made.fit(noise(2))
    return made


@pytest.fixture
def never_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_, **__):
        pytest.fail("the file was opened")

    monkeypatch.setattr(torch.jit, "load", load)


@pytest.mark.usefixtures("never_opened")
def test_another_file_is_refused_before_it_is_opened(inception_file) -> None:
    with pytest.raises(DataError, match=r"has the sha256 \w{64}; expected f58cb9b6.* not opened"):
        network({"path": inception_file["path"]})


@pytest.mark.usefixtures("never_opened")
def test_a_file_that_is_not_there_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"which is not there. Fetch it from https://nvlabs"):
        network({"path": str(tmp_path / "nowhere.pt")})


def test_by_default_it_is_looked_for_in_the_cache(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSMDIFF_CACHE", str(tmp_path))
    made = create("features", {"name": "inception"})
    assert made.path == tmp_path / "inception-2015-12-05.pt"
    assert made.sha256 == inception.SHA256


def test_features_are_those_of_its_layers_on_minus_one_to_one(inception_file) -> None:
    found = network(inception_file, resize="torch")(LEVELS)
    assert found.shape == (3, 2048)
    assert found.dtype == np.float32
    layers = torch.jit.load(inception_file["path"]).layers
    x = resized(LEVELS.repeat(3, axis=1), "torch")
    with torch.inference_mode():
        expected = layers((x - 128) / 128).flatten(1).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_grey_image_is_one_of_three_equal_channels(inception_file) -> None:
    made = network(inception_file)
    np.testing.assert_array_equal(made(LEVELS), made(LEVELS.repeat(3, axis=1)))
    with pytest.raises(ConfigError, match="see 1 or 3 channels; the images have 2"):
        made(LEVELS.repeat(2, axis=1))


def test_weights_and_resize_are_in_the_digest(inception_file) -> None:
    made = [network(inception_file, resize=r) for r in ("tf1", "torch", "pil-bicubic")]
    assert len({m.digest() for m in made}) == 3
    other = create("features", {"name": "inception", "resize": "tf1"})
    assert other.digest() not in {m.digest() for m in made}


def scripted(path: Path, module: torch.nn.Module) -> dict[str, str]:
    torch.jit.script(module).save(str(path))
    return {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def test_a_file_of_another_interface_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.pt"
    text.write_text("no network")
    of_text = {"path": str(text), "sha256": hashlib.sha256(b"no network").hexdigest()}
    with pytest.raises(DataError, match="is no TorchScript file"):
        network(of_text)
    with pytest.raises(DataError, match="has no 'layers'"):
        network(scripted(tmp_path / "plain.pt", torch.nn.Flatten()))
    named = torch.nn.Sequential()
    named.add_module("layers", torch.nn.AvgPool2d(SIDE))
    with pytest.raises(DataError, match="gave 3 features an image; expected 2048"):
        network(scripted(tmp_path / "small.pt", named))(LEVELS)


def test_it_is_fetched_whole_or_not_at_all(tmp_path: Path) -> None:
    source = tmp_path / "source.pt"
    source.write_bytes(b"weights")
    target = tmp_path / "cache" / "inception.pt"
    inception.fetch(source.as_uri(), target, hashlib.sha256(b"weights").hexdigest())
    assert target.read_bytes() == b"weights"
    with pytest.raises(DataError, match="It was not opened"):
        inception.fetch(source.as_uri(), target, "0" * 64)
    with pytest.raises(DataError, match="cannot download"):
        inception.fetch((tmp_path / "nothing").as_uri(), target, "0" * 64)
    assert [path.name for path in target.parent.iterdir()] == ["inception.pt"]
    assert target.read_bytes() == b"weights", "what was there before is kept"


def test_plugins_check_takes_the_file_as_an_option(inception_file, tmp_path: Path) -> None:
    sets = [word for item in inception_file.items() for word in ("--set", "=".join(item))]
    result = CliRunner().invoke(app, ["plugins", "check", "inception", "--json", *sets])
    assert result.exit_code == 0, result.output
    findings = json.loads(result.output)[0]["findings"]
    assert {finding["status"] for finding in findings} == {"ok"}
    missing = ["plugins", "check", "inception", "--set", f"path={tmp_path / 'nowhere.pt'}"]
    result = CliRunner().invoke(app, missing)
    assert f"cannot be fitted here: features 'inception' need the file {tmp_path}" in result.output
    assert "7 skipped" in result.output


# The resizes, against others' formulas.

Resampling = Callable[[np.ndarray, int], np.ndarray]


def by_loop(line: np.ndarray, place: Callable[[int, float], float]) -> np.ndarray:
    """Bilinear along one axis: output pixel i looks at ``place(i, scale)``."""
    size, out = len(line), np.empty(SIDE)
    for i in range(SIDE):
        at = min(max(place(i, size / SIDE), 0), size - 1)
        low = int(at)
        high = min(low + 1, size - 1)
        out[i] = line[low] + (line[high] - line[low]) * (at - low)
    return out


@pytest.mark.parametrize("size", [32, 176, 400])
@pytest.mark.parametrize(
    ("method", "place"),
    [("tf1", lambda i, scale: i * scale), ("torch", lambda i, scale: (i + 0.5) * scale - 0.5)],
)
def test_bilinear_looks_where_the_library_does(method, place, size: int) -> None:
    levels = noise(1, (1, size, size + 3)).all
    columns = np.stack([by_loop(line, place) for line in levels[0, 0].astype(float)])
    expected = np.stack([by_loop(line, place) for line in columns.T], axis=1)
    found = resized(levels, method)
    assert found.shape == (1, 1, SIDE, SIDE)
    np.testing.assert_allclose(found[0, 0], expected, atol=0.02)


def test_antialias_is_that_of_pillow_and_nothing_where_an_image_grows() -> None:
    large = noise(1, (1, 500, 640)).all
    with Image.fromarray(large[0, 0].astype(np.float32)) as image:
        expected = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(resized(large, "antialias")[0, 0], expected, atol=0.02)
    smooth, plain = resized(LEVELS, "antialias"), resized(LEVELS, "torch")
    torch.testing.assert_close(smooth, plain, atol=0.001, rtol=0)


@pytest.mark.parametrize("size", [64, 450])
def test_pil_bicubic_is_that_of_torch_with_antialias(size: int) -> None:
    """Torch holds its antialiased bicubic to Pillow's: another implementation of one formula."""
    levels = noise(1, (2, size, size + 9)).all
    x = torch.from_numpy(levels).double()
    way = {"mode": "bicubic", "align_corners": False, "antialias": True}
    expected = torch.nn.functional.interpolate(x, (SIDE, SIDE), **way).clamp(0, 255).float()
    torch.testing.assert_close(resized(levels, "pil-bicubic"), expected, atol=0.02, rtol=0)
