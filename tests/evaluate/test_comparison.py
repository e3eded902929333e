"""Evaluations beside each other: ranked where the protocols agree, refused in words where not."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from ssmdiff import ConfigError, DataError
from ssmdiff_evaluate.compare import compare

PROTOCOL = {"features": {"pixels": {"digest": "a"}}, "samples": {"count": 100}, "seed": 0}


def written(
    folder: Path, figures: dict[str, tuple[float, tuple[float, float] | None, str]], **protocol
) -> Path:
    """A record as an evaluation writes it, with figures of the test's choice."""
    folder.mkdir(parents=True)
    rows = [
        {
            "name": name,
            "value": value,
            "interval": interval,
            "better": better,
            "reference": 0.5 if better == "reference" else None,
            "metric": "frechet",
        }
        for name, (value, interval, better) in figures.items()
    ]
    metrics = protocol.pop("metrics", {})
    record = {
        "stamp": {"protocol": PROTOCOL | protocol, "metrics": metrics},
        "figures": rows,
        "model": {"device": "cpu", "parameters": 12_345_678},
    }
    (folder / "record.json").write_text(json.dumps(record))
    return folder


def best_of(comparison, figure: str) -> list[str]:
    (row,) = (row for row in comparison.rows if row.name == figure)
    return [n for n, cell in zip(comparison.names, row.cells, strict=True) if cell.best]


@pytest.mark.parametrize(
    ("a", "b", "better", "best"),
    [
        ((1.0, (0.9, 1.1)), (2.0, (1.8, 2.2)), "lower", ["a"]),
        ((1.0, (0.9, 1.1)), (2.0, (1.8, 2.2)), "higher", ["b"]),
        ((1.0, (0.5, 1.9)), (2.0, (1.8, 2.2)), "lower", []),  # the intervals meet
        ((0.45, None), (0.9, None), "reference", ["a"]),
        ((0.1, None), (0.6, None), "reference", ["b"]),
    ],
)
def test_the_best_is_told_where_its_interval_reaches_no_other(
    tmp_path: Path, a, b, better, best
) -> None:
    first = written(tmp_path / "a", {"x": (*a, better)})
    second = written(tmp_path / "b", {"x": (*b, better)})
    assert best_of(compare([first, second]), "x") == best


def test_other_protocols_are_named_and_nothing_is_ranked(tmp_path: Path) -> None:
    first = written(tmp_path / "a", {"x": (1.0, None, "lower")})
    second = written(tmp_path / "b", {"x": (2.0, None, "lower")}, samples={"count": 50})
    found = compare([first, second])
    assert found.differences == ["samples.count is 100 of a and 50 of b"]
    assert best_of(found, "x") == []


def test_the_table_in_four_forms_holds_the_same_numbers(tmp_path: Path) -> None:
    first = written(tmp_path / "a", {"x_1": (1.25, (1.0, 1.5), "lower"), "y": (3.0, None, "lower")})
    second = written(tmp_path / "b", {"x_1": (2.5, (2.0, 3.0), "lower")})
    found = compare([first, second], tmp_path / "out")
    rows = list(csv.reader(io.StringIO(found.to("csv"))))
    assert rows == [
        ["figure", "a value", "a low", "a high", "b value", "b low", "b high"],
        ["x_1", "1.25", "1.0", "1.5", "2.5", "2.0", "3.0"],
        ["y", "3.0", "", "", "", "", ""],
        ["device", "cpu", "", "", "cpu", "", ""],
        ["parameters", "12345678", "", "", "12345678", "", ""],
    ]
    markdown = found.to("markdown").splitlines()
    assert [cell.strip() for cell in markdown[2].split("|")[1:-1]] == [
        "x_1", "**1.25 (1 to 1.5)**", "2.5 (2 to 3)"
    ]  # fmt: skip
    assert r"x\_1 & \textbf{1.25 (1 to 1.5)} & 2.5 (2 to 3) \\" in found.to("latex")
    assert "1.25 (1 to 1.5) *" in found.to("text")
    assert [cell.strip() for cell in markdown[-1].split("|")[1:-1]] == [
        "parameters", "12.35 M", "12.35 M"
    ]  # fmt: skip
    assert found.to("text").splitlines()[-1].split("  ")[0] == "parameters"
    assert r"parameters & 12.35 M & 12.35 M \\" in found.to("latex")
    for suffix in ("md", "csv", "tex", "html"):
        assert (tmp_path / "out" / f"comparison.{suffix}").is_file()


