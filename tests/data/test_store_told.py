"""What stores tell: masks, further arrays and columns, of stores of today and of yesterday."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmdiff
from PIL import Image
from ssmdiff import ConfigError, DataError
from ssmdiff.testing import check_dataset
from ssmdiff_cli.main import app
from ssmdiff_data.prepare import prepare
from ssmdiff_data.recipe import make_recipe
from ssmdiff_data.store import ArraySpec, StoreWriter, Table
from ssmdiff_data.stored import StoreDataset
from typer.testing import CliRunner

COUNT, SIZE = 6, (16, 16)
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (COUNT, 1, *SIZE), dtype=np.uint8)
MASKS = np.kron(RNG.integers(0, 3, (COUNT, 1, 4, 4)), np.ones((4, 4))).astype(np.uint8)
NUMBERS: dict[str, list[float]] = {
    "low": [0.0] * 6,
    "high": [100.0, 120, 130, 140, 150, 160],
    "high_t1": [1.0, 2, 3, 4, 5, 6],
    "position": [0.1, 0.2, 0.3, 0.4, 0.5, 0.9],
    "row_mm": [0.5, 1, 1, 1, 1, 1],
    "between_mm": [3.0] * 6,
    "age_years": [40.0, math.nan, 70, 60, 50, 99],
    "has_mass": [0.0, 1, 0, 0, 1, 1],
    "has_nodule": [0.0, 1, 1, 0, 0, 1],
}
COLUMNS = {
    "findings": {
        "kind": "labels", "names": ["mass", "nodule"], "columns": ["has_mass", "has_nodule"]
    }
}  # fmt: skip


def written(folder: Path, names: tuple[str, ...] = ("none", "a", "b"), **facts: Any) -> str:
    folder.mkdir(parents=True)
    arrays = {
        "image": ArraySpec((1, *SIZE), "uint8"),
        "mask": ArraySpec((1, *SIZE), "uint8", "labels", names),
        "t1": ArraySpec((1, *SIZE), "uint8"),
    }
    writer = StoreWriter(folder, COUNT, arrays)
    writer.append({"image": IMAGES, "mask": MASKS, "t1": 255 - IMAGES})
    splits = ["train"] * 5 + ["test"]
    table = Table(splits, list("abcdef"), [0, 1, 0, 1, 0, 1], NUMBERS)
    writer.finish(table, ("healthy", "ill"), facts)
    return str(folder)


def test_arrays_and_columns_are_told_with_the_ranges_of_training(tmp_path: Path) -> None:
    path = written(tmp_path / "store", columns=COLUMNS)
    data = StoreDataset(SIZE, path=path)
    found = {one.name: one for one in data.conditions}
    assert list(found) == ["findings", "age_years", "position", "row_mm", "mask", "t1", "low"]
    assert (found["position"].low, found["position"].high) == (0.1, 0.5)
    age = found["age_years"]
    assert (age.low, age.high, age.unit, age.optional) == (40.0, 70.0, "years", True)
    assert found["row_mm"].moved_by == ("zoom",)
    assert found["findings"].names == ("mass", "nodule")
    assert found["mask"].names == ("none", "a", "b")
    assert found["low"].channels == 1
    told = [data[i].told for i in range(5)]
    assert [one["findings"] for one in told] == [(), (0, 1), (1,), (), (0,)]
    assert "age_years" not in told[1]
    for i in range(5):
        assert np.array_equal(told[i]["mask"], MASKS[i, 0])
        np.testing.assert_allclose(told[i]["t1"], -data[i].image, atol=1e-6)
    out = data.held_out
    assert out is not None
    assert out.conditions == data.conditions
    assert out[0].told["age_years"] == 99.0
    sent = pickle.loads(pickle.dumps(data))
    assert sent.conditions == data.conditions
    assert sent[4].told["findings"] == (0,)
    lines = data.summary().lines
    assert "told: findings, findings: mass 2, nodule 2" in lines
    assert "told: mask, a mask: none, a, b" in lines
    check_dataset({"name": "store", "path": path}).raise_for_failures()


def test_another_array_is_the_image_and_images_of_another_size_are_scaled(tmp_path: Path) -> None:
    path = written(tmp_path / "store")
    data = StoreDataset((8, 8), path=path, array="t1")
    found = {one.name: one for one in data.conditions}
    assert "image" in found
    assert "has_mass" in found  # of a store that does not say what it is
    told = data[1].told
    assert told["mask"].shape == (8, 8)
    assert np.array_equal(told["mask"], MASKS[1, 0, ::2, ::2])  # blocks of four stay whole
    assert told["image"].shape == (1, 8, 8)
    assert told["row_mm"] == 2.0  # a pixel is twice as wide
    assert (found["row_mm"].low, found["row_mm"].high) == (1.0, 2.0)


def test_a_store_that_does_not_name_its_labels_is_read_for_them(tmp_path: Path) -> None:
    data = StoreDataset(SIZE, path=written(tmp_path / "store", names=()))
    assert {one.name: one for one in data.conditions}["mask"].names == ("0", "1", "2")


@pytest.mark.parametrize(
    "meant",
    [
        {"kind": "labels", "names": ["mass"]},
        {"kind": "labels", "names": ["mass"], "columns": ["has_masses"]},
        {"kind": "number", "names": [], "columns": 3},
        {"kind": "number", "names": [], "columns": ["has_mass"]},
        {"kind": "label", "names": ["no", "yes"], "columns": []},
        {"kind": "labels", "names": [], "columns": ["has_mass"]},
        7,
    ],
)
def test_columns_that_cannot_be_are_one_sentence(tmp_path: Path, meant: Any) -> None:
    data = StoreDataset(SIZE, path=written(tmp_path / "store", columns={"findings": meant}))
    with pytest.raises(DataError, match=r"says of its columns 'findings' what cannot be.*anew"):
        data.conditions


def files(root: Path) -> Path:
    """Twelve pictures with their masks and a table."""
    root.mkdir()
    rows = ["file,label,age,sex,findings,site"]
    for i in range(12):
        values = np.random.default_rng(i).integers(0, 256, SIZE, dtype=np.uint8)
        Image.fromarray(values).save(root / f"p{i:02d}.png")
        Image.fromarray((values > 128).astype(np.uint8)).save(root / f"p{i:02d}_seg.png")
        findings = ("", "mass|nodule", "nodule", "No Finding")[i % 4]
        rows.append(
            f"p{i:02d},{'ill' if i % 2 else 'well'},{30 + i},{'FM'[i % 3 == 0]},{findings},x"
        )
    (root.parent / "told.csv").write_text("\n".join(rows))
    return root


def recipe(root: Path, **options: Any) -> Any:
    table = str(root.parent / "told.csv")
    return make_recipe(image_size=16, mask="_seg", group=r"p(\d+)", table=table, **options)


def test_a_table_beside_files_goes_into_the_store(tmp_path: Path) -> None:
    root, out = files(tmp_path / "in"), tmp_path / "out"
    made = prepare(root, out, recipe(root, columns="label,age,sex,findings"))
    data = StoreDataset(SIZE, path=str(out))
    found = {one.name: one for one in data.conditions}
    assert data.class_names == ("ill", "well")
    assert {"age", "sex", "findings", "mask", "low"} <= set(found)
    assert found["sex"].names == ("F", "M")
    assert found["findings"].names == ("mass", "nodule")
    assert found["mask"].names == ("0", "1")
    own = [i for i, split in enumerate(made.store.table.split) if split == "train"]
    assert len(own) == 11
    for item, i in zip(data, own, strict=False):
        assert item.told["age"] == 30 + i
        assert found["sex"].names[item.told["sex"]] == "FM"[i % 3 == 0]
        assert item.told.get("findings") == (None, (0, 1), (1,), ())[i % 4]
        assert data.class_names[item.label] == ("ill" if i % 2 else "well")
        assert np.array_equal(item.told["mask"], item.image[0] > 2 * 128.5 / 255 - 1)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"columns": "age,aeg"}, ConfigError, "--columns: the table has no column 'aeg'"),
        ({"columns": "site:label"}, ConfigError, "--columns: column 'site' holds one value alone"),
        ({}, ConfigError, "--table and --columns go together"),
        ({"columns": "label", "labels": "folders"}, DataError, "lies in no folder"),
        ({"columns": "position"}, ConfigError, "a column of every store"),
    ],
)
def test_columns_that_are_refused(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    root = files(tmp_path / "in")
    if options.get("columns") == "position":
        table = tmp_path / "told.csv"
        table.write_text(table.read_text().replace("age", "position"))
    with pytest.raises(error, match=said):
        prepare(root, tmp_path / "out", recipe(root, **options))


def test_the_command_takes_a_table(tmp_path: Path) -> None:
    root = files(tmp_path / "in")
    arguments = ["data", "prepare", root, "--out", tmp_path / "out", "--image-size", 16]
    arguments += ["--mask", "_seg", "--table", tmp_path / "told.csv", "--columns", "age,sex:label"]
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    found = ssmdiff.conditions_of(StoreDataset(SIZE, path=str(tmp_path / "out"))).names
    assert found == ["sex", "age", "mask", "low"]
