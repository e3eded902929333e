"""``ssmdiff translate`` and ``ssmdiff inpaint``: pixels, names, records, what they refuse."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmdiff
import tomli_w
import torch
from PIL import Image
from ssmdiff import Condition, FillIn, FromImage
from ssmdiff_cli.main import app
from tiny_runs import SMALLEST, tiny_run
from typer.testing import CliRunner

SIDE = 8
NAMES = ("a", "b/c", "d")
TOLD = [
    Condition("label", "label", ("t1", "flair"), optional=True),
    Condition("other", "image", optional=True),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One that is told nothing, and one that is told a class and an image."""
    place = tmp_path_factory.mktemp("runs")
    tiny_run(place / "plain", backbone=SMALLEST)
    tiny_run(place / "told", conditions=TOLD, backbone=SMALLEST)
    return {name: place / name for name in ("plain", "told")}


def levels(seed: int, shape: tuple[int, ...] = (SIDE, SIDE)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(folder: Path, images: dict[str, np.ndarray]) -> Path:
    for name, image in images.items():
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write(tmp_path / "images", {name: levels(i) for i, name in enumerate(NAMES)})


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """Half of each image, another half each."""
    halves = {}
    for i, name in enumerate(NAMES):
        halves[name] = np.zeros((SIDE, SIDE), np.uint8)
        halves[name][i : i + 4] = 255 if i else 1  # any number but 0 is drawn
    return write(tmp_path / "masks", halves)


def call(*words: Any) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def known(images: Path) -> np.ndarray:
    """(3, 1, 8, 8), -1 to 1, by hand."""
    stack = [np.asarray(Image.open(images / f"{name}.png"), np.float32) for name in NAMES]
    return (np.stack(stack)[:, None] / 255 * 2 - 1).astype(np.float32)


def drawn(folder: Path, suffix: str) -> np.ndarray:
    if suffix == ".npy":
        return np.stack([np.load(folder / f"{name}.npy") for name in NAMES])
    return np.stack([np.asarray(Image.open(folder / f"{name}.png")) for name in NAMES])[:, None]


# Filling in


@pytest.mark.parametrize("form", ["npy", "png"])
def test_what_is_known_is_kept_to_the_bit(runs, images, masks, tmp_path, form: str) -> None:
    out = tmp_path / "out"
    done = call(
        "inpaint", runs["plain"], images, "--mask", masks, "--out", out, "--format", form,
        "--steps", 4, "--repeats", 2,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    unknown = np.stack([np.asarray(Image.open(masks / f"{n}.png")) for n in NAMES])[:, None] > 0
    found, given = drawn(out, f".{form}"), known(images)
    if form == "png":
        given = np.stack([np.asarray(Image.open(images / f"{n}.png")) for n in NAMES])[:, None]
    np.testing.assert_array_equal(found[~unknown], given[~unknown])
    assert (found[unknown] != given[unknown]).mean() > 0.9
    record = json.loads((out / "samples.json").read_text())
    assert record["names"] == [f"{name}.{form}" for name in NAMES]
    assert record["made_of"]["repeats"] == 2
    if form == "npy":  # the same from Python
        course = FillIn(given, unknown, repeats=2)
        expected = ssmdiff.load_run(runs["plain"]).sample(4, steps=4, course=course)[:3]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_one_mask_for_all_and_one_image(runs, images, masks, tmp_path) -> None:
    out, one = tmp_path / "out", masks / "a.png"
    words = ["--mask", one, "--steps", 2, "--repeats", 1, "--format", "npy"]
    assert call("inpaint", runs["plain"], images, *words, "--out", out).exit_code == 0
    np.testing.assert_array_equal(drawn(out, ".npy")[:, :, 4:], known(images)[:, :, 4:])
    single = tmp_path / "single"
    done = call("inpaint", runs["plain"], images / "d.png", *words, "--out", single)
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in single.iterdir()) == ["d.npy", "grid.png", "samples.json"]
    np.testing.assert_array_equal(np.load(single / "d.npy")[:, 4:], known(images)[2, :, 4:])


def test_larger_images_are_scaled_with_their_masks(runs, tmp_path) -> None:
    """A pixel that a masked one is mixed into is drawn; the others are the scaled image's."""
    images = write(tmp_path / "large", {"a": levels(3, (16, 24))})
    mask = np.zeros((16, 24), np.uint8)
    mask[:, 12:] = 255
    masks = write(tmp_path / "masks", {"a": mask})
    out = tmp_path / "out"
    done = call(
        "inpaint", runs["plain"], images, "--mask", masks, "--out", out, "--steps", 2,
        "--repeats", 1, "--format", "npy",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    table = {"name": "folder", "path": str(images)}
    scaled = ssmdiff.create("dataset", table, image_size=(SIDE, SIDE))[0].image.numpy()
    found = np.load(out / "a.npy")
    same = (found == scaled)[0].all(axis=0)
    assert same[:3].all()
    assert not same[4:].any()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("size", "mask masks/d.png is 4 x 4, and the image d.png is 8 x 8; expected one size"),
        ("black", "of d is 0 everywhere, so there is nothing to fill in"),
        ("white", "of d is nowhere 0, so nothing of the image would be kept"),
        ("gone", "there is no mask for d; expected one of the name of each image"),
        ("nowhere", "--mask nowhere: there is no such file or folder"),
    ],
)
def test_masks_that_will_not_do_are_a_sentence(
    runs, images, masks, tmp_path, monkeypatch, change: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    changed = {
        "size": np.full((4, 4), 255, np.uint8),
        "black": np.zeros((SIDE, SIDE), np.uint8),
        "white": np.full((SIDE, SIDE), 7, np.uint8),
    }
    if change in changed:
        Image.fromarray(changed[change]).save(masks / "d.png")
    elif change == "gone":
        (masks / "d.png").unlink()
    mask = "nowhere" if change == "nowhere" else "masks"
    done = call("inpaint", runs["plain"], "images", "--mask", mask, "--out", "out")
    assert done.exit_code in (2, 4), done.output
    assert said in " ".join(done.output.split())
    assert not (tmp_path / "out").exists()


# Translating


def test_an_image_is_made_of_each_under_its_name(runs, images, tmp_path) -> None:
    out = tmp_path / "out"
    done = call(
        "translate", runs["told"], images, "--out", out, "--steps", 3, "--format", "npy",
        "--label", "flair", "--batch-size", 2,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "images: 3 in" in done.output
    expected = ssmdiff.load_run(runs["told"]).sample(
        3, steps=3, told={"label": "flair", "other": list(known(images))}
    )
    np.testing.assert_allclose(drawn(out, ".npy"), expected, atol=1e-5)
    record = json.loads((out / "samples.json").read_text())
    assert record["names"] == [f"{name}.npy" for name in NAMES]
    assert record["told"]["other"] == record["made_of"]["images"], "by its digest"
    assert len(record["each"]) == 3
    width = Image.open(out / "grid.png").width
    assert width > 2 * 2 * 96, "what was given stands beside what was made"


def test_a_run_reads_pictures_as_its_own_data_was_read(tmp_path) -> None:
    """16 bits in a range of the run's, and padded: as its data set does."""
    run = tiny_run(tmp_path / "run", conditions=TOLD, backbone=SMALLEST)
    config = tomllib.loads((run.folder.path / "config.toml").read_text())
    read = {"resize": "pad", "value_range": [0, 4095], "clip": True}
    config["data"]["dataset"] = {"name": "folder", "path": "x", **read}
    (run.folder.path / "config.toml").write_text(tomli_w.dumps(config))
    deep = tmp_path / "deep"
    deep.mkdir()
    values = np.random.default_rng(0).integers(0, 5000, (SIDE, 4)).astype(np.uint16)
    Image.fromarray(values).save(deep / "a.png")
    done = call("translate", run.folder.path, deep, "--out", tmp_path / "out", "--steps", 2,
                "--format", "npy")  # fmt: skip
    assert done.exit_code == 0, done.output
    other = np.full((1, SIDE, SIDE), -1, np.float32)
    other[0, :, 2:6] = (values / np.float32(4095) * 2 - 1).clip(-1, 1)
    expected = ssmdiff.load_run(run.folder.path).sample(1, steps=2, told={"other": other})
    np.testing.assert_allclose(np.load(tmp_path / "out" / "a.npy"), expected[0], atol=1e-5)
    record = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert record["reading"]["value_range"] == [0, 4095]


def test_strength_begins_at_the_image(runs, images, tmp_path) -> None:
    found = {}
    for strength in (0.1, 1.0):
        out = tmp_path / f"out-{strength}"
        words = ["--strength", strength, "--steps", 10, "--format", "npy"]
        done = call("translate", runs["plain"], images, "--out", out, *words)
        assert done.exit_code == 0, done.output
        found[strength] = drawn(out, ".npy")
        course = FromImage(known(images), strength)
        expected = ssmdiff.load_run(runs["plain"]).sample(4, steps=10, course=course)[:3]
        np.testing.assert_allclose(found[strength], expected, atol=1e-5)
    away = {s: float(np.abs(x - known(images)).mean()) for s, x in found.items()}
    assert away[0.1] < 0.5 * away[1.0]


def test_a_store_is_translated_by_number(runs, images, tmp_path) -> None:
    store = tmp_path / "store"
    prepared = call("data", "prepare", images, "--out", store, "--image-size", SIDE)
    assert prepared.exit_code == 0, prepared.output
    out = tmp_path / "out"
    done = call("translate", runs["told"], store, "--out", out, "--steps", 2, "--format", "npy")
    assert done.exit_code == 0, done.output
    made = sorted(path.name for path in out.glob("*.npy"))
    assert made == [f"{i:06d}.npy" for i in range(len(made))]
    assert made


def two_splits(place: Path) -> tuple[Path, np.ndarray]:
    """A store of two arrays: five images of ``train``, two of ``late``; the levels of ``other``."""
    from ssmdiff_data.store import ArraySpec, StoreWriter, Table

    place.mkdir()
    spec = ArraySpec((1, SIDE, SIDE), "uint8")
    arrays = {name: levels(i, (7, 1, SIDE, SIDE)) for i, name in enumerate(("image", "other"))}
    writer = StoreWriter(place, 7, dict.fromkeys(arrays, spec))
    writer.append(arrays)
    table = Table(["train"] * 5 + ["late"] * 2, list("abcdefg"), [0] * 7, {})
    writer.finish(table, (), {})
    return place, arrays["other"].astype(np.float32) / 255 * 2 - 1


def test_a_split_is_chosen_and_the_array_that_the_model_is_told(runs, tmp_path) -> None:
    """Without a choice those of ``train`` were taken, and the array ``image`` whatever is told."""
    store, other = two_splits(tmp_path / "store")
    run = ssmdiff.load_run(runs["told"])
    for split, own in ([], other[:5]), (["--split", "late"], other[5:]):
        out = tmp_path / f"out{len(own)}"
        words = ["--out", out, "--steps", 2, "--format", "npy", *split]
        done = call("translate", runs["told"], store, *words)
        assert done.exit_code == 0, done.output
        expected = run.sample(len(own), steps=2, told={"other": list(own)})
        found = [np.load(path) for path in sorted(out.glob("*.npy"))]
        np.testing.assert_allclose(found, expected, atol=1e-5)
    again = call("translate", runs["told"], store, "--out", tmp_path / "out5", "--steps", 2,
                 "--format", "npy", "--split", "late")  # fmt: skip
    assert again.exit_code == 2
    assert "drawn with another made_of, told" in " ".join(again.output.split())


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("store", "is in the split 'test'; expected one of late, train"),
        ("images", "--split test: images is no store of ssmdiff data prepare"),
    ],
)
def test_a_split_that_is_not_there_is_a_sentence(
    runs, images, tmp_path, monkeypatch, place: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    two_splits(tmp_path / "store")
    done = call("translate", runs["told"], place, "--out", "out", "--split", "test")
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.output.split())
    assert "data.dataset" not in done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plain", "images"], "is told no image, so there is nothing to translate by"),
        (["told", "nowhere"], "there is no nowhere; expected a picture, or a folder of them"),
        (["plain", "images", "--strength", "1.5"], "strength is 1.5; expected more than 0"),
        (["told", "images", "--label", "t3"], "there is no label 't3'"),
        (["told", "images", "--scheduler", "dimm"], "did you mean 'ddim'?"),
    ],
)
def test_what_cannot_be_translated_is_a_sentence(
    runs, images, tmp_path, monkeypatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call("translate", runs[words[0]], *words[1:], "--out", "out")
    assert done.exit_code in (2, 4), done.output
    assert said in " ".join(done.output.split())
    assert not (tmp_path / "out").exists()


def test_two_images_of_one_name_are_refused(runs, images, tmp_path) -> None:
    Image.fromarray(levels(9)).save(images / "a.tif")
    done = call("translate", runs["told"], images, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "several images named a that differ by their suffix alone" in done.output


def test_a_folder_of_other_settings_is_not_gone_on_with(runs, images, masks, tmp_path) -> None:
    out = tmp_path / "out"
    words = ["inpaint", runs["plain"], images, "--mask", masks, "--out", out, "--steps", 2]
    assert call(*words, "--repeats", 1).exit_code == 0
    first = (out / "b" / "c.png").read_bytes()
    other = call(*words, "--repeats", 2)
    assert other.exit_code == 2
    assert "drawn with another made_of" in " ".join(other.output.split())
    (images / "z.png").write_bytes((images / "a.png").read_bytes())
    more = call("translate", runs["plain"], images, "--out", out, "--strength", 0.5, "--steps", 2)
    assert more.exit_code == 2
    assert (out / "b" / "c.png").read_bytes() == first
    replaced = call(*words[:2], images / "a.png", "--mask", masks / "a.png", *words[5:],
                    "--repeats", 1, "--overwrite")  # fmt: skip
    assert replaced.exit_code == 0, replaced.output
    left = sorted(str(path.relative_to(out)) for path in out.rglob("*.*"))
    assert left == ["a.png", "grid.png", "samples.json"], "images of before are gone"


@pytest.mark.slow
def test_a_killed_command_goes_on(runs, tmp_path) -> None:
    """SIGKILL in the middle; a second run draws the rest, and the bytes are those of one run."""
    many = write(tmp_path / "many", {f"{i}": levels(i) for i in range(24)})
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:3] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    words = [
        "inpaint", runs["plain"], many, "--mask", tmp_path / "mask.png", "--steps", 50,
        "--repeats", 5, "--batch-size", 4,
    ]  # fmt: skip
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert call(*words, "--out", whole).exit_code == 0
    command = [sys.executable, "-m", "ssmdiff", *map(str, words), "--out", str(killed)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    end = time.monotonic() + 120
    while len(list(killed.glob("[0-9]*.png"))) < 8 and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = {path.name: path.stat().st_mtime_ns for path in killed.glob("[0-9]*.png")}
    assert 8 <= len(there) < 24
    done = call(*words, "--out", killed)
    assert done.exit_code == 0, done.output
    for path in whole.glob("[0-9]*.png"):
        assert (killed / path.name).read_bytes() == path.read_bytes(), path.name
    for name, changed in there.items():
        assert (killed / name).stat().st_mtime_ns == changed, "not drawn again"
    assert not list(killed.glob(".tmp-*"))


# Guidance, by the command line


def guided(run: Path, out: Path, *words: Any) -> Any:
    told = [] if "plain" in run.name else ["--tell", f"other={out.parent / 'white.png'}"]
    Image.fromarray(np.full((SIDE, SIDE), 255, np.uint8)).save(out.parent / "white.png")
    return call(
        "sample", run, "--n", 4, "--steps", 4, "--format", "npy", "--out", out, *told, *words
    )


def test_guidance_is_recorded_and_moves_images_and_one_is_none(runs, tmp_path) -> None:
    images = {}
    for scale in ("none", "1", "3"):
        words = [] if scale == "none" else ["--guidance", scale, "--negative", "label=t1"]
        done = guided(runs["told"], tmp_path / scale, "--label", "flair", *words)
        assert done.exit_code == 0, done.output
        images[scale] = np.stack([np.load(tmp_path / scale / f"{i:06d}.npy") for i in range(4)])
    np.testing.assert_array_equal(images["1"], images["none"])
    assert np.abs(images["3"] - images["none"]).mean() > 0.01
    record = json.loads((tmp_path / "3" / "samples.json").read_text())
    assert record["guidance"] == {
        "scale": 3.0, "rescale": 0.0, "interval": [0.0, 1.0], "calls": 1,
        "negative": {"label": [0]},
    }  # fmt: skip
    assert json.loads((tmp_path / "1" / "samples.json").read_text())["guidance"] is None
    other = guided(runs["told"], tmp_path / "3", "--label", "flair")
    assert other.exit_code == 2
    assert "drawn with another guidance" in " ".join(other.output.split())


@pytest.mark.parametrize(
    ("run", "words", "said"),
    [
        ("plain", ["--guidance", "2"], "guidance 2 was asked for, and the model is told nothing"),
        ("told", ["--guidance-rescale", "0.5"], "--guidance-rescale was given without --guidance"),
        ("told", ["--negative", "label=t1"], "--negative was given without --guidance"),
        ("told", ["--guidance", "2", "--guidance-interval", "1"], "expected two shares"),
        ("told", ["--guidance", "2", "--guidance-interval", "0.3:0.4"], "holds none of 4 steps"),
        ("told", ["--guidance", "-1"], "guidance is -1.0; expected 0 or more"),
        ("told", ["--guidance", "2", "--negative", "label=t3"], "there is no label 't3'"),
        ("told", ["--guidance", "2", "--negative", "labl=t1"], "did you mean 'label'?"),
        ("told", ["--guidance", "2", "--negative", "label"], "--negative label: expected NAME="),
    ],
)
def test_guidance_that_cannot_be_is_a_sentence(runs, tmp_path, run, words, said) -> None:
    done = guided(runs[run], tmp_path / "out", *words)
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.output.split())
    assert not (tmp_path / "out").exists()


def test_nothing_that_may_be_left_out_is_a_sentence(tmp_path) -> None:
    run = tiny_run(tmp_path / "run", ("t1", "flair"), backbone=SMALLEST)
    with pytest.raises(ssmdiff.ConfigError, match="nothing that the model is told may be left out"):
        run.sample(2, steps=2, guidance=2.0)
    towards = ssmdiff.Guidance(2.0, negative={"label": "t1"})  # which needs nothing left out
    plain = run.sample(2, steps=2, label="flair")
    assert (run.sample(2, steps=2, label="flair", guidance=towards) - plain).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("label", "negative", "leads"),
    [("t1", {"label": "t1"}, False), ("t1", {"label": 0}, False), (None, {}, False),
     ("t1", {"label": "flair"}, True), (["t1", "flair"], {"label": "t1"}, True)],
)  # fmt: skip
def test_guidance_that_leads_nowhere_is_a_sentence(runs, label, negative, leads: bool) -> None:
    """Towards and away from the same it took twice as long, to the same images."""
    run = ssmdiff.load_run(runs["told"])
    guidance = ssmdiff.Guidance(2.0, negative=negative)
    for other, moves in ((None, leads), (np.zeros((1, SIDE, SIDE), np.float32), True)):
        sampling = run.sampling(steps=2, told={"label": label, "other": other})
        if moves:
            assert run.guided(sampling, guidance).guidance == guidance
            continue
        with pytest.raises(ssmdiff.ConfigError, match="what they are led away from, so nothing"):
            run.guided(sampling, guidance)


@pytest.mark.parametrize("calls", [1, 2])
def test_a_run_is_guided_as_its_two_predictions_say(runs, calls: int) -> None:
    """One step of ddim from x_T to x_0, by hand from the run's network."""
    run = ssmdiff.load_run(runs["told"])
    other = np.zeros((1, SIDE, SIDE), np.float32)
    told = {"label": "flair", "other": other}
    table = {"name": "ddim", "clip_sample": False}
    guidance = ssmdiff.Guidance(3.0, calls=calls)
    found = run.sample(2, steps=1, scheduler=table, told=told, guidance=guidance)
    x = torch.from_numpy(np.stack([ssmdiff.first_noise(0, i, run.shape) for i in range(2)]))
    cond, uncond = (
        run.denoiser()(x, torch.full((2,), 99.0), run.plan().draw(0, 0), *map(torch.from_numpy, t))
        for t in (run.encoded([told] * 2), run.encoded([{}] * 2))
    )
    eps = uncond + 3 * (cond - uncond)
    a = float(np.prod(1 - run.method.diffusion.betas))
    expected = ((x - (1 - a) ** 0.5 * eps) / a**0.5).clip(-1, 1)
    assert run.method.diffusion.prediction == "epsilon"
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-3)
