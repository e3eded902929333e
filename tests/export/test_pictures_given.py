"""What ``translate`` and ``inpaint`` are given: which pictures are read, how, and what is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmdiff
from PIL import Image
from ssmdiff import FromImage
from ssmdiff_cli.main import app
from tiny_runs import SMALLEST, tiny_run
from typer.testing import CliRunner

SIDE = 8
QUICK = ["--steps", "2", "--format", "npy"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("runs") / "run", backbone=SMALLEST).folder.path


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "images"
    folder.mkdir()
    for i, name in enumerate("ab"):
        levels = np.random.default_rng(i).integers(0, 200, (SIDE, SIDE), dtype=np.uint8)
        Image.fromarray(levels).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def mask() -> np.ndarray:
    found = np.zeros((SIDE, SIDE), np.uint8)
    found[:3] = 1
    return found


def call(*words: Any) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(*words: Any, code: int = 2) -> str:
    done = call(*words)
    assert done.exit_code == code, done.output
    return " ".join(done.output.split())


def translate(run: Path, images: Any, out: Any, *words: Any) -> Any:
    return call("translate", run, images, "--out", out, "--strength", 0.5, *QUICK, *words)


def made(*words: Any) -> Any:
    done = call(*words)
    assert done.exit_code == 0, done.output
    return done


@pytest.mark.parametrize(
    ("given", "out"),
    [("images", "images/made"), ("images/a.png", "images"), ("samples", "samples")],
)
def test_nothing_is_written_among_what_is_read(run, images, given: str, out: str) -> None:
    """The next run took what was made for further images; ``--overwrite`` removed the given."""
    made("sample", run, "--n", 2, "--steps", 2, "--out", "samples")
    before = {path: path.read_bytes() for path in Path().rglob("*.png")}
    done = translate(run, given, out, "--overwrite")
    assert done.exit_code == 2, done.output
    said = " ".join(done.output.split())
    assert f"--out {out} is where {given} is read from" in said
    assert {path: path.read_bytes() for path in Path().rglob("*.png")} == before


def test_nothing_is_written_among_the_masks(run, images, mask) -> None:
    Image.fromarray(mask).save("mask.png")
    said = refused("inpaint", run, images, "--mask", "mask.png", "--out", ".", *QUICK)
    assert "--out . is where mask.png is read from" in said


def test_of_a_folder_of_samples_the_images_are_taken_and_not_their_grid(run, images) -> None:
    made("sample", run, "--n", 2, "--steps", 2, "--out", "samples")
    for _ in range(2):  # the second finds all there
        done = translate(run, "samples", "out")
        assert done.exit_code == 0, done.output
    record = json.loads(Path("out/samples.json").read_text())
    assert record["names"] == ["000000.npy", "000001.npy"]
    assert sorted(path.name for path in Path("out").glob("*.npy")) == record["names"]


@pytest.mark.parametrize("depth", ["bool", "float32", "int64", "uint16", "png16"])
def test_one_is_not_zero_in_a_mask_of_any_depth(run, images, mask, depth: str) -> None:
    """Of 65,535 levels it was nothing, and floats were asked for a range."""
    if depth == "png16":
        Image.fromarray(mask.astype(np.uint16)).save("mask.png")
        path = Path("mask.png")
    else:
        path = Path("mask.npy")
        np.save(path, mask.astype(depth))
    made("inpaint", run, images, "--mask", path, "--out", "out", "--repeats", 1, *QUICK)
    given = np.asarray(Image.open(images / "a.png"), np.float32) / 255 * 2 - 1
    drawn = np.load("out/a.npy")[0]
    assert (drawn != given)[:3].mean() > 0.9
    np.testing.assert_array_equal(drawn[3:], given.astype(np.float32)[3:])


def test_other_pixels_under_one_name_and_size_are_other_images(run, images, mask) -> None:
    """They were taken for the same, and what was drawn of the old ones stayed."""
    folder = Path("arrays")
    folder.mkdir()
    levels = np.asarray(Image.open(images / "a.png"))
    np.save(folder / "a.npy", levels)
    np.save("mask.npy", mask)
    assert translate(run, folder, "out").exit_code == 0
    words = ["inpaint", run, folder, "--mask", "mask.npy", "--repeats", 1, *QUICK, "--out", "in"]
    made(*words)
    made(*words)
    np.save("mask.npy", mask[::-1])
    assert "drawn with another made_of" in refused(*words)
    np.save(folder / "a.npy", levels[::-1])
    assert "drawn with another made_of" in " ".join(translate(run, folder, "out").output.split())


def test_a_damaged_picture_is_told_before_anything_is_drawn(run, images) -> None:
    (images / "c.png").write_bytes((images / "a.png").read_bytes()[:60])
    for given in (images, images / "c.png"):
        done = translate(run, given, "out", "--batch-size", 1)
        assert done.exit_code == 4
        said = " ".join(done.output.split())
        assert f"{images / 'c.png'}: it is cut short or damaged" in said
        assert not Path("out").exists()
    leave_out = ["on_bad=quarantine", "max_bad_fraction=0.5"]  # as the message says
    sets = [word for one in leave_out for word in ("--set", f"data.dataset.{one}")]
    done = translate(run, images, "out", *sets)
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in Path("out").glob("*.npy")) == ["a.npy", "b.npy"]


def test_how_pictures_are_read_may_be_said(run, images) -> None:
    """Of a run of other data, and of a file, nothing else says it."""
    done = translate(run, images, "out", "--set", "data.dataset.value_range=[0,400]")
    assert done.exit_code == 0, done.output
    given = [np.asarray(Image.open(images / f"{n}.png"), np.float64)[None] for n in "ab"]
    course = FromImage([(x / 400 * 2 - 1).astype(np.float32) for x in given], 0.5)
    expected = ssmdiff.load_run(run).sample(2, steps=2, course=course)
    found = [np.load(f"out/{name}.npy") for name in "ab"]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert json.loads(Path("out/samples.json").read_text())["reading"] == {"value_range": [0, 400]}


@pytest.mark.parametrize(
    ("given", "option", "said"),
    [
        ("images", "labels=folders", "data.dataset.labels: it says nothing of how pictures are"),
        ("images", "value_rang=[0,1]", "did you mean 'value_range'?"),
        ("store", "resize=pad", "--set data.dataset.resize: store is a store, whose images are"),
    ],
)
def test_what_does_not_say_it_is_a_sentence(run, images, given, option: str, said: str) -> None:
    Path("store").mkdir()
    Path("store/store.json").write_text("{}")
    done = translate(run, given, "out", "--set", f"data.dataset.{option}")
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.output.split())
