"""Patients of a folder, and the images that nothing is trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import ssmdiff
from PIL import Image
from ssmdiff import ConfigError, DataError

PATTERN = r"patient(\d+)"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty patients with three images each; the grey level says which patient and image."""
    root = tmp_path / "images"
    root.mkdir()
    for patient in range(40):
        for image in range(3):
            grey = np.full((8, 8), patient * 4 + image, np.uint8)
            Image.fromarray(grey).save(root / f"patient{patient:03d}_{image}.png")
    return root


def dataset(folder: Path, **options):
    table = {"name": "folder", "path": str(folder), **options}
    return ssmdiff.create("dataset", table, image_size=(8, 8))


def levels(images) -> list[int]:
    """The grey level of each image, as it reaches the network."""
    return [round((float(images[i].image[0, 0, 0]) + 1) * 127.5) for i in range(len(images))]


def test_a_patient_is_on_one_side_alone_and_no_image_is_lost(folder: Path) -> None:
    data = dataset(folder, group=PATTERN, held_out=0.25)
    trained, held = levels(data), levels(data.held_out)
    assert sorted(trained + held) == sorted(levels(dataset(folder)))
    assert {g // 4 for g in trained}.isdisjoint({g // 4 for g in held})
    assert 3 <= len(held) // 3 <= 17  # 10 patients of 40 in expectation
    assert [int(group) for group in data.groups] == [g // 4 for g in trained]
    assert [int(group) for group in data.held_out.groups] == [g // 4 for g in held]
    assert data.held_out.held_out is None


def test_a_patient_stays_on_its_side_when_others_are_added(folder: Path) -> None:
    before = {g // 4 for g in levels(dataset(folder, group=PATTERN, held_out=0.25).held_out)}
    for image in range(3):
        Image.fromarray(np.full((8, 8), 250, np.uint8)).save(folder / f"patient999_{image}.png")
    after = {g // 4 for g in levels(dataset(folder, group=PATTERN, held_out=0.25).held_out)}
    assert before == {patient for patient in after if patient < 40}


def test_a_list_holds_out_what_it_names(folder: Path, tmp_path: Path) -> None:
    listed = tmp_path / "test.txt"
    listed.write_text("".join(f"patient007_{i}.png\n" for i in range(3)))
    data = dataset(folder, group=PATTERN, held_out=str(listed))
    assert levels(data.held_out) == [28, 29, 30]
    assert len(data) == 117


def test_training_without_the_options_is_what_it_was(folder: Path) -> None:
    data = dataset(folder)
    assert data.groups is None
    assert data.held_out is None
    assert len(data) == 120
    assert data.fingerprint() != dataset(folder, held_out=0.5).fingerprint()


def test_the_summary_says_what_is_held_out(folder: Path) -> None:
    data = dataset(folder, group=PATTERN, held_out=0.25)
    expected = f"held out: {len(data.held_out)} images, nothing is trained on them"
    assert expected in data.summary().lines


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"group": "("}, ConfigError, "no regular expression"),
        ({"group": r"case(\d+)"}, DataError, r"case.*not 'patient000_0.png'"),
        ({"held_out": "nowhere.txt"}, DataError, "nowhere.txt cannot be read"),
        ({"held_out": 1e-12}, ConfigError, "0 of 120 images"),
        ({"held_out": 1.5}, ConfigError, "held_out"),
    ],
)
def test_what_cannot_be_held_out_is_refused(folder, options, error, sentence) -> None:
    with pytest.raises(error, match=sentence):
        dataset(folder, **options)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [("patient007_0.png\n", "leaves others to training"), ("other.png\n", "lists 'other.png'")],
)
def test_a_list_that_cuts_a_patient_or_names_no_file_is_refused(
    folder: Path, tmp_path: Path, lines: str, sentence: str
) -> None:
    listed = tmp_path / "test.txt"
    listed.write_text(lines)
    with pytest.raises(DataError, match=sentence):
        dataset(folder, group=PATTERN, held_out=str(listed))


def test_heads_that_are_held_out_are_none_of_those_trained_on() -> None:
    table = {"name": "phantom", "length": 20}
    data = ssmdiff.create("dataset", table, image_size=(8, 8))
    longer = ssmdiff.create("dataset", {"name": "phantom", "length": 40}, image_size=(8, 8))
    for i in range(20):
        image, label, _ = data.held_out[i]
        expected = longer[20 + i]
        assert label == expected.label
        assert (image == expected.image).all()
    assert len(set(data.groups) | set(data.held_out.groups)) == 20 + len(data.held_out)
