"""Kind 19: before it trains, a run says what it reads, what it leaves out, and in what range."""

import io
import warnings

import numpy as np
import pytest
import ssmdiff
from PIL import Image
from rich.console import Console
from ssmdiff import DatasetSummary
from ssmdiff_data.folder import FolderDataset
from ssmdiff_train.callbacks import ConsoleProgress
from ssmdiff_train.job import train

NOISE = np.random.default_rng(0).integers(0, 256, (40, 48), np.uint8)


def save(folder, name, pixels=NOISE, **options):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / name, **options)


def told(folder, **options):
    summary = FolderDataset((32, 32), path=str(folder), **options).summary()
    return "\n".join(summary.lines), "\n".join(summary.warnings)


def test_what_is_left_out_is_said_by_kind_and_by_name_where_it_is_few(tmp_path):
    for i in range(2):
        save(tmp_path, f"{i}.png")
    for i in range(20):
        save(tmp_path, f"b{i}.bmp")
        save(tmp_path, f"w{i}.webp")
    for i in range(5):
        (tmp_path / f"IM{i:04d}").write_bytes(bytes(128) + b"DICM" + bytes(64))
    (tmp_path / "1.2.840.113.7").write_bytes(bytes(128) + b"DICM" + bytes(64))
    (tmp_path / "scan.nii.gz").write_bytes(b"\x1f\x8b")
    (tmp_path / "labels.csv").write_text("a,b")
    (tmp_path / ".DS_Store").write_text("x")
    lines, doubts = told(tmp_path)
    assert "read: 2 images in" in lines
    assert (
        "left out: 20 BMP, 20 WebP, 6 DICOM, 1 .csv (labels.csv), 1 NIfTI (scan.nii.gz), "
        "1 hidden (.DS_Store)" in lines
    )
    assert "2 files of" in doubts
    assert "are read and 49 are not: 20 BMP" in doubts


def test_nothing_left_out_is_said_too(tmp_path):
    save(tmp_path, "0.png")
    lines, doubts = told(tmp_path)
    assert "left out: nothing" in lines
    assert doubts == ""


def test_a_folder_of_other_kinds_alone_is_told_by_kind(tmp_path):
    for i in range(3):
        (tmp_path / f"IM{i}").write_bytes(bytes(128) + b"DICM")
    with pytest.raises(ssmdiff.DataError, match=r"Other files there: 3 DICOM \(IM0, IM1, IM2\)"):
        told(tmp_path)


