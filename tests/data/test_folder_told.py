"""Tables, masks and further pictures beside a folder of images: what is told, what is refused."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmdiff
from PIL import Image
from ssmdiff import ConfigError, DataError
from ssmdiff.testing import check_dataset
from ssmdiff_data.folder import FolderDataset

SIZE = (16, 16)
TABLE = """file,age,Sex,Finding Labels,site
a.png,61,F,Mass|Nodule,one
b.png,45.5,M,No Finding,one
c,,F,Nodule,one
sub/d.png,70,M,,one
gone.png,20,F,Mass,one
"""
NAMES = ("a.png", "b.png", "c.png", "sub/d.png")


def picture(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four pictures, a table, masks and a second modality."""
    place = tmp_path / "images"
    for i, name in enumerate(NAMES):
        values = np.random.default_rng(i).integers(0, 256, (16, 16), dtype=np.uint8)
        picture(place / name, values)
        picture(place / "t2" / name, 255 - values)
        mask = np.zeros((16, 16), np.uint8)
        mask[: 4 + i, 2:9] = 200
        mask[10:, 10:] = 7 if i else 0
        picture(tmp_path / "masks" / name, mask)
    (place / "told.csv").write_text(TABLE)
    return place


def built(root: Path, **options: Any) -> Any:
    table = {"name": "folder", "path": str(root), **options}
    return ssmdiff.create("dataset", table, image_size=SIZE)


def by_name(dataset: Any) -> dict[str, ssmdiff.Condition]:
    return {one.name: one for one in dataset.conditions}


def test_a_table_tells_numbers_classes_and_findings(root: Path) -> None:
    data = built(root, table="told.csv", others=["t2=t2"])
    found = by_name(data)
    assert set(found) == {"age", "sex", "finding_labels", "t2", "low"}
    assert (found["age"].kind, found["age"].low, found["age"].high) == ("number", 45.5, 70.0)
    assert found["age"].optional
    assert (found["sex"].kind, found["sex"].names) == ("label", ("F", "M"))
    assert not found["sex"].optional
    assert (found["finding_labels"].kind, found["finding_labels"].names) == (
        "labels",
        ("Mass", "Nodule"),
    )
    told = [data[i].told for i in range(4)]
    assert [one.get("age") for one in told] == [61.0, 45.5, None, 70.0]
    assert "age" not in told[2]
    assert [one["sex"] for one in told] == [0, 1, 0, 1]
    assert [one.get("finding_labels") for one in told] == [(0, 1), (), (1,), None]
    lines = "\n".join(data.summary().lines)
    assert "told: age, a number from 45.5 to 70 (of 1 of 4 images it is not known)" in lines
    assert "told: finding_labels, findings: Mass 1, Nodule 2 (of 1 of 4" in lines
    assert "not told: column 'site' holds one value alone, 'one'" in lines
    (warning,) = [text for text in data.summary().warnings if "rows" in text]
    assert "1 of 5 rows" in warning
    assert "gone.png" in warning


def test_kinds_may_be_given_and_the_range_is_of_the_images_trained_on(root: Path) -> None:
    (root / "held.txt").write_text("sub/d.png\n")
    data = built(
        root, table="told.csv", columns=["age", "Sex:labels"], others=["t2=t2"],
        held_out=str(root / "held.txt"),
    )  # fmt: skip
    found = by_name(data)
    assert set(found) == {"age", "sex", "t2", "low"}
    assert (found["age"].low, found["age"].high) == (45.5, 61.0)
    assert found["sex"].kind == "labels"
    assert data.held_out.conditions == data.conditions
    assert data.held_out[0].told["age"] == 70.0


def test_the_table_of_chestxray14_is_one(root: Path) -> None:
    shutil.rmtree(root / "t2")
    lines = ["Image Index,Finding Labels,Age,OriginalImage[Width,Height],"]
    for name, words, age in zip("abcd", ("A|B", "B", "No Finding", "A"), (1, 2, 3, 4), strict=True):
        lines.append(f"{name}.png,{words},{age},2682,{2749 + age},")
    (root / "told.csv").write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    data = built(root, table="told.csv")
    assert [data[i].told["finding_labels"] for i in range(4)] == [(0, 1), (1,), (), (0,)]
    assert list(by_name(data)) == ["finding_labels", "age", "height", "low"]


def test_the_column_label_is_the_class(root: Path) -> None:
    (root / "told.csv").write_text("name,label\na,3\nb,1\nc,3\nd,2\n")
    data = built(root, table="told.csv", others=["t2=t2"])
    assert data.class_names == ("1", "2", "3")
    assert [data[i].label for i in range(4)] == [2, 0, 2, 1]
    assert ssmdiff.conditions_of(data).names == ["label", "t2", "low"]
    for name in ("x/a.png", "y/b.png"):
        picture(root / "classes" / name, np.zeros((16, 16), np.uint8))
    with pytest.raises(ConfigError, match="one class an image"):
        built(root / "classes", table="../told.csv", labels="folders")


