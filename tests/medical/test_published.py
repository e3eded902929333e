"""The published data sets: folders in their exact layouts, made here; counts, labels, splits."""

from __future__ import annotations

import csv
import hashlib
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import ssmdiff
from ssmdiff import Case, ConfigError, DataError
from ssmdiff_cli.flags import dataset_table
from ssmdiff_data.prepare import prepare, published_dataset
from ssmdiff_data.recipe import make_recipe
from ssmdiff_data.store import Store
from ssmdiff_medical import chestxray
from ssmdiff_medical.acdc import Acdc
from ssmdiff_medical.brats import Brats
from ssmdiff_medical.chestxray import FINDINGS, ChestXray14

GROUPS = ("NOR", "MINF", "DCM", "HCM", "RV")


def touched(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def acdc(root: Path, training: int = 100, testing: int = 50) -> Path:
    """``database/training/patient001`` and so on, with the official files; nothing in them."""
    for number in range(1, training + testing + 1):
        folder = "training" if number <= training else "testing"
        name = f"patient{number:03d}"
        place = root / "database" / folder / name
        place.mkdir(parents=True)
        ed, es = 1, 8 + number % 5
        (place / "Info.cfg").write_text(
            f"ED: {ed}\nES: {es}\nGroup: {GROUPS[number % 5]}\nHeight: 184.0\nNbFrame: 30\n"
            "Weight: 95.0\n"
        )
        for stem in ("4d", *(f"frame{f:02d}{e}" for f in (ed, es) for e in ("", "_gt"))):
            touched(place / f"{name}_{stem}.nii.gz")
        touched(place / "MANDATORY_CITATION.md")
    return root


def test_acdc_is_read_from_its_official_folder(tmp_path: Path) -> None:
    root = acdc(tmp_path)
    cases = list(Acdc.cases(root))
    assert len(cases) == 300
    assert Counter(case.split for case in cases) == {"train": 200, "test": 100}
    assert Counter(c.label for c in cases) == dict.fromkeys(GROUPS, 60)
    assert Counter(c.numbers["end_systole"] for c in cases) == {0.0: 150, 1.0: 150}
    assert all(set(case.files) == {"image", "mask"} for case in cases)
    third = cases[5]
    assert third.files["image"][0].name == "patient003_frame11.nii.gz"
    assert third.files["mask"][0].name == "patient003_frame11_gt.nii.gz"
    assert (third.patient, third.label) == ("patient003", "HCM")
    assert len(list(Acdc.cases(root / "database", testing=False))) == 200


def test_acdc_without_labels_says_what_to_do(tmp_path: Path) -> None:
    root = acdc(tmp_path, 2, 1)
    for path in (root / "database" / "testing").rglob("*_gt.nii.gz"):
        path.unlink()
    with pytest.raises(DataError, match=r"_gt\.nii\.gz is missing.*masks=false.*testing=false"):
        list(Acdc.cases(root))
    assert len(list(Acdc.cases(root, masks=False))) == 6
    with pytest.raises(DataError, match="layout of ACDC"):
        list(Acdc.cases(tmp_path / "database" / "training"))
    (root / "database" / "training" / "patient001" / "Info.cfg").write_text("ED: one\n")
    with pytest.raises(DataError, match="expected ED, ES and Group"):
        list(Acdc.cases(root))


ENDINGS = ("_t1", "_t1ce", "_t2", "_flair", "_seg")


def brats2018(root: Path) -> Path:
    base = root / "MICCAI_BraTS_2018_Data_Training"
    names = []
    for grade, count in (("HGG", 210), ("LGG", 75)):
        for number in range(count):
            site = ("CBICA", "TCIA01", "2013")[number % 3]
            name = f"Brats18_{site}_{grade[0]}{number:03d}_1"
            names.append((grade, name))
            for ending in ENDINGS:
                touched(base / grade / name / f"{name}{ending}.nii.gz")
    with (base / "survival_data.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["Brats18ID", "Age", "Survival", "ResectionStatus"])
        for _, name in names[:163]:
            rows.writerow([name, "60.5", "289", "GTR"])
    return root


def test_brats2018_is_read_from_its_official_folder(tmp_path: Path) -> None:
    root = brats2018(tmp_path)
    cases = list(Brats.cases(root))
    assert Counter(case.label for case in cases) == {"HGG": 210, "LGG": 75}
    assert len({case.patient for case in cases}) == 285
    assert sum(case.numbers["survival_days"] == 289 for case in cases) == 163
    assert all(case.files["image"][0].name.endswith("_flair.nii.gz") for case in cases)
    assert all(case.files["mask"][0].name.endswith("_seg.nii.gz") for case in cases)
    (first, *_) = Brats.cases(root, modality="t1ce", all_modalities=True)
    assert first.files["image"][0].name.endswith("_t1ce.nii.gz")
    assert set(first.files) == {"image", "t1", "t2", "flair", "mask"}


@pytest.mark.parametrize(
    ("name", "endings", "patient"),
    [
        ("BraTS19_CBICA_AAB_1", ENDINGS, "BraTS19_CBICA_AAB_1"),
        ("BraTS20_Training_001", ENDINGS, "BraTS20_Training_001"),
        ("BraTS2021_00000", ENDINGS, "BraTS2021_00000"),
        ("BraTS-GLI-00005-001", ("-t1n", "-t1c", "-t2w", "-t2f", "-seg"), "BraTS-GLI-00005"),
    ],
)
def test_brats_of_other_years(
    tmp_path: Path, name: str, endings: tuple[str, ...], patient: str
) -> None:
    for ending in endings:
        touched(tmp_path / "Training" / name / f"{name}{ending}.nii.gz")
    for modality, place in (("t1", 0), ("t1ce", 1), ("t2", 2), ("flair", 3)):
        (case,) = Brats.cases(tmp_path, modality=modality)
        assert case.files["image"][0].name == f"{name}{endings[place]}.nii.gz"
        assert (case.patient, case.label) == (patient, "unknown")


def test_brats_tells_masks_and_the_other_modalities(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    for number in (1, 2):
        place = tmp_path / "in" / f"BraTS20_Training_{number:03d}"
        place.mkdir(parents=True)
        values = np.random.default_rng(number).integers(1, 200, (16, 16, 3))
        for k, ending in enumerate(ENDINGS):
            stored = (values % 5) % 4 if ending == "_seg" else values + 1000 * k
            volume = nibabel.Nifti1Image(stored.astype(np.int16), np.eye(4))
            nibabel.save(volume, place / f"{place.name}{ending}.nii.gz")
    (tmp_path / "in" / "survival_data.csv").write_text(
        "ID,Age,Survival\nBraTS20_Training_001,60.5,289\nBraTS20_Training_002,40,ALIVE (361)\n"
    )
    recipe = make_recipe(**{**Brats.RECIPE, "image_size": 16, "slices": "all"})
    options = {"all_modalities": True, "modality": "t1"}
    prepare(tmp_path / "in", tmp_path / "out", recipe, published="brats2018", options=options)
    table = {"name": "brats2018", "path": str(tmp_path / "out")}
    data = ssmdiff.create("dataset", table, image_size=(16, 16))
    conditions = {one.name: one for one in data.conditions}
    assert {"position", "age_years", "mask", "t1ce", "t2", "flair", "low"} == set(conditions)
    assert conditions["mask"].names == Brats.MASK
    assert (conditions["age_years"].low, conditions["age_years"].high) == (40.0, 60.5)
    item = data[0]
    for name in ("t1ce", "t2", "flair"):  # each under its own window, which moves with it
        np.testing.assert_allclose(item.told[name], item.image, atol=1e-3)
    assert set(np.unique(item.told["mask"])) == {0, 1, 2, 3}


def test_brats_with_the_odd_segmentation_of_2020_and_without_any(tmp_path: Path) -> None:
    name = "BraTS20_Training_355"
    for ending in ENDINGS[:-1]:
        touched(tmp_path / name / f"{name}{ending}.nii")
    with pytest.raises(DataError, match=r"has no seg.*masks=false"):
        list(Brats.cases(tmp_path))
    touched(tmp_path / name / "W39_1998.09.19_Segm.nii")
    (case,) = Brats.cases(tmp_path)
    assert case.files["mask"][0].name == "W39_1998.09.19_Segm.nii"
    with pytest.raises(DataError, match="layout of BraTS"):
        list(Brats.cases(tmp_path / name))


COUNTS = [4999] + [10_000] * 10 + [7_121]


def chest(root: Path, patients: int = 30_805, images: int = 112_120) -> list[str]:
    """A table and lists of the official size; names and findings are a function of the number."""
    extra = images - patients
    names = []
    for patient in range(1, patients + 1):
        follow_ups = 1 + extra // patients + (patient <= extra % patients)
        names += [f"{patient:08d}_{i:03d}.png" for i in range(follow_ups)]
    root.mkdir(parents=True, exist_ok=True)
    with (root / "Data_Entry_2017.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(
            ["Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age",
             "Patient Gender", "View Position", "OriginalImage[Width", "Height]",
             "OriginalImagePixelSpacing[x", "y]", ""]
        )  # fmt: skip
        for i, name in enumerate(reversed(names)):
            found = "No Finding" if i % 2 else "|".join(FINDINGS[i % 14 : i % 14 + 1 + i % 3])
            view = "PA" if i % 5 else "AP"
            rows.writerow(
                [
                    name,
                    found,
                    int(name[9:12]),
                    int(name[:8]),
                    "058Y",
                    "M",
                    view,
                    2682,
                    2749,
                    0.143,
                    0.143,
                    "",
                ]
            )
    cut = int(patients * 0.9)
    train = [name for name in names if int(name[:8]) <= cut]
    (root / "train_val_list.txt").write_text("\n".join(train))
    (root / "test_list.txt").write_text("\n".join(names[len(train) :]))
    return names


@pytest.mark.slow
def test_the_whole_table_of_chestxray14_is_built_in_seconds(tmp_path: Path, monkeypatch) -> None:
    names = chest(tmp_path)
    assert len(names) == 112_120
    folders, start = {}, 0
    for number, count in enumerate(COUNTS, start=1):
        folder = tmp_path / f"images_{number:03d}" / "images"
        folders |= dict.fromkeys(names[start : start + count], folder)
        start += count
    monkeypatch.setattr(chestxray, "_images", lambda root: {n: f / n for n, f in folders.items()})
    start_s = time.process_time()
    cases = list(ChestXray14.cases(tmp_path, official=False))
    assert time.process_time() - start_s < 10
    assert [case.files["image"][0].name for case in cases] == names
    assert len({case.patient for case in cases}) == 30_805
    sides = {side: {c.patient for c in cases if c.split == side} for side in ("train", "test")}
    assert sides["train"].isdisjoint(sides["test"])
    last = [cases[sum(COUNTS[: i + 1]) - 1].files["image"][0].parent for i in range(12)]
    assert [p.parent.name for p in last] == [f"images_{i:03d}" for i in range(1, 13)]
    several = sum(case.label == "Several findings" for case in cases)
    assert several == sum(sum(c.numbers[f.lower()] for f in FINDINGS) > 1 for c in cases)
    assert sum(case.label == "No Finding" for case in cases) == 112_120 // 2
    assert sum(case.numbers["posterior_anterior"] == 0 for case in cases) == 22_424


def test_the_lists_and_names_are_held_against_their_digests(tmp_path: Path, monkeypatch) -> None:
    names = chest(tmp_path, 40, 120)
    for name in names:
        touched(tmp_path / "images" / name)
    with pytest.raises(DataError, match=r"train_val_list\.txt is not the official list"):
        list(ChestXray14.cases(tmp_path))
    digests = {
        side: hashlib.sha256((tmp_path / file).read_bytes()).hexdigest()
        for side, file in chestxray.LISTS.items()
    }
    monkeypatch.setattr(chestxray, "SHA256", digests)
    assert len(list(ChestXray14.cases(tmp_path))) == 120
    listed = tmp_path / "test_list.txt"
    listed.write_text(listed.read_text().replace("\n", "\r\n") + "\r\n")
    assert len(list(ChestXray14.cases(tmp_path))) == 120, "another system's line ends are no change"
    first = hashlib.sha256("".join(f"{name}\n" for name in names[:50]).encode()).hexdigest()
    monkeypatch.setattr(chestxray, "FIRST", {50: first, 60: first})
    assert len(list(ChestXray14.cases(tmp_path, first=50))) == 50
    with pytest.raises(DataError, match="the 60 names of the table are not the official ones"):
        list(ChestXray14.cases(tmp_path, first=60))


def test_what_is_wrong_with_chestxray14_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Data_Entry_2017\.csv or"):
        list(ChestXray14.cases(tmp_path))
    names = chest(tmp_path, 4, 8)
    with pytest.raises(DataError, match="8 of 8 images of the table are not in"):
        list(ChestXray14.cases(tmp_path, official=False))
    for name in names:
        touched(tmp_path / "images" / name)
    table = tmp_path / "Data_Entry_2017.csv"
    text = table.read_text()
    for old, new, said in (
        ("No Finding", "Nothing", "line 3: expected"),
        ("00000004_001.png,Ate", "00000004_01.png,Ate", "line 2: expected"),
        (",4,058Y", ",5,058Y", "is of patient '5'"),
    ):
        table.write_text(text.replace(old, new))
        with pytest.raises(DataError, match=said):
            list(ChestXray14.cases(tmp_path, official=False))


def test_digests_of_the_facts_are_sha256() -> None:
    for digest in (*chestxray.SHA256.values(), *chestxray.FIRST.values()):
        assert len(bytes.fromhex(digest)) == 32


def pictures(root: Path, names: list[str]) -> None:
    """Grey pictures; every third has four channels, as some of the real ones."""
    from PIL import Image

    for i, name in enumerate(names):
        path = root / "images_001" / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = Image.fromarray(np.full((16, 16), i, np.uint8))
        (grey if i % 3 else grey.convert("RGBA")).save(path)


def test_chestxray14_to_a_store_and_its_terms(tmp_path: Path) -> None:
    names = chest(tmp_path / "in", 20, 60)
    pictures(tmp_path / "in", names)
    said: list[str] = []
    recipe = make_recipe(**{**ChestXray14.RECIPE, "image_size": 16})
    made = prepare(
        tmp_path / "in", tmp_path / "out", recipe, published="chestxray14",
        options={"official": False}, say=said.append,
    )  # fmt: skip
    store = made.store
    assert store.array("image")[:, 0, 0, 0].tolist() == list(range(60))
    assert store.table.split == ["train"] * 54 + ["test"] * 6
    assert store.table.numbers.keys() >= {"cardiomegaly", "posterior_anterior"}
    assert "licence: free to use; the NIH Clinical Center asks to be named and linked to" in said
    assert any(line.startswith("cite: Wang et al.") for line in said)
    assert "slice rule: every image once, 60 in this store" in made.lines
    table = dataset_table(str(tmp_path / "out"))
    assert table == {"name": "chestxray14", "path": str(tmp_path / "out")}
    data = ssmdiff.create("dataset", table, image_size=(16, 16))
    assert data.terms == ChestXray14.TERMS == ssmdiff.terms_of(store.fact("terms"))
    assert data.augmentation["flip"] is False
    assert len(data) == 54
    assert len(data.held_out) == 6
    assert data.value_range == (0, 255)
    assert store.fact_text("body_part") == "CHEST"
    conditions = {one.name: one for one in data.conditions}
    assert list(conditions) == ["findings", "posterior_anterior", "low"]
    assert conditions["findings"].names == FINDINGS
    for i in range(54):
        names_of = [FINDINGS[k] for k in data[i].told["findings"]]
        single = data.class_names[data[i].label]
        assert {"No Finding": names_of == [], "Several findings": len(names_of) > 1}.get(
            single, names_of == [single]
        )
    with pytest.raises(DataError, match=r"a store of ChestX-ray14; expected one of ACDC"):
        ssmdiff.create(
            "dataset", {"name": "acdc", "path": str(tmp_path / "out")}, image_size=(16, 16)
        )
    with pytest.raises(DataError, match="data prepare FOLDER --as acdc"):
        ssmdiff.create(
            "dataset", {"name": "acdc", "path": str(tmp_path / "in")}, image_size=(16, 16)
        )


@pytest.mark.parametrize("name", ["acdc", "brats2018", "chestxray14"])
def test_a_preset_of_the_paper_is_whole_but_for_the_store(tmp_path: Path, name: str) -> None:
    config = ssmdiff.resolve(ssmdiff.load_preset(f"paper-{name}"))
    assert config.data.dataset["name"] == name
    assert config.data.image_size == (128, 128)
    assert config.data.flip is True
    assert set(config.data.augment.model_dump().values()) == {0.0}
    of_the_paper = ssmdiff.resolve(ssmdiff.load_preset("paper-128"))
    assert (config.model, config.train) == (of_the_paper.model, of_the_paper.train)
    with pytest.raises(DataError, match=rf"data prepare FOLDER --as {name} --out STORE"):
        ssmdiff.build_dataset(config)


def test_options_of_a_published_data_set_are_checked(tmp_path: Path) -> None:
    acdc(tmp_path / "in", 1, 0)

    def made(**options: object) -> None:
        prepare(tmp_path / "in", tmp_path / "out", published="acdc", options=options)

    with pytest.raises(ConfigError, match=r"--set mask: ACDC has no such option.*masks"):
        made(mask=True)
    with pytest.raises(ConfigError, match="--set masks: got 'yes'"):
        made(masks="yes")
    with pytest.raises(ConfigError, match=r"--as phantom.*acdc, brats2018, chestxray14"):
        published_dataset("phantom")
    assert isinstance(next(iter(Acdc.cases(tmp_path / "in"))), Case)
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError):
        Store(tmp_path / "in")
