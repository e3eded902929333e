"""``ssmdiff data show``: what a folder holds, counted by hand, and whom it never names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmdiff
from PIL import Image
from ssmdiff.errors import ConfigError, DataError
from ssmdiff_cli.main import app
from ssmdiff_data.looking import look, near_duplicates
from typer.testing import CliRunner, Result

RNG = np.random.default_rng(0)

SERIES = """
import json
import numpy as np
import ssmdiff


class SeriesReader:
    suffixes = frozenset({".ser"})

    def claims(self, path, head):
        return head.startswith(b"SER1")

    def sources(self, root, files):
        for path in files:
            yield ssmdiff.Source((path,), path.relative_to(root).as_posix())

    def header(self, source):
        told = json.loads(source.files[0].read_bytes()[4:])
        if "refuse" in told:
            raise ssmdiff.DataError(f"{source.files[0]}: {told['refuse']}")
        told["shape"] = tuple(told.pop("shape", (2, 8, 8)))
        told["warnings"] = tuple(told.pop("warnings", ()))
        told.pop("seed")
        return ssmdiff.ImageHeader(axes="zyx", depth="int16", **told)

    def read(self, source):
        seed = json.loads(source.files[0].read_bytes()[4:])["seed"]
        header = self.header(source)
        values = np.random.default_rng(seed).integers(-1000, 2000, header.shape)
        return ssmdiff.ImageData(values.astype(np.int16), header)


@ssmdiff.hookimpl
def ssmdiff_readers():
    yield ssmdiff.Component("series", SeriesReader, "series of a test")
"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["data", "show", *map(str, arguments)])


