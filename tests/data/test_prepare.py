"""``ssmdiff data prepare``: what becomes of values, slices and patients, against plain numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ssmdiff import ConfigError, DataError
from ssmdiff_cli.main import app
from ssmdiff_data.prepare import Prepared, prepare
from ssmdiff_data.recipe import Recipe, make_recipe
from ssmdiff_data.store import Store
from ssmdiff_data.stored import StoreDataset
from typer.testing import CliRunner
from volumes import PLUGIN, patients, write

VALUES = np.random.default_rng(0).normal(1000, 200, (5, 6, 8))


@pytest.fixture(autouse=True)
def reader(install) -> None:
    from ssmdiff.registry.registry import registry

    install("ssmdiff-vol", PLUGIN)
    registry.cache_clear()
    yield
    registry.cache_clear()


def made(root: Path, out: Path, **options) -> Prepared:
    size = options.pop("image_size", [6, 8])
    work = {key: options.pop(key) for key in ("salt_file", "workers") if key in options}
    return prepare(root, out, make_recipe(image_size=size, **options), **work)


def images(store: Store) -> np.ndarray:
    """(N, H, W) in -1 to 1."""
    white = np.iinfo(store.arrays["image"].dtype).max
    return store.array("image")[:, 0].astype(np.float64) / white * 2 - 1


def unit(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((values - low) / (high - low), 0, 1) * 2 - 1


def test_values_are_those_of_the_whole_volume_and_map_back(tmp_path: Path) -> None:
    values = VALUES + 500 * np.arange(5)[:, None, None]  # slices differ in brightness
    write(tmp_path / "in" / "a.vol", values.astype(np.float32), units="HU2", modality="MR")
    store = made(tmp_path / "in", tmp_path / "out", values="percentile:1,99").store
    low, high = np.percentile(values.astype(np.float32), [1, 99])
    np.testing.assert_allclose(images(store), unit(values, low, high), atol=1.1 / 65535)
    numbers = store.table.numbers
    assert set(numbers["low"]) == {low}
    assert set(numbers["high"]) == {high}
    back = (images(store) + 1) / 2 * (high - low) + low
    np.testing.assert_allclose(back, values.clip(low, high), atol=(high - low) / 65535)
    assert store.fact_text("units") == "HU2"


@pytest.mark.parametrize(
    ("rule", "low", "high"),
    [("window:1000,400", 800, 1200), ("range:500,1500", 500, 1500)],
)
def test_a_window_and_a_range_are_what_they_say(
    tmp_path: Path, rule: str, low: float, high: float
) -> None:
    write(tmp_path / "in" / "a.vol", VALUES)
    store = made(tmp_path / "in", tmp_path / "out", values=rule).store
    np.testing.assert_allclose(images(store), unit(VALUES, low, high), atol=2e-5)
    assert StoreDataset((6, 8), path=str(tmp_path / "out")).value_range == (low, high)


def test_without_a_rule_a_file_says_its_own(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.vol", VALUES, value_range=[0, 2000], depth="uint8")
    said: list[str] = []
    store = prepare(
        tmp_path / "in", tmp_path / "out", Recipe(image_size=(6, 8)), say=said.append
    ).store
    assert store.arrays["image"].dtype == "uint8"
    np.testing.assert_allclose(images(store), unit(VALUES, 0, 2000), atol=1.01 / 255)
    assert "values: range:0,2000 by the files' type" in said


def marked() -> np.ndarray:
    """One bright voxel at z 4 of 5 (towards the head), y 1 of 6 (front), x 2 of 8 (right)."""
    values = np.zeros((5, 6, 8))
    values[4, 1, 2] = 100
    return values


@pytest.mark.parametrize(
    ("axis", "size", "slice_", "place"),
    [
        ("axial", (6, 8), 4, (1, 2)),
        ("coronal", (5, 8), 1, (0, 2)),  # the head is up
        ("sagittal", (5, 6), 2, (0, 1)),
    ],
)
def test_a_marker_is_where_a_radiologist_looks_for_it(
    tmp_path: Path, axis: str, size: tuple[int, int], slice_: int, place: tuple[int, int]
) -> None:
    write(tmp_path / "in" / "a.vol", marked())
    store = made(
        tmp_path / "in", tmp_path / "out", axis=axis, values="range:0,100", image_size=size
    ).store
    found = images(store)
    assert np.argwhere(found > 0).tolist() == [[slice_, *place]]
    assert found.shape[1:] == size


def test_pixels_become_square_and_their_sides_are_known(tmp_path: Path) -> None:
    values = np.zeros((4, 10, 20))
    values[:, 3:7, 5:15] = 100
    write(tmp_path / "in" / "a.vol", values, spacing=[3.0, 2.0, 1.0])
    store = made(tmp_path / "in", tmp_path / "out", image_size=[40, 40], values="range:0,100").store
    found = images(store)
    # 20 mm x 20 mm: twice as many rows, then each pixel is half a millimetre.
    assert set(store.table.numbers["row_mm"]) == set(store.table.numbers["column_mm"]) == {0.5}
    assert set(store.table.numbers["between_mm"]) == {3.0}
    rows, columns = (np.flatnonzero((found[0] > 0).any(axis)) for axis in (1, 0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (12, 27, 10, 29)


def test_slices_are_kept_by_content_by_position_and_by_label(tmp_path: Path) -> None:
    values = np.zeros((5, 6, 8))
    for z, share in enumerate((0, 3, 12, 24, 48)):
        values[z].flat[:share] = 100
    mask = np.zeros((5, 6, 8))
    mask[1, 0, 0], mask[3, 2, 3] = 1, 2
    root = tmp_path / "in"
    write(root / "a.vol", values)
    write(root / "a_seg.vol", mask)

    def kept(slices: str) -> list[float]:
        out = tmp_path / slices.replace(":", "-")
        store = made(root, out, slices=slices, mask="_seg", values="range:0,100").store
        assert store.arrays["mask"].kind == "labels"
        wanted = [int(p * 5) for p in store.table.numbers["position"]]
        np.testing.assert_array_equal(store.array("mask")[:, 0], mask[wanted])
        return wanted

    assert kept("all") == [0, 1, 2, 3, 4]
    assert kept("content:0.25") == [2, 3, 4]
    assert kept("position:0.2,0.8") == [1, 2, 3]
    assert kept("label") == [1, 3]
    assert kept("label:2") == [3]
    with pytest.raises(DataError, match=r"no slice is left of 5"):
        made(root, tmp_path / "none", slices="label:7", mask="_seg", values="range:0,100")
    with pytest.raises(DataError, match=r"a_seg\.vol|a\.vol.*no mask"):
        made(root, tmp_path / "none", slices="label", values="range:0,100")


def test_pictures_frames_and_colours(tmp_path: Path) -> None:
    root = tmp_path / "in"
    write(root / "cine.vol", np.stack([VALUES, VALUES + 100]), axes="tzyx")
    assert made(root, tmp_path / "cine").store.count == 10
    other = tmp_path / "rgb"
    write(
        other / "a.vol",
        np.random.default_rng(0).uniform(0, 255, (6, 8, 3)),
        axes="yxc",
        value_range=[0, 255],
    )
    store = made(other, tmp_path / "colour").store
    assert store.arrays["image"].shape == (3, 6, 8)
    assert made(other, tmp_path / "grey", channels=1).store.arrays["image"].shape == (1, 6, 8)


def test_patients_are_kept_apart_and_their_names_are_not(tmp_path: Path) -> None:
    root = patients(tmp_path / "in", 12)
    said: list[str] = []
    recipe = make_recipe(image_size=[6, 8], shares="val=0.25,test=0.25")
    store = prepare(root, tmp_path / "out", recipe, say=said.append).store
    sides: dict[str, set[str]] = {}
    for group, split in zip(store.table.group, store.table.split, strict=True):
        sides.setdefault(group, set()).add(split)
    assert len(sides) == 12
    assert all(len(found) == 1 for found in sides.values())
    assert sorted(next(iter(found)) for found in sides.values()).count("train") == 6
    assert "splits: test 6 of 3 patients, train 12 of 6 patients, val 6 of 3 patients" in said
    assert "patients: 12, as the files say" in said


def test_one_patient_is_trained_on_and_ten_hold_one_out(tmp_path: Path) -> None:
    assert set(made(patients(tmp_path / "1", 1), tmp_path / "o1").store.table.split) == {"train"}
    few = made(patients(tmp_path / "9", 9, 1), tmp_path / "o9").store.table
    many = made(patients(tmp_path / "10", 10, 1), tmp_path / "o10").store.table
    assert set(few.split) == {"train"}
    assert len({g for g, s in zip(many.group, many.split, strict=True) if s == "test"}) == 1


def test_files_that_say_no_patient_are_doubted_and_grouped_by_name(tmp_path: Path) -> None:
    root = tmp_path / "in"
    for i in range(6):
        write(root / f"sub-{i // 2}_{i}.vol", VALUES)
    said: list[str] = []
    store = prepare(root, tmp_path / "out", Recipe(image_size=(6, 8)), say=said.append).store
    assert len(set(store.table.group)) == 6
    assert any(line.startswith("warning: 6 of 6 images do not say whose") for line in said)
    assert len(set(made(root, tmp_path / "two", group=r"sub-(\d+)").store.table.group)) == 3


def test_lists_decide_and_a_planted_leak_is_refused(tmp_path: Path) -> None:
    root = patients(tmp_path / "in", 4)
    lists = {"test": ("JANE^DOE001",), "val": ("sub-002/scan0.vol", "sub-002/scan1.vol")}
    store = made(root, tmp_path / "out", lists=lists).store
    people = {
        s: {g for g, t in zip(store.table.group, store.table.split, strict=True) if t == s}
        for s in set(store.table.split)
    }
    assert {split: len(found) for split, found in people.items()} == {
        "train": 2,
        "val": 1,
        "test": 1,
    }
    leak = {"test": ("sub-001/scan0.vol",), "train": ("sub-001/scan1.vol",)}
    with pytest.raises(DataError, match="1 patients would be in two splits"):
        made(root, tmp_path / "leak", lists=leak)
    with pytest.raises(DataError, match="in the lists of two splits"):
        made(root, tmp_path / "leak", lists={"test": ("JANE^DOE001",), "val": ("JANE^DOE001",)})
    with pytest.raises(DataError, match="'JOHN'"):
        made(root, tmp_path / "leak", lists={"test": ("JOHN",)})
    assert not (tmp_path / "leak").exists()


def test_a_store_is_a_function_of_files_options_and_salt(tmp_path: Path) -> None:
    root, salt = patients(tmp_path / "in", 10), tmp_path / "salt"
    first = made(root, tmp_path / "a", salt_file=salt)
    assert len(salt.read_text().strip()) == 64
    assert oct(salt.stat().st_mode)[-3:] == "600"
    again = made(root, tmp_path / "b", salt_file=salt, workers=2)
    assert first.store.digest == again.store.digest
    for file in ("store.json", "table.json", "image.npy"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    thrown = [made(root, tmp_path / name).store for name in ("c", "d")]
    assert len({first.store.digest, *(store.digest for store in thrown)}) == 3
    assert thrown[0].table.split == first.store.table.split
    assert (
        made(root, tmp_path / "e", salt_file=salt, slices="position:0,0.6").store.digest
        != first.store.digest
    )
    (tmp_path / "short").write_text("abc")
    with pytest.raises(ConfigError, match="holds 3 bytes"):
        made(root, tmp_path / "f", salt_file=tmp_path / "short")


def test_nothing_that_names_a_patient_or_a_file_is_in_a_store(tmp_path: Path) -> None:
    root = patients(tmp_path / "in", 10, series="1.2.840.113619.2.55", units="HU")
    made(root, tmp_path / "out", group=r"sub-(\d+)", lists={"test": ("003",)})
    for file in (tmp_path / "out").iterdir():
        content = file.read_bytes()
        for planted in (b"JANE", b"DOE", b"1.2.840", b"sub-", b"scan0", b".vol", bytes(tmp_path)):
            assert planted not in content, file
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out", "site-packages"]


def test_what_cannot_be_read_stops_or_is_left_out(tmp_path: Path) -> None:
    root = patients(tmp_path / "in", 3, 1)
    whole = (root / "sub-001" / "scan0.vol").read_bytes()
    (root / "sub-001" / "scan0.vol").write_bytes(whole[:-4])
    write(root / "sub-002" / "odd.vol", VALUES, bad=True)
    (root / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"(?s)1 of 4 images.*--on-bad leave-out.*odd\.vol"):
        made(root, tmp_path / "out")
    (root / "sub-002" / "odd.vol").unlink()
    with pytest.raises(DataError, match=r"cut short.*the same command goes on"):
        made(root, tmp_path / "out")
    said: list[str] = []
    recipe = make_recipe(image_size=[6, 8], on_bad="leave-out")
    outcome = prepare(root, tmp_path / "out", recipe, say=said.append)
    assert outcome.store.count == 8
    assert any("cut short" in line for line in outcome.lines)
    assert "left out: 1 .txt (notes.txt)" in said


def test_a_store_is_not_replaced_unasked(tmp_path: Path) -> None:
    root, out = patients(tmp_path / "in", 3), tmp_path / "out"
    made(root, out, salt_file=tmp_path / "salt")
    before = Store(out).digest
    with pytest.raises(ConfigError, match="--overwrite"):
        made(root, out)
    recipe = make_recipe(image_size=[3, 4])
    prepare(root, out, recipe, overwrite=True)
    assert Store(out).digest != before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("work")
    with pytest.raises(ConfigError, match="no store"):
        prepare(root, tmp_path / "mine", recipe, overwrite=True)
    with pytest.raises(ConfigError, match="lie in each other"):
        made(root, root / "out")


def test_pictures_of_a_folder_and_the_command(tmp_path: Path) -> None:
    for i in range(12):
        path = tmp_path / "in" / ("ill" if i % 3 else "well") / f"p{i:02d}.vol"
        picture = np.full((8, 8), 20 * i)
        write(path, picture, axes="yx", depth="uint8", value_range=[0, 255])
    line = ["data", "prepare", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    line += ["--image-size", "8", "--labels", "folders", "--split", "test=0.25"]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0, result.output
    store = Store(tmp_path / "out")
    assert store.classes == ("ill", "well")
    levels = sorted(int(x) for x in store.array("image")[:, 0, 0, 0])
    assert levels == [20 * i for i in range(12)]
    for i in range(12):
        level = int(store.array("image")[i, 0, 0, 0])
        assert store.classes[store.table.label[i]] == ("ill" if (level // 20) % 3 else "well")
    assert f"next: ssmdiff train --data {tmp_path / 'out'}" in result.output.replace("\n", "")
    assert store.table.split.count("test") == 3


def test_a_full_disk_is_one_sentence_and_the_command_goes_on(tmp_path: Path, monkeypatch) -> None:
    from ssmdiff_data.store import StoreWriter

    root = patients(tmp_path / "in", 3)

    def full(self, items) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(StoreWriter, "append", full)
        with pytest.raises(
            DataError, match=r"No space left on device\. .*the same command goes on"
        ):
            made(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert made(root, tmp_path / "out").store.count == 24