def test_quarantined_files_are_named_with_the_reason(tmp_path):
    for i in range(30):
        save(tmp_path, f"{i:02d}.png")
    whole = (tmp_path / "17.png").read_bytes()
    (tmp_path / "17.png").write_bytes(whole[: len(whole) // 2])
    lines, _ = told(tmp_path, on_bad="quarantine")
    assert "quarantined: 1 damaged images" in lines
    assert "17.png: it is cut short or damaged" in lines


@pytest.mark.parametrize(
    ("values", "suffix", "option"),
    [
        (NOISE.astype(np.uint16) * 16, "png", "[0,4095]"),  # 12 bits
        (NOISE.astype(np.uint16) * 16, "tif", "[0,4095]"),
        (NOISE.astype(np.uint16) * 4, "png", "[0,1023]"),  # 10 bits
        (NOISE.astype(np.uint16) * 16, "npy", "[0,4095]"),
        (NOISE // 64, "png", "[0,3]"),  # a mask
        (NOISE.astype(np.uint16) + 32768, "png", "[32768,33023]"),  # signed with an offset
    ],
)
def test_values_in_a_small_part_of_the_range_are_warned_of(tmp_path, values, suffix, option):
    """With the option that the warning names, the images that reach the model fill the range."""
    if suffix == "npy":
        np.save(tmp_path / "a.npy", values)
    else:
        Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    lines, doubts = told(tmp_path)
    assert f"lie from {values.min():g} to {values.max():g}" in lines
    assert f"Try --set data.dataset.value_range={option}" in doubts
    low, high = map(int, option[1:-1].split(","))
    better = FolderDataset((40, 48), path=str(tmp_path), value_range=(low, high))
    image = better[0].image
    assert image.max() - image.min() > 1.9
    assert better.summary().warnings == ()
    assert f"black {low} and white {high} by value_range" in better.summary().lines[2]


@pytest.mark.parametrize("values", [NOISE, NOISE.astype(np.uint16) * 257, NOISE // 2])
def test_values_that_fill_their_range_are_not(tmp_path, values):
    save(tmp_path, "a.png", values)
    assert told(tmp_path)[1] == ""


def test_images_of_one_value_are_named(tmp_path):
    save(tmp_path, "a.png")
    save(tmp_path, "blank.png", np.full((40, 48), 7, np.uint8))
    assert "1 of 2 images looked at hold one value alone: blank.png" in told(tmp_path)[1]


def test_a_window_says_how_much_it_cuts(tmp_path):
    values = np.zeros((10, 10), np.int16)
    values[:, 0] = 2000
    np.save(tmp_path / "a.npy", values)
    lines, _ = told(tmp_path, value_range=(-100, 100), clip=True)
    assert "10.0% of them lie beyond and are cut (clip = true)" in lines


def test_sizes_and_classes_are_said(tmp_path):
    for name, size in (("cat/a", 20), ("cat/b", 30), ("dog/c", 40)):
        save(tmp_path, f"{name}.png", NOISE[:size, :size])
    lines, _ = told(tmp_path, labels="folders", resize="pad")
    assert "classes: cat 2, dog 1" in lines
    assert "3 sizes from 20 x 20 to 40 x 40" in lines
    assert "each becomes 32 x 32 (resize = 'pad')" in lines


SMALL = {
    "data": {"image_size": 32},
    "model": {"block": "conv", "backbone": {"name": "vmddpm", "channels": 8, "widths": [1]}},
    "train": {"steps": 2, "batch_size": 2, "bound_images": 0, "sample_every": 0, "callbacks": []},
    "sample": {"count": 1, "steps": 1},
}  # fmt: skip


def test_a_run_prints_it_before_it_works(tmp_path):
    """In the order: what is read, what is trained, and only then a step."""
    (tmp_path / "images").mkdir()
    Image.fromarray(NOISE.astype(np.uint16) * 16).save(tmp_path / "images" / "a.png")
    text = io.StringIO()
    console = ConsoleProgress(Console(file=text, width=200))
    config = ssmdiff.resolve(
        ssmdiff.load_preset("tiny"),
        SMALL,
        {"data": {"dataset": {"name": "folder", "path": str(tmp_path / "images")}}},
    )
    with pytest.warns(UserWarning, match=r"value_range=\[0,4095\]"):
        train(config, tmp_path / "run", callbacks=[console])
    lines = text.getvalue().splitlines()
    places = [
        next(i for i, line in enumerate(lines) if words in line)
        for words in (
            "data: folder, 1 images of 1 channel at 32 x 32", "left out: nothing",
            "lie from 0 to 4080", "flips: none; --set data.flip=true mirrors",
            "model: vmddpm of conv, ", "kernel of no scan, fp32", "memory: about", "step 1/2",
        )
    ]  # fmt: skip
    assert places == sorted(places)
    written = "".join(p.read_text(errors="replace") for p in (tmp_path / "run").rglob("*.toml"))
    assert "a.png" not in written


def test_a_library_call_hears_the_doubts_and_prints_nothing(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    Image.fromarray(NOISE.astype(np.uint16) * 16).save(tmp_path / "images" / "a.png")
    layers = ssmdiff.merge(
        SMALL, {"data": {"dataset": {"name": "folder", "path": str(tmp_path / "images")}}}
    )
    with pytest.warns(UserWarning, match="near black"):
        train(layers, tmp_path / "run")
    assert capsys.readouterr() == ("", "")


def test_a_data_set_without_a_summary_is_trained_on(tmp_path):
    class Plain:
        pass

    assert ssmdiff.summary_of(Plain()) == DatasetSummary()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert ssmdiff.summary_of(ssmdiff.create("dataset", "phantom", image_size=(16, 16)))