def test_masks_and_further_pictures_are_those_of_the_same_name(root: Path) -> None:
    data = built(root, masks="../masks", others=["t2=t2"])
    assert len(data) == 4  # those of t2 are none of the images
    found = by_name(data)
    assert found["mask"].names == ("0", "7", "200")
    assert (found["t2"].kind, found["t2"].channels) == ("image", 1)
    for i in range(4):
        item = data[i]
        stored = np.asarray(Image.open(root.parent / "masks" / NAMES[i]))
        assert np.array_equal(np.array([0, 7, 200])[item.told["mask"].numpy()], stored)
        np.testing.assert_allclose(item.told["t2"], -item.image, atol=1e-6)
    sent = pickle.loads(pickle.dumps(data))
    assert sent[2].told["mask"].equal(data[2].told["mask"])
    assert root / "t2" in data.summary().folders
    named = built(root, masks="../masks", mask_names=["air", "bone", "brain"], others=["t2=t2"])
    assert by_name(named)["mask"].names == ("air", "bone", "brain")


def test_masks_are_scaled_as_their_images_by_the_nearest(root: Path) -> None:
    shutil.rmtree(root / "t2")
    for name in NAMES:
        values = np.zeros((20, 40), np.uint8)
        values[:, 13:27] = 255
        picture(root / name, values)
        picture(root.parent / "masks" / name, values)
    for resize in ("center", "pad", "stretch"):
        item = built(root, masks="../masks", resize=resize)[0]
        assert set(np.unique(item.told["mask"])) == {0, 1}
        bright = item.image[0] > 0
        assert (bright == item.told["mask"].bool()).float().mean() > 0.93, resize


def test_it_keeps_the_contract(root: Path) -> None:
    table = {
        "name": "folder", "path": str(root), "table": "told.csv", "masks": "../masks",
        "others": ["t2=t2"],
    }  # fmt: skip
    report = check_dataset(table)
    report.raise_for_failures()
    assert "age, sex, finding_labels, mask, t2, low" in str(report)


def test_the_fingerprint_follows_what_is_told(root: Path) -> None:
    shutil.rmtree(root / "t2")
    plain = FolderDataset(SIZE, path=str(root)).fingerprint()
    told = [built(root, table="told.csv").fingerprint()]
    (root / "told.csv").write_text(TABLE.replace("45.5", "44"))
    told.append(built(root, table="told.csv").fingerprint())
    told.append(built(root, masks="../masks").fingerprint())
    assert len({plain, *told}) == 4
    assert FolderDataset(SIZE, path=str(root)).fingerprint() == plain


