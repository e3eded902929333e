"""Pictures of a store that are in two splits under two names: counted, named, and kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ssmdiff_data.prepare import prepare
from ssmdiff_data.recipe import make_recipe
from ssmdiff_data.store import Store


def pictures(root: Path, count: int = 6) -> list[np.ndarray]:
    root.mkdir()
    draws = [np.random.default_rng(i) for i in range(count)]
    found = [draw.integers(0, 256, (6, 8)).astype(np.uint8) for draw in draws]
    for i, values in enumerate(found):
        Image.fromarray(values).save(root / f"{i}.png")
    return found


def made(root: Path, out: Path, test: list[str], **options) -> tuple[Store, list[str]]:
    """The store with these files in ``test``, and what was said."""
    said: list[str] = []
    recipe = make_recipe(image_size=[6, 8], lists={"test": tuple(test)}, **options)
    store = prepare(root, out, recipe, say=said.append).store
    return store, [line for line in said if "pixel for pixel" in line]


def test_a_picture_that_is_there_again_in_another_split_is_named(tmp_path: Path) -> None:
    values = pictures(tmp_path / "in")
    Image.fromarray(values[1]).save(tmp_path / "in" / "again.tif")  # packed otherwise
    Image.fromarray(values[4]).save(tmp_path / "in" / "also.png")  # in the same split as 4.png
    store, (line,) = made(tmp_path / "in", tmp_path / "out", ["again.tif", "2.png"])
    assert line.startswith(
        "warning: 1 picture is in two splits, pixel for pixel: 1.png in train and again.tif in "
        "test. "
    )
    assert store.fact("told")["copies"] == "1 picture is in two splits, pixel for pixel"
    assert store.count == 8, "nothing is left out"
    assert "again" not in (tmp_path / "out" / "store.json").read_text()
    # The same by brute force over what the store holds.
    rows, splits = store.array("image"), store.table.split
    same = [
        (i, j)
        for i in range(8)
        for j in range(i)
        if splits[i] != splits[j] and np.array_equal(rows[i], rows[j])
    ]
    assert len(same) == 1


def test_copies_within_one_split_or_of_one_patient_are_no_leak(tmp_path: Path) -> None:
    values = pictures(tmp_path / "in")
    Image.fromarray(values[1]).save(tmp_path / "in" / "1-again.png")
    store, said = made(tmp_path / "in", tmp_path / "out", ["1.png", "1-again.png"])
    assert said == []
    assert "copies" not in store.fact("told")
    _, said = made(tmp_path / "in", tmp_path / "by", ["1.png", "1-again.png"], group=r"(\d)")
    assert said == []


@pytest.mark.parametrize("grey", [0, 255])
def test_flat_pictures_are_alike_and_no_copies(tmp_path: Path, grey: int) -> None:
    pictures(tmp_path / "in")
    for name in ("a", "b"):
        Image.fromarray(np.full((6, 8), grey, np.uint8)).save(tmp_path / "in" / f"{name}.png")
    _, said = made(tmp_path / "in", tmp_path / "out", ["a.png", "2.png"])
    assert said == []


def test_many_pairs_are_counted_and_a_few_are_named(tmp_path: Path) -> None:
    values = pictures(tmp_path / "in")
    for i, one in enumerate(values):
        Image.fromarray(one).save(tmp_path / "in" / f"copy-{i}.png")
    _, (line,) = made(tmp_path / "in", tmp_path / "out", [f"copy-{i}.png" for i in range(6)])
    assert "6 pictures are in two splits" in line
    assert line.count(" and copy-") == 3
    assert ", and 3 more pairs. " in line