def test_other_options_of_a_metric_that_both_asked_are_named(tmp_path: Path) -> None:
    asked = ({"copies": {}, "manifold": {"neighbours": 5}}, {"manifold": {"neighbours": 3}})
    paths = [
        written(tmp_path / name, {"x": (value, None, "lower")}, metrics=options)
        for name, value, options in (("a", 1.0, asked[0]), ("b", 2.0, asked[1]))
    ]
    found = compare(paths)
    assert found.differences == ["metrics.manifold.neighbours is 5 of a and 3 of b"]
    assert best_of(found, "x") == []


def test_a_loss_is_read_over_images_and_over_seconds_of_its_steps(tmp_path: Path) -> None:
    from ssmdiff_evaluate.pictures import read_loss

    rows = [
        {"step": 1, "images_seen": 10, "loss": 3.0, "images_per_s": 5.0},
        {"step": 1, "fid": 2.0},
        {"step": 2, "images_seen": 20, "loss": 2.0, "images_per_s": 20.0},
        {"step": 3, "images_seen": 40, "loss": 1.0, "images_per_s": 10.0},
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metrics.jsonl").write_text(lines + '{"step": 4, "lo')
    found = read_loss(tmp_path / "metrics.jsonl", 10)
    assert found.loss.tolist() == [3, 2, 1]
    assert found.seen.tolist() == [10, 20, 40]
    assert found.seconds.tolist() == [2, 2.5, 4.5]
    assert read_loss(tmp_path / "none.jsonl", 10) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [("cpu", "cpu"), (7, "7"), (1.2345, "1.234"), (12_345, "12.35 K"), (8.76e9, "8.76 G")],
)
def test_a_fact_in_short(value, text: str) -> None:
    from ssmdiff_evaluate.cost import in_short

    assert in_short(value) == text


def test_two_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [written(tmp_path / side / "run", {"x": (1.0, None, "lower")}) for side in "ab"]
    assert compare(paths).names == ["run", "run (2)"]


def test_the_newest_evaluation_of_a_run_is_taken(tmp_path: Path) -> None:
    import os

    old = written(tmp_path / "run" / "evaluations" / "old", {"x": (1.0, None, "lower")})
    new = written(tmp_path / "run" / "evaluations" / "new", {"x": (2.0, None, "lower")})
    os.utime(old / "record.json", (1, 1))
    assert compare([tmp_path / "run", old]).told[0].folder == new


def test_what_is_no_evaluation_is_refused(tmp_path: Path) -> None:
    one = written(tmp_path / "a", {"x": (1.0, None, "lower")})
    with pytest.raises(ConfigError, match="at least two"):
        compare([one])
    with pytest.raises(ConfigError, match=r"holds no evaluation; make one with: ssmdiff evaluate"):
        compare([one, tmp_path])
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "record.json").write_text('{"figures": 3}')
    with pytest.raises(DataError, match="is no record of an evaluation"):
        compare([one, tmp_path / "b"])


def test_figures_are_worded_as_on_the_page_of_an_evaluation(tmp_path):
    figures = {"FD": (14263.4, (9999.6, 1e6), "lower"), "density": (0.00002, None, "reference")}
    for name in "ab":
        written(tmp_path / name, figures)
    rows = compare([tmp_path / "a", tmp_path / "b"]).rows
    assert [(row.cells[0].text, row.better) for row in rows[:2]] == [
        ("14263 (10000 to 1.000e+06)", "lower"),
        ("2.000e-05", "as real images"),
    ]