@pytest.mark.parametrize(
    ("table", "options", "error", "said"),
    [
        (
            "file,age\na,1\nb,2\nc,3\n",
            {},
            DataError,
            r"no row for 1 of 4 images, such as sub/d.png",
        ),
        ("file,age\na,1\na,2\n", {}, DataError, r"line 3: a has a row already, in line 2"),
        ("file,age\na,1\nb,2,3\n", {}, DataError, r"line 3: it has 3 cells; expected 2"),
        ("file,age,age\na,1,1\n", {}, DataError, r"expected different words"),
        ("file\na\n", {}, DataError, r"a column beside their names"),
        ("", {}, DataError, r"has 0 lines"),
        (
            "file,age\na,1\nb,young\nc,3\nd,4\n",
            {"columns": ["age:number"]},
            DataError,
            r"line 3: column 'age' holds 'young'; expected a number, or an empty cell",
        ),
        (
            "file,age\na,1\nb,inf\nc,3\nd,4\n",
            {"columns": ["age:number"]},
            DataError,
            r"holds 'inf'; expected a number",
        ),
        (
            "file,age,sex\na,1,F\nb,2,F\nc,3,F\nd,4,F\n",
            {"columns": ["sex"]},
            ConfigError,
            r"column 'sex' holds one value alone, 'F'",
        ),
        (
            "file,age\na,5\nb,5\nc,5.0\nd,\n",
            {"columns": ["age:number"]},
            ConfigError,
            r"holds one value alone",
        ),
        ("file,age\na,\nb,\nc,\nd,NA\n", {}, ConfigError, r"says nothing of any image"),
        (TABLE, {"columns": ["aeg"]}, ConfigError, r"no column 'aeg'; did you mean 'age'"),
        (TABLE, {"columns": ["age:numer"]}, ConfigError, r"kind 'numer'; did you mean 'number'"),
        (TABLE.replace("Sex", "AGE"), {}, ConfigError, r"2 columns come to the name 'age'"),
        (TABLE.replace("age", "low"), {}, ConfigError, r"two conditions of the name 'low'"),
        (TABLE.replace("age", "label"), {}, DataError, r"'label' says nothing of c\.png"),
    ],
)
def test_tables_that_are_refused(
    root: Path, table: str, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    (root / "told.csv").write_text(table)
    for name in ("a", "b", "c", "sub/d"):
        (root / "t2" / f"{name}.png").unlink()
    with pytest.raises(error, match=said) as caught:
        built(root, table="told.csv", **options)
    assert "\n" not in str(caught.value)


def changed(root: Path, what: str) -> dict[str, Any]:
    """The options that meet what was done to the files."""
    masks = root.parent / "masks"
    if what == "a mask without its image":
        picture(masks / "z.png", np.zeros((16, 16), np.uint8))
    elif what == "an image without its mask":
        (masks / "b.png").unlink()
    elif what == "another size":
        picture(masks / "b.png", np.zeros((16, 17), np.uint8))
    elif what == "in colour":
        picture(masks / "b.png", np.zeros((16, 16, 3), np.uint8))
    elif what == "no labels":
        for i, name in enumerate(NAMES):
            picture(masks / name, np.random.default_rng(i).integers(0, 256, (16, 16), np.uint8))
    elif what == "twice":
        np.save(masks / "a.npy", np.zeros((16, 16), np.uint8))
    elif what == "nothing":
        for name in NAMES:
            picture(masks / name, np.zeros((16, 16), np.uint8))
    elif what == "too few names":
        return {"masks": "../masks", "mask_names": ["air", "bone"], "others": ["t2=t2"]}
    elif what == "names alone":
        return {"mask_names": ["air", "bone"]}
    elif what == "columns alone":
        return {"columns": ["age"]}
    elif what == "no folder":
        return {"masks": "../mask"}
    elif what == "no form":
        return {"others": ["t2"]}
    elif what == "another size of the other":
        picture(root / "t2" / "b.png", np.zeros((17, 16), np.uint8))
        return {"others": ["t2=t2"]}
    elif what == "no table":
        return {"table": "tolt.csv"}
    return {"masks": "../masks", "others": ["t2=t2"]}


@pytest.mark.parametrize(
    ("what", "error", "said"),
    [
        ("a mask without its image", DataError, r"masks: .*z\.png lies beside no image"),
        ("an image without its mask", DataError, r"masks: b\.png has none in "),
        ("another size", DataError, r"b\.png is 16 x 17; expected 16 x 16, as its image is"),
        ("in colour", DataError, r"b\.png is in colour; expected one label a pixel"),
        ("no labels", DataError, r"different values; expected labels of pixels, at most 64"),
        ("twice", DataError, r"holds both a\.(npy|png) and a\.(npy|png)"),
        ("nothing", DataError, r"hold 0 alone"),
        ("too few names", ConfigError, r"2 names for the 3 labels 0, 7, 200"),
        ("names alone", ConfigError, r"give both"),
        ("columns alone", ConfigError, r"are those of data.dataset.table: give both"),
        ("no folder", DataError, r"no folder .*mask"),
        ("no form", ConfigError, r"got 't2'; expected NAME=FOLDER"),
        ("another size of the other", DataError, r"b\.png is 17 x 16; expected 16 x 16"),
        ("no table", DataError, r"tolt\.csv cannot be read \(No such file"),
    ],
)
def test_pictures_beside_that_are_refused(
    root: Path, what: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        built(root, **changed(root, what))
    assert "\n" not in str(caught.value)


def test_a_mask_that_changes_later_is_a_sentence(root: Path) -> None:
    data = built(root, masks="../masks", others=["t2=t2"])
    picture(root.parent / "masks" / "b.png", np.full((16, 16), 9, np.uint8))
    assert data[0].told["mask"].any()
    with pytest.raises(DataError, match="other labels than when it was first read"):
        data[1].told["mask"]


@pytest.mark.slow
def test_a_model_is_told_what_lies_beside_its_images(root: Path, tmp_path: Path) -> None:
    table = {
        "name": "folder", "path": str(root), "table": "told.csv", "masks": "../masks",
        "others": ["t2=t2"], "held_out": str(tmp_path / "held.txt"),
    }  # fmt: skip
    (tmp_path / "held.txt").write_text("b.png\n")
    told = ["age", "finding_labels", "mask", "t2", "low"]
    config = ssmdiff.resolve(
        ssmdiff.load_preset("tiny"),
        {
            "data": {"image_size": 16, "dataset": table, "flip": True},
            "model": {"conditions": told, "backbone": {"channels": 8}, "block": "conv"},
            "train": {
                "steps": 2, "batch_size": 4, "callbacks": [], "sample_every": 0,
                "bound_images": 0, "condition_dropout": 0.0, "held_out_every": 1,
            },
            "sample": {"steps": 2},
        },
    )  # fmt: skip
    ssmdiff.train(config, tmp_path / "run")
    run = ssmdiff.load_run(tmp_path / "run")
    known = {one.name: one for one in run.conditions}
    assert list(known) == told
    assert (known["age"].low, known["age"].high, known["age"].optional) == (61.0, 70.0, True)
    assert known["mask"].names == ("0", "7", "200")
    assert not known["mask"].optional
    images = run.sample(2, told={"age": 65, "finding_labels": [(0,), None]})
    again = run.sample(2, told={"age": 65, "finding_labels": [["Mass"], None]})
    assert images.equal(again)
    data = built(root, **{k: v for k, v in table.items() if k not in ("name", "path")})
    asked = run.sampling(told={"age": 65}).told
    mask = np.asarray(asked["mask"][0])
    assert np.array_equal(mask, data.held_out[0].told["mask"])
    with pytest.raises(ConfigError, match=r"age is 60.*61 to 70"):
        run.sample(1, told={"age": 60})
