"""``evaluate --targets``: pairs by name, sizes, sentences; no run is needed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ssmdiff import ConfigError
from ssmdiff_evaluate.job import evaluate
from typer.testing import CliRunner

RNG = np.random.default_rng(4)
LEVELS = {name: RNG.integers(0, 256, (16, 16), dtype=np.uint8) for name in ("a", "b/c", "d")}


def write(folder: Path, images, suffix: str = ".png") -> Path:
    for name, levels in images.items():
        path = folder / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(levels).save(path)
    return folder


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """10 levels off, but for one that is 20 off."""
    off = {name: (levels // 2 + (20 if name == "d" else 10)) for name, levels in LEVELS.items()}
    return write(tmp_path / "drawn", off)


@pytest.fixture
def targets(tmp_path: Path) -> Path:
    more = {**{name: levels // 2 for name, levels in LEVELS.items()}, "z": LEVELS["a"]}
    return write(tmp_path / "targets", more, ".tif")


def test_pairs_are_found_by_name_whatever_the_suffix(drawn: Path, targets: Path, tmp_path) -> None:
    record = evaluate(drawn, out=tmp_path / "found", targets=targets)
    assert [judged.metric for judged in record.figures] == ["paired"] * 3
    each = [20 * np.log10(255 / off) for off in (10, 10, 20)]
    assert record.find("PSNR").value == pytest.approx(np.mean(each))
    assert record.find("MAE").value == pytest.approx(40 / 3 / 255)
    assert not record.refusals
    kept = json.loads((tmp_path / "found" / "record.json").read_text())
    assert kept["stamp"]["protocol"]["targets"]["count"] == 3
    page = (tmp_path / "found" / "index.html").read_text()
    assert "PSNR to targets" in page
    assert "no real one" not in page, "what is filled in holds parts of real images"
    assert "which are made of others and may hold parts of them" in page


def test_the_record_of_a_translation_names_its_images_and_how_they_were_read(
    drawn: Path, targets: Path, tmp_path
) -> None:
    """Its grid is no image of it, and targets of 16 bits are read in the range that it says."""
    Image.new("L", (40, 40)).save(drawn / "grid.png")
    record = {"names": ["a.png", "d.png"], "reading": {"value_range": [0, 4080]}, "format": "png"}
    (drawn / "samples.json").write_text(json.dumps(record))
    deep = tmp_path / "deep"
    deep.mkdir()
    for name in ("a", "d"):
        Image.fromarray((LEVELS[name] // 2).astype(np.uint16) * 16).save(deep / f"{name}.png")
    found = evaluate(drawn, out=tmp_path / "found", targets=deep)
    assert found.find("MAE").value == pytest.approx(15 / 255)
    assert found.find("SSIM").name == "SSIM to targets (n = 2)"


def test_other_metrics_are_asked_by_name_with_the_targets_as_reference(
    drawn: Path, targets: Path, tmp_path
) -> None:
    record = evaluate(drawn, out=tmp_path / "found", targets=targets, metrics=["paired", "ms-ssim"])
    assert {judged.metric for judged in record.figures} == {"paired", "ms-ssim"}
    assert record.stamp["protocol"]["reference"]["count"] == 3


def test_without_targets_the_metric_is_not_asked_and_says_so_by_name(
    drawn: Path, targets: Path, tmp_path
) -> None:
    from ssmdiff_evaluate.evaluation import usual_metrics

    assert "paired" not in usual_metrics(targets=False)
    assert usual_metrics(targets=True) == ["paired"]
    (drawn / "samples.json").write_text(json.dumps({"names": ["a.png", "b/c.png", "d.png"]}))
    record = evaluate(drawn, targets, tmp_path / "found", metrics=["paired"])
    (refusal,) = record.refusals
    assert "give a folder of images of the same names by --targets" in refusal.reason


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("missing", "1 of 3 images have no target of their name in .*, such as b/c.png"),
        ("twice", "holds several files named d; expected one target for each image"),
        ("nowhere", "--targets .*: there is no such folder"),
    ],
)
def test_pairs_that_are_none_are_refused(change, sentence, drawn, targets, tmp_path) -> None:
    if change == "missing":
        (targets / "b" / "c.tif").unlink()
    elif change == "twice":
        Image.fromarray(LEVELS["d"]).save(targets / "d.png")
    else:
        targets = tmp_path / "nowhere"
    with pytest.raises(ConfigError, match=sentence):
        evaluate(drawn, out=tmp_path / "found", targets=targets)
    assert not (tmp_path / "found").exists()


def test_the_command_prints_the_figures(drawn: Path, targets: Path, tmp_path) -> None:
    from ssmdiff_cli.main import app

    words = ["evaluate", str(drawn), "--targets", str(targets), "--out", str(tmp_path / "found")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    assert [line[1] for line in lines if line[:1] == ["quality"]] == ["PSNR", "SSIM", "MAE"]
