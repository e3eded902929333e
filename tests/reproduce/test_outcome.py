"""A table from its cells: means, intervals, differences, verdicts; text, Markdown, LaTeX, HTML."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from judged import leave
from scipy import stats
from ssmdiff_reproduce import job
from ssmdiff_reproduce.forms import cells, duration, html, latex, markdown, notes, table, write
from ssmdiff_reproduce.outcome import Outcome, collect
from ssmdiff_reproduce.running import TRAINED_ON

pytestmark = pytest.mark.needs_plugin("ssmdiff_evaluate", "ssmdiff_train")

CROSS, OURS, CONV = (80.0, 90.0, 100.0), (70.0, 81.0, 89.0), (60.0, 120.0, 84.0)


@pytest.fixture
def outcome(tmp_path: Path) -> Outcome:
    planned = job.plan(
        "vm-ddpm", 2, "cpu", tmp_path, systems=["cross", "vm-ddpm", "conv", "random"]
    )
    rows = {"cross": CROSS, "vm-ddpm": OURS, "conv": CONV, "random": (75.0,)}
    leave(planned, {(name, i): v for name, row in rows.items() for i, v in enumerate(row)})
    return collect(planned)


def test_a_mean_over_seeds_has_student_s_interval(outcome: Outcome) -> None:
    line = outcome.lines[0]
    assert line.value == pytest.approx(90)
    assert line.spread == pytest.approx(10)
    expected = stats.t.interval(0.95, 2, 90, stats.sem(CROSS))
    assert line.interval == pytest.approx(expected)
    assert (line.floor, line.images_seen, line.trained_s) == (0.8, 24_000, 61.0)
    assert line.paired is None, "it is the base"


def test_systems_are_held_against_the_base_seed_by_seed(outcome: Outcome) -> None:
    _, ours, conv, random = outcome.lines
    found = stats.ttest_rel(OURS, CROSS).confidence_interval(0.95)
    assert ours.paired is not None
    assert ours.paired.interval == pytest.approx((found.low, found.high))
    assert (ours.paired.verdict, ours.paired.enough) == ("better", None)
    assert conv.paired is not None
    assert conv.paired.verdict == "undecided"
    # With this mean and spread so many seeds take 0 out of the interval; one less would not.
    spread = float(np.std(np.subtract(CONV, CROSS), ddof=1))
    enough = conv.paired.enough or 0
    reach, more = (stats.t.ppf(0.975, n - 1) * spread / np.sqrt(n) for n in (enough, enough - 1))
    assert reach < abs(conv.paired.mean) <= more
    assert random.paired is not None
    assert (random.paired.mean, random.paired.verdict) == (-5.0, "one seed")
    assert random.note == "2 of 3 seeds not computed"


def test_nothing_is_held_against_the_paper_where_it_may_not_be(outcome: Outcome) -> None:
    cross, ours, conv, _ = outcome.lines
    assert all(line.difference is None for line in outcome.lines)
    assert cross.elsewhere == (16.783, 13.578, 40.691)
    assert ours.elsewhere == (11.783, 12.513, 34.525)
    assert conv.elsewhere == ()
    told = notes(outcome)
    assert any("no distance is held against its FID" in note for note in told)
    assert any("of the seeds, a spread of 11% of the distance." in note for note in told)
    assert any("spread of 34% of the distance: more than 20%, so the budget" in n for n in told)
    assert any("2 systems are held against one, each at 95%" in n and "10%" in n for n in told)
    assert any("undecided; if difference and spread stayed" in note for note in told)


def test_how_the_runs_were_trained_stands_below_them(tmp_path: Path) -> None:
    planned = job.plan("vm-ddpm", 1, "cpu", tmp_path)
    leave(planned, {("vm-ddpm", 0): 80.0, ("unet", 0): 70.0})
    found = collect(planned)
    told = [note for note in notes(found) if note.startswith("Trained alike")]
    (ours,) = (note for note in told if "; VM-DDPM:" in note)
    config = next(t.config for t in planned.tasks if t.cells[0].system == "vm-ddpm")
    train = config.train
    assert (
        f"{train.steps:,} steps of {train.batch_size} images, Adam at {train.learning_rate:g}"
        in ours
    )
    assert "v is predicted, T = 1000, cosine betas" in ours
    for system in ("ddpm", "ddim", "unet", "conv", "vm-unet"):
        assert planned.scale.systems[system].label in ours
    assert all("method gan, loss bce, z of 128 numbers, uniform" in n for n in told if n != ours)
    (unet_gan,) = (note for note in told if note.startswith("Trained alike, U-Net GAN:"))
    assert "discriminator's rate 2.5, betas [0.0, 0.9]" in unet_gan
    for note in set(told) - {ours, unet_gan}:
        assert "discriminator's rate as in its paper, betas as in its paper" in note
    (line,) = (line for line in found.lines if line.system == "VM-DDPM")
    assert cells(line)["multiply-adds"] == "226.3 M a call, 5.66 G an image"
    assert any("reference images, phantom of seed 1 (digest" in note for note in notes(found))


def test_a_distance_to_what_was_trained_on_is_told_to_be_one(tmp_path: Path) -> None:
    planned = job.plan("vm-ddpm", 2, "cpu", tmp_path, data={"slices": "x"}, seeds=1)
    leave(planned, {("cross", 0): 80.0})
    assert not any("trained on" in note for note in notes(collect(planned)))
    path = planned.cells[0].folder / "cell.json"
    path.write_text(path.read_text().replace("phantom of seed 1", TRAINED_ON))
    (told,) = (n for n in notes(collect(planned)) if "distances are to the images that were" in n)
    assert told.startswith("slices of a store: the store holds no image out")


def test_at_the_paper_s_scale_the_difference_stands_beside_it(tmp_path: Path) -> None:
    planned = job.plan(
        "vm-ddpm", 2, "paper", tmp_path, data={"acdc": "x"}, systems=["cross", "vm-ddpm"]
    )
    leave(planned, {("cross", 0): 42.0, ("vm-ddpm", 0): 33.525}, (30.0, 37.0), "FID")
    cross, ours = collect(planned).lines
    assert (cross.printed, ours.printed) == (40.691, 34.525)
    assert cross.difference == pytest.approx(1.309)
    assert ours.difference == pytest.approx(-1.0)
    assert ours.interval == (30.0, 37.0), "of one seed, the evaluation's own"
    assert ours.printed_paired == pytest.approx(34.525 - 40.691)
    assert cells(ours)["against"] == "-8.475, one seed"
    assert cells(ours)["paper's"] == "-6.166"


def test_a_cell_that_was_asked_for_otherwise_is_not_done(outcome: Outcome) -> None:
    planned = job.plan("vm-ddpm", 2, "cpu", outcome.planned.out, systems=["cross"], n=512)
    (line,) = collect(planned).lines
    assert line.value is None
    assert line.note == "not computed"
    longer = job.plan("vm-ddpm", 2, "cpu", outcome.planned.out, images_seen=48_000)
    assert all(line.value is None for line in collect(longer).lines)
    sets = ["train.max_hours=1", "train.checkpoint_every=7"]
    same = job.plan("vm-ddpm", 2, "cpu", outcome.planned.out, sets=sets, systems=["cross"])
    assert collect(same).lines[0].value == outcome.lines[0].value, "they alter no image"


def test_protocols_that_differ_are_named(outcome: Outcome) -> None:
    path = outcome.planned.cells[0].folder / "record.json"
    record = json.loads(path.read_text())
    record["stamp"]["protocol"]["reference"]["digest"] = "0"
    path.write_text(json.dumps(record))
    found = collect(outcome.planned)
    assert found.differing == ["reference of heads"]
    assert any("Protocols differ" in note for note in notes(found))


def test_every_form_has_every_row(outcome: Outcome) -> None:
    text, marked, tex, page = (
        table(outcome, "text"), markdown(outcome), latex(outcome), html(outcome)
    )  # fmt: skip
    for form in (text, marked, tex, page):
        assert "16.783 / 13.578 / 40.691" in form
        assert "-10 (-12.48 to -7.516), better" in form
    assert len({len(row) for row in marked.splitlines() if row.startswith("| ")}) == 1
    body = [row for row in tex.splitlines() if row.endswith(r"\\")]
    assert len(body) == 1 + 4
    assert len({row.count("&") for row in body}) == 1
    assert r"95\%" in tex
    assert all(row.startswith("%") for row in tex.split(r"\begin{tabular}")[0].splitlines())
    assert page.count("<tr>") == 1 + 4
    assert "http://" not in page
    assert "https://" not in page
    assert "This page holds synthetic images alone" in page
    assert "how VM-DDPM&#39;s images were drawn" in page
    assert "how VM-DDPM's images were drawn" in marked
    paths = write(outcome)
    assert {path.name for path in paths.values()} == {
        f"table-2.{suffix}" for suffix in ("md", "tex", "html", "json")
    }
    told = json.loads(paths["json"].read_text())
    assert told["lines"][0]["values"] == {"0": 80.0, "1": 90.0, "2": 100.0}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(43.4, "43 s"), (720, "12 min"), (12_000, "3 h 20 min"), (432_000, "5.0 days")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
