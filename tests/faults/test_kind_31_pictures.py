"""Pictures say what they show: every direction of a scan, the class, the step, what is real.

In the gallery six scans were one panel, and ``regenerate`` was ``shuffle``.
"""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest
import ssmdiff
import torch
from PIL import Image
from ssmdiff.registry.registry import Registry
from ssmdiff.runs.letters import HEIGHT, lines
from ssmdiff.runs.pictures import EDGE, GAP, WORDS, to_uint8, write_grid
from ssmdiff_cli.main import app
from ssmdiff_train.reports import real_images
from ssmdiff_train.telling import Telling
from tiny_runs import tiny_run
from typer.testing import CliRunner

SCRIPT = Path(__file__).parents[2] / "docs" / "make_scans.py"
SIDE = 96  # of an image that is not enlarged


@pytest.mark.needs_plugin("ssmdiff_scans")
def test_no_two_scans_of_the_gallery_are_drawn_alike(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("make_scans", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    drawn = {}

    def draw(blocks, path, **layout):
        drawn.update(blocks)
        Image.new("RGB", (8, 8)).save(path)

    monkeypatch.setattr(script, "draw_blocks", draw)
    script.gallery(Registry(allowed=[]), tmp_path / "gallery.png")
    tables = {
        title: tuple(panel.order.inverse[panel.direction].tobytes() for panel in panels)
        for title, panels in drawn.items()
    }
    assert len(set(tables.values())) == len(tables)
    assert {"cross, 4 directions", "regenerate, 4 directions", "shuffle", "sweep8, 8 layers",
            "bidirectional, 2 directions"} <= tables.keys()  # fmt: skip
    for title, panels in tables.items():
        assert len(set(panels)) == len(panels), title
        assert len(panels) == int(title.partition(", ")[2].partition(" ")[0] or 1)


def images(count, channels=1):
    values = np.random.default_rng(0).uniform(-1, 1, (count, channels, SIDE, SIDE))
    return torch.from_numpy(values.astype(np.float32))


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def has_words(strip):
    """Bright letters on black, more than nothing and less than a bar."""
    return strip.max() > 150 and 0.01 < (strip > 100).mean() < 0.5


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_has_a_title_a_word_over_each_image_and_the_images_unchanged(tmp_path, channels):
    drawn = images(5, channels)
    write_grid(tmp_path / "a.png", drawn, [f"class {i}" for i in range(5)], "step 1000")
    sheet = read(tmp_path / "a.png")
    assert has_words(sheet[:WORDS, :80])
    strips = []
    for i in range(5):
        top = WORDS + GAP + i // 3 * (SIDE + GAP + WORDS)
        left = GAP + i % 3 * (SIDE + GAP)
        strips.append(sheet[top : top + WORDS, left : left + SIDE])
        assert has_words(strips[-1][:, :50])
        place = sheet[top + WORDS : top + WORDS + SIDE, left : left + SIDE]
        np.testing.assert_array_equal(place, to_uint8(drawn[i]))
    assert len({strip.tobytes() for strip in strips}) == 5


def test_every_letter_is_another_and_what_is_none_is_told():
    letters = {chr(code): line(chr(code)).tobytes() for code in range(33, 127)}
    alike = {"".join(a) for a in itertools.combinations(letters, 2)
             if letters[a[0]] == letters[a[1]]}  # fmt: skip
    assert alike == {"[{", "]}"}
    np.testing.assert_array_equal(line("é"), line("e"))
    np.testing.assert_array_equal(line("頭"), line("?"))
    assert line("a b").shape[1] > line("ab").shape[1]
    assert line("").shape == (HEIGHT, 0)
    widest = (max(one.shape[1] for one in lines("w" * 40, width)) - width for width in range(100))
    assert max(widest) == 0


def line(text):
    (found,) = lines(text, 1000)
    return found


def test_a_long_text_is_broken_and_whole():
    """After a comma; then after a space or a plus sign; within a word where nothing else helps."""
    text = "a, no mass, effusion+cardiomegaly, angle 12.34, anextremelylongnamewithoutaspace"
    room = line("cardiomegaly,").shape[1]
    whole = ["a, no mass,", "effusion+", "cardiomegaly,", "angle 12.34,"]
    found = lines(text, room)
    for one, expected in zip(found, whole, strict=False):
        np.testing.assert_array_equal(one, line(expected))
    rest = np.concatenate(found[len(whole) :], axis=1)
    np.testing.assert_array_equal(rest, line("anextremelylongnamewithoutaspace"))


def test_long_words_stay_over_their_image_whole_and_apart(tmp_path):
    """Two classes that differ at their ends alone; both were cut to the same letters."""
    long = "pneumonia of the lower lobe, findings nodule+effusion, side "
    write_grid(tmp_path / "a.png", images(4), [f"{long}left", f"{long}right", "b", ""])
    sheet = read(tmp_path / "a.png")
    deep = WORDS * len(lines(f"{long}right", SIDE))
    first, second = (sheet[GAP : GAP + deep, x : x + SIDE] for x in (GAP, 2 * GAP + SIDE))
    assert deep >= 3 * WORDS
    assert has_words(first)
    assert (first != second).any()
    np.testing.assert_array_equal(first[: 2 * WORDS], second[: 2 * WORDS])
    assert sheet[GAP : GAP + deep, GAP + SIDE : 2 * GAP + SIDE].max() == 0, "none beside its image"
    below = sheet[2 * GAP + deep + SIDE :, GAP : GAP + SIDE]
    assert below[: deep - WORDS].max() == 0, "a short one stands right over its image"
    assert has_words(below[deep - WORDS : deep, :20])
    np.testing.assert_array_equal(below[deep : deep + SIDE], to_uint8(images(4)[2]))


def test_words_over_narrow_images_have_room(tmp_path):
    tall = torch.zeros(2, 1, 120, 8)
    write_grid(tmp_path / "a.png", tall, ["healthy", "lesion"])
    sheet = read(tmp_path / "a.png")
    assert sheet.shape == (120 + WORDS + 2 * GAP, 2 * (SIDE + GAP) + GAP)
    assert has_words(sheet[GAP : GAP + WORDS, GAP : GAP + 50])


def test_real_images_stand_beside_those_that_were_drawn(tmp_path):
    drawn, real = images(2), images(6)[2:]
    write_grid(tmp_path / "a.png", drawn, title="step 7", real=real, real_captions=list("abcd"))
    sheet = read(tmp_path / "a.png")
    left = 2 * SIDE + 3 * GAP + EDGE
    assert has_words(sheet[:WORDS, left : left + 40])
    first = sheet[2 * WORDS + GAP :, left + GAP :][:SIDE, :SIDE]
    np.testing.assert_array_equal(first, to_uint8(real[0]))
    np.testing.assert_array_equal(sheet[WORDS + GAP :, GAP:][:SIDE, :SIDE], to_uint8(drawn[0]))


def test_the_grid_of_samples_carries_the_classes(tmp_path):
    tiny_run(tmp_path / "run", ("disc", "ring"))
    for label, out in (([], "turns"), (["--label", "disc"], "discs")):
        done = CliRunner().invoke(
            app, ["sample", str(tmp_path / "run"), "--n", "2", "--steps", "2", *label,
                  "--out", str(tmp_path / out)],
        )  # fmt: skip
        assert done.exit_code == 0, done.output
    turns, discs = (read(tmp_path / out / "grid.png") for out in ("turns", "discs"))
    width = turns.shape[1] // 2
    top = WORDS + GAP * SIDE // 8  # of images that are enlarged, with the gaps between them
    words = [sheet[top : top + WORDS] for sheet in (turns, discs)]
    np.testing.assert_array_equal(words[0][:, :width], words[1][:, :width])
    assert (words[0][:, width:] != words[1][:, width:]).any()


def test_the_real_images_beside_a_grid_are_from_all_over_the_data():
    class TwoFolders:
        class_names = ("disc", "ring")

        def __len__(self):
            return 10

        def __getitem__(self, i):
            return ssmdiff.ImageItem(torch.full((1, 8, 8), i / 10), int(i >= 5))

    config = ssmdiff.resolve({"sample": {"count": 4}, "model": {"class_conditional": True}})
    images, names = real_images(config, TwoFolders(), Telling.of(config, TwoFolders()))
    assert images[:, 0, 0, 0].tolist() == pytest.approx([0, 0.2, 0.5, 0.7])
    assert names == ["disc", "disc", "ring", "ring"]
    config = ssmdiff.resolve({"sample": {"count": 16}})
    images, names = real_images(config, TwoFolders(), Telling())
    assert len(images) == 10
    assert names == []
