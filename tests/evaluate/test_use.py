"""Use, from a conditional run to the page: its samples' classes, what is kept, what is written."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import ssmdiff
from ssmdiff_evaluate.job import evaluate
from ssmdiff_metrics import classifying
from torch import nn

ASKED = {
    "features": ["pixels"],
    "metrics": [{"name": "classifier", "steps": 20, "seeds": 2}],
    "n": 40,
    "steps": 2,
}


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("use") / "heads"
    ssmdiff.train(
        {
            "data": {"dataset": {"name": "phantom", "length": 64}, "image_size": 16},
            "model": {
                "backbone": {"name": "vmddpm", "channels": 8, "widths": [1, 2], "layers": 1},
                "block": {"name": "conv"},
                "class_conditional": True,
            },
            "train": {"steps": 1, "batch_size": 4, "sample_every": 0, "callbacks": []},
        },
        folder,
    )
    return folder


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each training has; a network of one layer in place of MONAI's."""

    def network(channels: int, classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(256 * channels, classes))

    counts = []
    plain = classifying.answers

    def answers(levels, *arguments):
        counts.append(len(levels))
        return plain(levels, *arguments)

    monkeypatch.setattr(classifying, "densenet", network)
    monkeypatch.setattr(classifying, "answers", answers)
    return counts


@pytest.mark.slow
def test_samples_real_images_and_both_stand_in_record_table_and_page(
    conditional: Path, tmp_path: Path, trained: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "evaluations" / "one"
    record = evaluate(conditional, out=out, **ASKED)
    assert trained == [40, 40, 40, 40, 80, 80]
    assert not record.refusals
    written = json.loads((out / "record.json").read_text())
    assert {figure["section"] for figure in written["figures"]} == {"use"}
    assert written["stamp"]["metrics"]["classifier"]["steps"] == 20
    figure = record.find("AUC, trained on samples")
    assert "2 seeds" in figure.note
    assert "1024 held-out images of 1024 patients, classes healthy, lesion" in figure.note
    rows = {row["figure"]: row for row in csv.DictReader((out / "figures.csv").open())}
    assert float(rows["AUC, trained on samples (n = 40)"]["value"]) == figure.value
    page = (out / "index.html").read_text()
    assert '<th class="n">trained on real</th><th class="n">guessing</th>' in page
    cells = re.search(r"<td>AUC, trained on both \(n = 80\)</td>(.*?)</tr>", page).group(1)
    assert f'<td class="n">{record.find("AUC, trained on both").value:.4g}</td>' in cells

    trained.clear()  # what was trained is kept, though the first evaluation's folder is another
    again = evaluate(conditional, out=tmp_path / "evaluations" / "two", **ASKED)
    assert trained == []
    assert [j.figure for j in again.figures] == [j.figure for j in record.figures]
    (kept, *_) = sorted((tmp_path / "evaluations" / "cache").glob("kept-*.npy"))
    kept.unlink()  # as if it had been stopped: one of six is made anew, to the same figures
    third = evaluate(conditional, out=tmp_path / "evaluations" / "three", **ASKED)
    assert len(trained) == 1
    assert [j.figure for j in third.figures] == [j.figure for j in record.figures]


@pytest.mark.slow
def test_a_folder_of_its_samples_has_the_figures_of_the_run(
    conditional: Path, tmp_path: Path, trained: list[int]
) -> None:
    from ssmdiff_cli.main import app
    from typer.testing import CliRunner

    alone = evaluate(conditional, out=tmp_path / "run", **ASKED)
    folder = tmp_path / "images"
    arguments = ["sample", str(conditional), "--n", "40", "--steps", "2", "--out", str(folder)]
    drawn = CliRunner().invoke(app, [*arguments, "--batch-size", "64"])
    assert drawn.exit_code == 0, drawn.output
    asked = {key: value for key, value in ASKED.items() if key != "steps"}
    found = evaluate(folder, against=conditional, out=tmp_path / "folder", **asked)
    assert [j.figure.value for j in found.figures] == [j.figure.value for j in alone.figures]

    one = tmp_path / "one"
    arguments = ["sample", str(conditional), "--n", "12", "--steps", "2", "--label", "lesion"]
    assert CliRunner().invoke(app, [*arguments, "--out", str(one)]).exit_code == 0
    refused = evaluate(one, against=conditional, out=tmp_path / "other", **asked)
    assert "class 'healthy' has 0 of samples" in refused.refusals[0].reason
