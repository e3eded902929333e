"""The store: what is written comes back, and what was damaged is refused in a sentence."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmdiff
from ssmdiff import ConfigError, DataError
from ssmdiff.testing import check_dataset
from ssmdiff_cli.flags import dataset_table
from ssmdiff_data.store import ArraySpec, Store, StoreWriter, Table
from ssmdiff_data.stored import StoreDataset, levels_of

COUNT = 6
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 1, 8, 10), dtype=np.uint8)
MASKS = np.random.default_rng(1).integers(0, 3, (COUNT, 1, 8, 10), dtype=np.uint8)


def write(folder: Path, images: np.ndarray = IMAGES, **facts: Any) -> Path:
    folder.mkdir(parents=True)
    arrays = {
        "image": ArraySpec(images.shape[1:], images.dtype.name),
        "mask": ArraySpec(MASKS.shape[1:], "uint8", "labels", ("none", "a", "b")),
    }
    writer = StoreWriter(folder, len(images), arrays)
    for part in (slice(0, 2), slice(2, None)):
        writer.append({"image": images[part], "mask": MASKS[part]})
    table = Table(
        ["train", "train", "test", "train", "val", "test"],
        ["g1", "g1", "g2", "g3", "g4", "g2"],
        [0, 1, 0, 1, 0, 1],
        {"low": [0.0] * 6, "high": [4095.0] * 6, "row_mm": [0.5, 1, math.nan, 1, 1, 1]},
    )
    writer.finish(table, ("healthy", "ill"), facts)
    return folder


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    store = Store(write(tmp_path / "store", modality="MR"))
    store.verify()
    np.testing.assert_array_equal(store.array("image"), IMAGES)
    np.testing.assert_array_equal(store.array("mask"), MASKS)
    np.testing.assert_array_equal(np.load(tmp_path / "store" / "image.npy"), IMAGES)
    assert store.arrays["mask"].names == ("none", "a", "b")
    assert store.table.split == ["train", "train", "test", "train", "val", "test"]
    assert store.table.group == ["g1", "g1", "g2", "g3", "g4", "g2"]
    assert math.isnan(store.table.numbers["row_mm"][2])
    assert not store.array("image").flags.writeable


def test_the_digest_is_of_the_content_alone(tmp_path: Path) -> None:
    first, again = (Store(write(tmp_path / name)).digest for name in ("a", "b"))
    other = Store(write(tmp_path / "c", IMAGES ^ 1)).digest
    told = Store(write(tmp_path / "d", modality="MR")).digest
    assert first == again
    assert len({first, other, told}) == 3


def test_items_of_more_axes_and_of_other_types(tmp_path: Path) -> None:
    folder = tmp_path / "volumes"
    folder.mkdir()
    values = np.random.default_rng(2).uniform(-1, 1, (2, 1, 3, 4, 5)).astype(np.float32)
    writer = StoreWriter(folder, 2, {"image": ArraySpec((1, 3, 4, 5), "float32")})
    writer.append({"image": values})
    writer.finish(Table(["train"] * 2, ["a", "b"], [0, 0], {}), (), {})
    data = StoreDataset((3, 4, 5), path=str(folder))
    np.testing.assert_array_equal(data[1].image.numpy(), values[1])
    with pytest.raises(ConfigError, match="--image-size 3x4x5"):
        StoreDataset((4, 4, 4), path=str(folder))


@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        ("image.npy", lambda b: b[:-1], "image.npy has"),
        ("image.npy", lambda b: b + b"0", "image.npy has"),
        ("image.npy", lambda b: b[:20] + b"9" + b[21:], "image.npy has"),
        ("table.json", lambda b: b.replace(b"g3", b"g2"), "table.json is not the one"),
        ("table.json", lambda b: b"{", "table.json is not the one"),
        ("store.json", lambda b: b.replace(b'"count": 6', b'"count": 5'), "was changed"),
        ("store.json", lambda b: b[:50], "no JSON"),
        ("store.json", lambda b: b"[1]", "not that of a store"),
        ("store.json", lambda b: b"[" * 100_000, "no JSON"),
        ("store.json", lambda b: b.replace(b'"format": 1', b'"format": 2'), "has format 2"),
    ],
)
def test_a_damaged_store_is_refused_in_a_sentence(
    tmp_path: Path, file: str, damage: Any, said: str
) -> None:
    path = write(tmp_path / "store") / file
    before = path.read_bytes()
    path.write_bytes(damage(before))
    assert path.read_bytes() != before
    with pytest.raises(DataError, match=said) as caught:
        Store(tmp_path / "store")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["image.npy", "table.json", "store.json"])
def test_a_store_without_one_of_its_files_is_refused(tmp_path: Path, file: str) -> None:
    (write(tmp_path / "store") / file).unlink()
    with pytest.raises(DataError, match=r"cannot be read|has no store\.json"):
        Store(tmp_path / "store")


def test_a_document_that_is_signed_and_wrong_is_refused(tmp_path: Path) -> None:
    """Whoever can hash can sign: names that lead elsewhere, sizes and columns are looked at."""
    import hashlib

    folder = write(tmp_path / "store")
    document = json.loads((folder / "store.json").read_text())
    changes = [
        {"count": 10**12},
        {"count": True},
        {"arrays": {"../image": document["arrays"]["image"]}},
        {"arrays": {}},
        {"arrays": {"image": {"shape": [1], "dtype": "object", "kind": "image", "names": []}}},
        {"classes": ["one"]},
        {"table": None},
    ]
    for change in changes:
        changed = {k: v for k, v in document.items() if k != "digest"} | change
        text = json.dumps(changed, sort_keys=True, separators=(",", ":"))
        changed["digest"] = hashlib.sha256(text.encode()).hexdigest()
        (folder / "store.json").write_text(json.dumps(changed))
        with pytest.raises(DataError, match="damaged"):
            Store(folder)


def test_values_that_were_changed_are_found_when_asked_for(tmp_path: Path) -> None:
    folder = write(tmp_path / "store")
    content = bytearray((folder / "image.npy").read_bytes())
    content[-1] ^= 1
    (folder / "image.npy").write_bytes(content)
    StoreDataset((8, 10), path=str(folder))
    with pytest.raises(DataError, match=r"the values of image\.npy"):
        StoreDataset((8, 10), path=str(folder), verify=True)


def test_the_data_set_gives_levels_labels_groups_and_sides(tmp_path: Path) -> None:
    data = StoreDataset((8, 10), path=str(write(tmp_path / "store")))
    assert len(data) == 3
    own = [0, 1, 3]
    for place, i in enumerate(own):
        expected = IMAGES[i].astype(np.float64) / 255 * 2 - 1
        np.testing.assert_allclose(data[place].image.numpy(), expected, rtol=0, atol=2e-7)
        np.testing.assert_array_equal(levels_of(data[place].image.numpy(), "uint8"), IMAGES[i])
    assert [data[i].label for i in range(3)] == [0, 1, 1]
    assert data.groups == ("g1", "g1", "g3")
    assert data.held_out is not None
    assert data.held_out.groups == ("g2", "g2")
    assert data.held_out.held_out is None
    assert StoreDataset((8, 10), path=str(tmp_path / "store"), held_out="none").held_out is None
    assert data.value_range == (0.0, 4095.0)
    assert data.fingerprint() != data.held_out.fingerprint()
    with pytest.raises(IndexError):
        data[3]


def test_sixteen_bits_are_kept(tmp_path: Path) -> None:
    images = np.arange(COUNT * 80, dtype=np.uint16).reshape(COUNT, 1, 8, 10) * 100
    data = StoreDataset((8, 10), path=str(write(tmp_path / "store", images)))
    np.testing.assert_array_equal(levels_of(data[0].image.numpy(), "uint16"), images[0])


def test_it_is_pickled_by_its_path(tmp_path: Path) -> None:
    data = StoreDataset((8, 10), path=str(write(tmp_path / "store")))
    data[0]
    sent = pickle.dumps(data)
    assert IMAGES.tobytes() not in sent
    assert len(sent) < 2000
    np.testing.assert_array_equal(pickle.loads(sent)[2].image, data[2].image)


def test_what_it_has_not_is_named(tmp_path: Path) -> None:
    path = str(write(tmp_path / "store"))
    with pytest.raises(ConfigError, match=r"no images called 'mask'.*image"):
        StoreDataset((8, 10), path=path, array="mask")
    with pytest.raises(ConfigError, match=r"in the split 'trian'.*train"):
        StoreDataset((8, 10), path=path, split="trian")


def test_it_keeps_the_contract_and_is_what_data_means(tmp_path: Path) -> None:
    path = str(write(tmp_path / "store"))
    check_dataset({"name": "store", "path": path}).raise_for_failures()
    assert dataset_table(path) == {"name": "store", "path": path}
    (tmp_path / "images").mkdir()
    assert dataset_table(str(tmp_path / "images"))["name"] == "folder"


def test_its_summary_says_what_it_holds(tmp_path: Path) -> None:
    data = StoreDataset((16, 20), path=str(write(tmp_path / "store", told={"axis": "axial"})))
    lines = "\n".join(ssmdiff.summary_of(data).lines)
    assert "3 images of the split 'train'" in lines
    assert "test 2 (1 patients)" in lines
    assert "train 3 (2 patients)" in lines
    assert "axis: axial" in lines
    assert "all 8 x 10; each becomes 16 x 20" in lines
    assert "healthy 1, ill 2" in lines