def told(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    record: dict[str, Any] = json.loads(result.stdout)
    return record


def picture(path: Path, values: np.ndarray | None = None) -> np.ndarray:
    if values is None:
        values = RNG.integers(0, 256, (20, 16), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return values


def smooth(seed: int) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 200, (5, 4), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((40, 50), Image.Resampling.BICUBIC))


def test_what_is_read_and_left_out_is_counted(tmp_path: Path) -> None:
    values = [picture(tmp_path / "a" / f"{i}.png") for i in range(3)]
    picture(tmp_path / "b.tif", RNG.integers(0, 4096, (9, 7), dtype=np.uint16))
    np.save(tmp_path / "volume.npy", np.zeros((3, 4, 5), np.float32))
    (tmp_path / "bad.png").write_bytes((tmp_path / "a" / "0.png").read_bytes()[:60])
    for name in ("x.csv", "y.csv", ".hidden"):
        (tmp_path / name).write_text("1,2\n")
    found = told(tmp_path)
    assert (found["files"], found["images"], found["looked_at"]) == (9, 5 + 1, 5)
    assert found["readers"] == {"picture": 6}
    assert found["axes"] == {"yx": 5, "zyx": 1}
    assert found["shapes"]["9 x 7"] == found["shapes"]["3 x 4 x 5"] == 1
    assert found["passed_over"] == {".csv": 2, "hidden": 1}
    ((why, count, names),) = [one.values() for one in found["left_out"]]
    assert (count, names) == (1, ["bad.png"])
    assert why.startswith("it is cut short or damaged")
    grey = next(kind for kind in found["values"] if kind["depth"] == "uint8")
    assert (grey["least"], grey["most"]) == (np.min(values), np.max(values))
    assert sum(grey["histogram"]) == sum(v.size for v in values)
    assert (grey["black"], grey["white"]) == ([0, 0], [255, 255])
    deep = next(kind for kind in found["values"] if kind["depth"] == "uint16")
    assert deep["white"] == [65535, 65535]
    said = "\n".join(found["warnings"])
    assert "as if they had 12 bits" in said
    assert "1 volumes and 5 pictures lie together" in said
    assert "1 of 1 images of float32 hold one value alone" in said


def test_the_histogram_is_numpys(tmp_path: Path) -> None:
    """Of one image within a step of 256; the ends and the sum are exact."""
    stored = RNG.normal(100, 20, (40, 50)).astype(np.float32)
    np.save(tmp_path / "a.npy", stored)
    (kind,) = told(tmp_path)["values"]
    expected, _ = np.histogram(stored, 48)
    moved = np.abs(np.cumsum(kind["histogram"]) - np.cumsum(expected)).max()
    fine, _ = np.histogram(stored, 256)
    assert sum(kind["histogram"]) == stored.size
    assert moved <= fine.max()
    assert (kind["black"][0], kind["white"][0]) == pytest.approx(np.percentile(stored, [0.1, 99.9]))


def test_a_sample_is_drawn_by_the_seed_and_all_means_all(tmp_path: Path) -> None:
    for i in range(30):
        picture(tmp_path / f"{i:02d}.png", np.full((4, 5), i * 8, np.uint8))
    first, again = told(tmp_path, "--sample", 5), told(tmp_path, "--sample", 5)
    other, whole = told(tmp_path, "--sample", 5, "--seed", 1), told(tmp_path, "--all")
    assert (first["images"], first["looked_at"], whole["looked_at"]) == (30, 5, 30)
    assert first["values"] == again["values"] != other["values"]
    assert whole["values"][0]["most"] == 29 * 8


def test_duplicates_are_found_also_across_splits(tmp_path: Path) -> None:
    base = smooth(1)
    picture(tmp_path / "train" / "p1_a.png", base)
    Image.fromarray(base).save(tmp_path / "train" / "p2_b.tif")  # the same, packed otherwise
    picture(tmp_path / "test" / "p1_c.png", (base * 0.8 + 20).astype(np.uint8))  # darker
    for i in range(2, 12):
        picture(tmp_path / "val" / f"p{i + 1}_{i}.png", smooth(i))
    found = told(tmp_path, "--group", r"(p\d+)_")
    copies = found["duplicates"]
    assert (copies["exact"], copies["exact_across_splits"]) == (1, 0)
    assert copies["such_as"] == [["train/p1_a.png", "train/p2_b.tif"]]
    assert (copies["near"], copies["near_across_splits"]) == (2, 2)
    assert found["splits"] == {"val": 10, "train": 2, "test": 1}
    assert (found["patients"], copies["patients_across_splits"]) == (12, 1)
    said = "\n".join(found["warnings"])
    assert "2 pairs of images look the same, 2 of them across splits" in said
    assert "1 patients are in more than one split" in said


@pytest.mark.slow
def test_only_images_within_the_distance_of_hashes_are_near(tmp_path: Path) -> None:
    """The buckets find what a comparison of each pair with each other finds."""
    reader = ssmdiff.create("reader", "picture")
    looks = []
    for i in range(40):
        path = tmp_path / f"{i}.png"
        changed = smooth(i // 2).astype(int) + np.random.default_rng(i).integers(-2, 3, (50, 40))
        picture(path, changed.clip(0, 255).astype(np.uint8))
        looks.append(look(reader, ssmdiff.Source((path,), path.name)))
    grey = np.array([seen.small.ravel() for seen in looks], float)
    alike = np.corrcoef(grey)
    expected = [
        (i, j)
        for i in range(40)
        for j in range(i + 1, 40)
        if alike[i, j] > 0.997 and (looks[i].hash ^ looks[j].hash).bit_count() < 4
    ]
    assert near_duplicates(looks) == expected
    assert len(expected) >= 15


@pytest.mark.usefixtures("fresh_registry")
def test_patients_are_counted_and_never_named(tmp_path: Path, install) -> None:
    install("ssmdiff-series", SERIES)
    planted = ["Muellermann^Hans", "Okonkwo^Adaeze", "PID-7734-X"]
    folder = tmp_path / "data"
    for i, name in enumerate([*planted, planted[0]]):
        place = folder / ("train" if i < 3 else "test") / name.split("^")[0]
        place.mkdir(parents=True, exist_ok=True)
        header: dict[str, Any] = {"patient": name, "series": f"1.2.3.{i}", "seed": i}
        header |= {"modality": "CT" if i else "MR", "units": "HU" if i else ""}
        header["warnings"] = ["text may be burned into its pixels"] if i < 2 else []
        (place / f"{i}.ser").write_bytes(b"SER1" + json.dumps(header).encode())
    refused = folder / "train" / "Muellermann" / "bad.ser"
    refused.write_bytes(b"SER1" + json.dumps({"refuse": "palette colour", "seed": 0}).encode())
    short = folder / "val" / "Li_Doe"
    short.mkdir(parents=True)
    header = {"patient": "Doe^Li", "seed": 9, "modality": "CT", "warnings": ["it does flip"]}
    (short / "a.ser").write_bytes(b"SER1" + json.dumps(header).encode())
    (short / "b.ser").write_bytes(b"SER1" + json.dumps(header).encode())
    lines, record = run(folder), told(folder)
    assert (record["patients"], record["series"]) == (4, 4)
    assert sorted(record["images_of_patients"].values()) == [1, 1, 2, 2]
    assert record["duplicates"]["such_as"] == [["val/Li_***/a.ser", "val/Li_***/b.ser"]]
    assert record["duplicates"]["patients_across_splits"] == 1
    said = "\n".join(record["warnings"])
    assert "2 of 6 images: it does flip" in said
    assert "2 of 6 images: text may be burned into its pixels" in said
    assert "2 modalities lie together, 5 CT, 1 MR" in said
    assert "patients:  4, 4 series" in lines.output
    assert "palette colour" in lines.output
    text = lines.output + json.dumps(record)
    for word in ("muellermann", "hans", "okonkwo", "adaeze", "7734"):
        assert word not in text.lower()
    # Hashes of two calls are under two salts.
    assert set(record["images_of_patients"]) & set(told(folder)["images_of_patients"]) == set()


def test_the_sheet_shows_the_images_under_their_windows(tmp_path: Path) -> None:
    levels = np.zeros((96, 96), np.uint16)
    levels[:48, :48] = 65535
    picture(tmp_path / "data" / "a.tif", levels)
    result = run(tmp_path / "data", "--sheet", tmp_path / "sheet.png")
    assert result.exit_code == 0, result.output
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    where = np.argwhere(sheet == 255)
    corner = sheet[-98:-2, 2:98]
    assert len(where) >= 48 * 48
    assert (corner[:48, :48] == 255).all()
    assert (corner[48:] == 0).all()
    wrong = run(tmp_path / "data", "--sheet", "a.jpg")
    assert (wrong.exit_code, "expected a PNG" in wrong.output) == (2, True)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda place: None, "there is no"),
        (lambda place: place.mkdir(), "holds no files"),
        (lambda place: (place.mkdir(), (place / "a.csv").write_text("1,2")), "1 .csv (a.csv)"),
        (lambda place: (place.mkdir(), (place / "a.png").write_text("")), "no reader knows"),
        (
            lambda place: (place.mkdir(), (place / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")),
            "none of the 1 images",
        ),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(tmp_path: Path, make, said: str) -> None:
    place = tmp_path / "place"
    make(place)
    result = run(place)
    assert result.exit_code == 4
    assert said in " ".join(result.output.split())
    assert "Traceback" not in result.output
    with pytest.raises(DataError):
        ssmdiff.job("data").show(place)


def test_python_gets_the_record_of_the_command(tmp_path: Path) -> None:
    picture(tmp_path / "data" / "a.png", smooth(3))
    record = ssmdiff.job("data").show(tmp_path / "data", sheet=tmp_path / "sheet.png")
    assert record == told(tmp_path / "data")
    assert (tmp_path / "sheet.png").is_file()
    single = ssmdiff.job("data").show(tmp_path / "data" / "a.png", readers=["picture"])
    assert single["images"] == 1
    with pytest.raises(ConfigError, match="did you mean 'picture'"):
        ssmdiff.job("data").show(tmp_path / "data", readers=["pictures"])


def test_a_data_set_by_its_name_says_what_it_can_tell(tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    result = run("phantom", "--sample", 20, "--sheet", sheet)
    assert result.exit_code == 0, result.output
    said = result.output.splitlines()
    assert said[0] == "phantom: 4096 images of 1 channel at 96 x 96"
    (label,) = [line for line in said if line.startswith("    label, a class: healthy ")]
    assert "    angle, a number from -15 to 15 degrees" in said
    (findings,) = [line for line in said if line.startswith("    findings, findings: lesion ")]
    assert "    low, an image of 1 channel" in said
    (mask,) = [line for line in said if line.startswith("    mask, a mask: outside, scalp")]
    shown = Image.open(sheet)
    assert min(shown.size) > 96 * 8  # 24 heads, each with its mask and its low resolution
    record = told("phantom", "--sample", 20)
    assert record == ssmdiff.job("data").show("phantom", sample=20)
    conditions = {one["name"]: one for one in record["conditions"]}
    healthy, ill = conditions["label"]["counts"]
    assert healthy + ill == 20
    assert label.endswith(f"healthy {healthy}, lesion {ill}")
    assert conditions["size"]["high"] == pytest.approx(0.92)
    assert conditions["findings"]["counts"][0] == ill
    assert f"lesion {ill}, wide ventricles" in findings
    assert mask.endswith("white matter, lesion")


def test_a_folder_says_what_could_be_told_and_with_options_what_is(tmp_path: Path) -> None:
    for i, name in enumerate(["x/a.png", "x/b.png", "y/c.png", "y/d.png"]):
        picture(tmp_path / "in" / name)
        picture(tmp_path / "masks" / name, np.full((20, 16), i % 2, np.uint8))
    (tmp_path / "in" / "ages.csv").write_text("name,age,kind\na,1,u\nb,2,v\nc,5,u\nd,9,v\n")
    said = run(tmp_path / "in").output
    assert "could be told: label, a class by folder: x, y (--set labels=folders)" in said
    assert "could be told: age, a number from 1 to 9 (--set table=ages.csv)" in said
    assert "could be told: kind, 2 classes (--set table=ages.csv)" in said
    arguments = ["--set", "table=ages.csv", "--set", "masks=../masks", "--set", "labels=folders"]
    said = run(tmp_path / "in", *arguments).output
    assert "    label, a class: x 2, y 2" in said
    assert "    kind, a class: u 2, v 2" in said
    assert "    mask, a mask: 0, 1" in said
    failed = run(tmp_path / "in", "--set", "tabel=ages.csv")
    assert failed.exit_code != 0
    assert "tabel" in failed.output + failed.stderr


def test_a_table_of_names_is_counted_and_not_shown(tmp_path: Path) -> None:
    for name in "abcd":
        picture(tmp_path / f"{name}.png")
    (tmp_path / "t.csv").write_text("name,who\na,Smith\nb,Smith\nc,Jones\nd,Jones\n")
    said = run(tmp_path).output
    assert "who, 2 classes" in said
    assert "Smith" not in said
    assert "Jones" not in said


def test_the_mask_lies_beside_its_image_in_the_sheet(tmp_path: Path) -> None:
    half = np.zeros((96, 96), np.uint8)
    half[:, 48:] = 1
    picture(tmp_path / "in" / "a.png", np.full((96, 96), 60, np.uint8))
    picture(tmp_path / "masks" / "a.png", half)
    sheet = tmp_path / "sheet.png"
    result = run(tmp_path / "in", "--set", "masks=../masks", "--sheet", sheet)
    assert result.exit_code == 0, result.output
    pixels = np.asarray(Image.open(sheet).convert("L"))
    black_and_white = np.concatenate([np.zeros(48), np.full(48, 255)])
    rows = np.lib.stride_tricks.sliding_window_view(pixels, 96, axis=1)
    assert (rows == black_and_white).all(-1).any(1).sum() >= 96
