"""The lines that were dropped without a word, as they are shown; and advice that is followed."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import ssmdiff
from PIL import Image
from ssmdiff.errors import ConfigError, DataError
from ssmdiff_cli.main import app
from ssmdiff_train import process
from typer.testing import CliRunner

SMALL = ("--image-size 8 --steps 1 --batch-size 2 --set model.backbone.channels=8 "
         "--set model.backbone.widths=[1] --set train.bound_images=0 --set sample.steps=1 "
         "--set sample.count=1 --set train.callbacks=[]")  # fmt: skip


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ssmdiff_command(text: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, shlex.split(text))
    return result.exit_code, result.output


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[ssmdiff.Config]:
    """The configurations that reach the training process, which trains nothing."""
    found: list[ssmdiff.Config] = []
    monkeypatch.setattr(process, "run_training", lambda *arguments: found.append(arguments[0]))
    return found


def test_a_value_range_beside_data_is_what_the_images_are_read_with(place: Path) -> None:
    """``--data D --set data.dataset.value_range=[0,4095]`` trained on near-black images."""
    (place / "images").mkdir()
    for i in range(4):
        np.save(place / f"images/{i}.npy", np.full((8, 8), 4095 * (i % 2), np.uint16))
    line = f"train --data images --set data.dataset.value_range=[0,4095] {SMALL} --out run"
    assert ssmdiff_command(line)[0] == 0
    written = tomllib.loads((place / "run/config.toml").read_text())
    assert written["data"]["dataset"]["value_range"] == [0.0, 4095.0]
    data = ssmdiff.build_dataset(ssmdiff.load_run(place / "run").config)
    assert [float(data[i].image.mean()) for i in range(4)] == [-1, 1, -1, 1]


@pytest.mark.parametrize("word", ["--scan hilbert --set model.scan.paths=8",
                                  "--set model.scan.paths=8 --set model.scan=hilbert",
                                  "--config paths.toml --scan hilbert"])  # fmt: skip
def test_a_scan_and_its_paths_in_any_two_places(place: Path, asked, word: str) -> None:
    (place / "paths.toml").write_text("[model.scan]\npaths = 8\n")
    assert ssmdiff_command(f"train {word}")[0] == 0
    assert asked[0].model.scan == {"name": "hilbert", "paths": 8, "by_layer": False}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--scan hilbert --set model.scan.nonsense=1", r"model\.scan\.nonsense: unknown key"),
        ("--config own.toml --scan cross", r"scan\.paths: own\.toml sets .*'hilbert', and --scan"),
        ("--steps 3 --set train.steps=4", r"train\.steps is 3 by --steps and 4 by --set"),
        ("--set data.image_size.x=3 --set data.image_size=64", r"image_size\.x = 3, by --set"),
        ("--set seed='3 # the best'", r"seed: got '3 # the best'"),
        ("--set seed='3\ntrain.steps = 5'", r"seed: got '3"),
        ("--set model.scan.paths=8", r"model\.scan is 'regenerate', by default"),
    ],
)  # fmt: skip
def test_what_does_not_arrive_is_refused_with_what_dropped_it(place, asked, line, sentence) -> None:
    (place / "own.toml").write_text('[model.scan]\nname = "hilbert"\npaths = 8\n')
    code, output = ssmdiff_command(f"train {line}")
    assert (code, asked) == (2, [])
    assert re.search(sentence, output), output


def test_none_is_a_default_or_refused() -> None:
    assert ssmdiff.resolve({"train": {"micro_batch_size": None}}).train.micro_batch_size is None
    with pytest.raises(ConfigError, match=r"train\.grad_clip = None, by layer 1.*is 1\.0"):
        ssmdiff.resolve({"train": {"grad_clip": None}})
    assert ssmdiff.resolve({"train": {"grad_clip": 0}}).train.grad_clip == 0


def test_a_text_that_toml_takes_for_a_date_is_a_text() -> None:
    line = ["data.dataset=folder", "data.dataset.path=2024-01-01", "sample.steps=1"]
    assert ssmdiff.resolve_flags(sets=line).data.dataset["path"] == "2024-01-01"


def test_a_component_that_a_command_names_is_not_named_again() -> None:
    code, output = ssmdiff_command("scans show hilbert --ascii --grid 4x4 --set name=raster")
    assert (code, "--set name" in output) == (2, True)
    code, output = ssmdiff_command("plugins check hilbert --set name=raster")
    assert (code, "--set name" in output) == (2, True)


def rgba(folder: Path) -> None:
    for i in range(2):
        Image.new("RGBA", (8, 8), (200, 100, 50, 128)).save(folder / f"{i}.png")


def beyond(folder: Path) -> None:
    for i in range(2):
        np.save(folder / f"{i}.npy", np.full((8, 8), 5000, np.uint16))


def floats(folder: Path) -> None:
    for i in range(2):
        np.save(folder / f"{i}.npy", np.full((8, 8), 0.5, np.float32))


def colours(folder: Path) -> None:
    for i, mode in enumerate(("L", "RGB")):
        Image.new(mode, (8, 8)).save(folder / f"{i}.png")


def loose(folder: Path) -> None:
    (folder / "a").mkdir()
    Image.new("L", (8, 8)).save(folder / "a/0.png")
    Image.new("L", (8, 8)).save(folder / "1.png")


def empty_class(folder: Path) -> None:
    for name in "ab":
        (folder / name).mkdir()
    Image.new("L", (8, 8)).save(folder / "a/0.png")
    (folder / "b/0.png").write_bytes(b"")


def damaged(folder: Path) -> None:
    for i in range(4):
        Image.new("L", (8, 8)).save(folder / f"{i}.png")
    (folder / "3.png").write_bytes(b"no picture")


def large(folder: Path) -> None:
    Image.new("L", (80, 80)).save(folder / "0.png")


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (rgba, []),
        (beyond, ["value_range=[0,4095]"]),
        (floats, []),
        (colours, []),
        (loose, ["labels=folders"]),
        (empty_class, ["labels=folders", "on_bad=quarantine", "max_bad_fraction=0.5"]),
        (damaged, []),
        (large, ["max_pixels=100"]),
    ],
)
def test_advice_on_data_works_when_it_is_followed(
    place: Path, make: Callable[[Path], None], options: list[str]
) -> None:
    """What a refusal says to add to the command is added, and the images are read."""
    (place / "images").mkdir()
    make(place / "images")
    sets = ["data.image_size=8", *(f"data.dataset.{option}" for option in options)]

    def read(more: list[str]) -> None:
        flags = {"--data": ("data.dataset", {"name": "folder", "path": "images"})}
        data = ssmdiff.build_dataset(ssmdiff.resolve_flags(None, None, flags, [*sets, *more]))
        for i in range(len(data)):
            assert data[i].image.isfinite().all()

    with pytest.raises(DataError) as raised:
        read([])
    message = str(raised.value)
    ways = re.findall(r"((?:--set [\w.]+=(?:\[[^]]*\]|[\w.]*\w)\s*)+)", message)
    assert ways, message
    for way in ways:
        read(re.findall(r"--set (\S+)", way))


def test_advice_of_a_scan_on_the_axes_works_when_it_is_followed() -> None:
    with pytest.raises(ConfigError, match="cannot serve a grid of 3 axes") as raised:
        ssmdiff.create("scan", "snake", paths=4).directions(3)
    (advice,) = re.findall(r"--set ([\w.]+=\w+)", str(raised.value))
    chosen = ssmdiff.resolve_flags(sets=["model.scan=snake", "model.scan.paths=4", advice])
    assert ssmdiff.create("scan", chosen.model.scan).directions(3) == 1
