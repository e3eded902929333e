"""Answers held against the key: the figures, and what is refused or said in a sentence."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
import ssmdiff
from ssmdiff import ConfigError, DataError
from ssmdiff_turing.answers import read_answers, read_key
from ssmdiff_turing.report import score_page
from studies import truths

turing = ssmdiff.job("turing")


@pytest.fixture
def key(folders, tmp_path: Path) -> Path:
    turing.make(*folders, tmp_path / "study", n=10, margin=0.2, counted="medium")
    return tmp_path / "study" / "key.json"


def judged(key: Path, wrong: int, confidence: str = "high") -> list[tuple[str, str]]:
    """Right but for the first ``wrong`` images."""
    other = {"real": "synthetic", "synthetic": "real"}
    return [(other[kind] if i < wrong else kind, confidence) for i, kind in enumerate(truths(key))]


def test_counts_are_those_of_the_answers(key, sent) -> None:
    given = judged(key, 0)
    real = [i for i, kind in enumerate(truths(key)) if kind == "real"]
    for i in real[:3]:
        given[i] = ("synthetic", "medium")
    given[real[9]] = ("synthetic", "low")  # not counted
    found = turing.score([sent(key, "AB", given)], key)
    (reader,) = found.readers
    assert reader.figures["counts"] == {
        "real": {"judged_real": 6, "judged_synthetic": 3},
        "synthetic": {"judged_real": 0, "judged_synthetic": 10},
    }
    assert (reader.answered, reader.counted, reader.dropped) == (20, 19, {"low": 1})
    assert reader.figures["precision"]["synthetic"] == pytest.approx(10 / 13)
    assert reader.figures["recall"]["real"] == pytest.approx(6 / 9)
    assert found.margin == 0.2
    assert found.post_hoc == []
    assert "AB: answers below medium confidence do not count, 1 of low" in found.notes[0]


def test_any_name_is_a_name_and_control_characters_are_none(key, sent) -> None:
    name = "می‌نا 王 Ö'Neill"  # with a zero-width non-joiner
    assert turing.score([sent(key, name, judged(key, 2), "a.json")], key).readers[0].name == name
    with pytest.raises(DataError, match="expected what the page's button saves"):
        turing.score([sent(key, "A\x1b[2J", judged(key, 2), "b.json")], key)


def test_the_files_hold_what_was_found(key, sent, tmp_path: Path) -> None:
    files = [sent(key, name, judged(key, wrong)) for name, wrong in (("AB", 4), ("<CD>", 9))]
    found = turing.score(files, key, tmp_path / "out")
    record = json.loads((tmp_path / "out" / "score.json").read_text())
    assert record == json.loads(found.to_json())
    assert [r["doctor"] for r in record["readers"]] == ["AB", "<CD>"]
    assert record["all"]["figures"]["accuracy"]["value"] == pytest.approx(27 / 40)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "score.csv").read_text())))
    by = {(row["doctor"], row["figure"]): row["value"] for row in rows}
    assert float(by["AB", "accuracy.value"]) == 0.8
    assert float(by["all doctors", "agreement.images"]) == 20
    low, high = record["all"]["figures"]["accuracy"]["over_images"]
    assert low < 27 / 40 < high
    page = (tmp_path / "out" / "score.html").read_text()
    assert page == score_page(found)
    assert "&lt;CD&gt;" in page
    assert "<CD>" not in page
    assert "data:image" not in page
    assert "heads exchanged" in page
    assert sum(image["counted"] for image in record["images"]) == 40
    assert sum(image["right"] for image in record["images"]) == 27


def test_other_rules_than_those_of_the_key_are_called_post_hoc(key, sent) -> None:
    found = turing.score([sent(key, "AB", judged(key, 5, "low"))], key, counted="low", margin=0.3)
    assert found.readers[0].counted == 20
    assert found.post_hoc == [
        "the margin was 0.2 when the study was made, and 0.3 was chosen afterwards",
        "the least confidence that counts was medium when the study was made, and low was chosen "
        "afterwards",
    ]
    assert found.notes[0].startswith("Post hoc: the margin was 0.2")


def test_one_who_stopped_half_way_is_counted_and_said(key, sent) -> None:
    given = [*judged(key, 2)[:14], *[None] * 6]
    found = turing.score([sent(key, "AB", given)], key)
    assert found.readers[0].answered == 14
    assert "AB stopped after 14 of 20; the figures are of those" in found.notes[0]


def test_one_who_answered_next_to_nothing_has_no_figures(key, sent) -> None:
    with pytest.raises(DataError, match=r"AB gave 1 answers, of which 1 count, too few"):
        turing.score([sent(key, "AB", [*judged(key, 0)[:1], *[None] * 19])], key)


def test_two_files_of_one_doctor_are_refused(key, sent) -> None:
    first = sent(key, "AB", [*judged(key, 2)[:14], *[None] * 6], "monday.json")
    second = sent(key, "ab ", judged(key, 2), "tuesday.json")
    with pytest.raises(ConfigError, match=r"monday.json \(14 answers\) and .*tuesday.json \(20\)"):
        turing.score([first, second], key)


def test_a_changed_file_is_refused(key, sent) -> None:
    path = sent(key, "AB", judged(key, 2))
    record = json.loads(path.read_text())
    record["answers"][3]["judged"] = truths(key)[3]
    record["answers"][0]["judged"] = truths(key)[0]
    path.write_text(json.dumps(record))
    with pytest.raises(DataError, match="was changed after AB saved it"):
        turing.score([path], key)


def test_the_key_of_another_page_is_refused(key, folders, sent, tmp_path: Path) -> None:
    page = turing.make(*folders, tmp_path / "other", n=10)
    path = sent(key, "AB", judged(key, 2))
    with pytest.raises(DataError, match="is the key of the page"):
        turing.score([path], tmp_path / "other" / "key.json")
    with pytest.raises(DataError, match="the page has another key"):
        turing.score([path], key, page=page)
    turing.score([path], key, page=key.parent / "handout" / "study.html")


def test_a_margin_that_was_changed_in_the_key_is_noticed(key, sent) -> None:
    path = sent(key, "AB", judged(key, 2))
    fields = json.loads(key.read_text())
    key.write_text(json.dumps(fields | {"margin": 0.4}))
    with pytest.raises(DataError, match="give the key that was made with that page, unchanged"):
        turing.score([path], key)


def test_a_page_whose_images_were_changed_is_noticed(key, sent) -> None:
    page = key.parent / "handout" / "study.html"
    text = page.read_text()
    first, second = re.findall(r"data:image/png;base64,[^\"]+", text)[:2]
    swapped = text.replace(first, "once", 1).replace(second, first, 1).replace("once", second, 1)
    page.write_text(swapped)
    with pytest.raises(DataError, match="was changed after it was made: image 1"):
        turing.score([sent(key, "AB", judged(key, 2))], key, page=page)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is no file of answers"),
        ("[1]", "a table was expected"),
        ('{"format": "ssmdiff-turing-answers-1"}', "expected what the page's button saves"),
        ('{"doctor": "AB", "answers": 3}', "expected what the page's button saves"),
    ],
)
def test_what_is_no_file_of_answers_is_refused(key, tmp_path, content, sentence) -> None:
    path = tmp_path / "answers.json"
    path.write_text(content)
    with pytest.raises(DataError, match=sentence):
        turing.score([path], key)
    with pytest.raises(DataError, match="is no key of a study"):
        turing.score([path], path)


VALUES = (None, True, -1, 1e400, "", "\ud800", "x" * 99, [], [None], {}, [[]] * 20)


def test_damaged_files_end_in_a_sentence(key, sent, tmp_path: Path) -> None:
    """Every value of a file of answers and of a key, and some bytes, replaced by what is none."""
    path = sent(key, "AB", judged(key, 2))
    known, target = read_key(key), tmp_path / "damaged.json"
    refused = 0
    for source, read in ((path, lambda p: read_answers(p, known)), (key, read_key)):
        document = json.loads(source.read_text())
        for name in document:
            for value in VALUES:
                target.write_text(json.dumps(document | {name: value}))
                try:
                    read(target)
                except DataError:
                    refused += 1
        raw = source.read_bytes()
        for place in range(0, len(raw), 97):
            target.write_bytes(raw[:place] + b"\xff{" + raw[place + 3 :])
            with pytest.raises(DataError):
                read(target)
    target.write_text("[" * 100_000)
    with pytest.raises(DataError, match="is no key of a study"):
        read_key(target)
    # What is not refused are values that no figure is made of: sources, dates, digits of a nonce.
    assert refused > 90


def test_pairs_are_scored(folders, sent, tmp_path: Path) -> None:
    turing.make(*folders, tmp_path / "study", n=12, forced_choice=True)
    key = tmp_path / "study" / "key.json"
    right = ["a" if kind == "synthetic" else "b" for kind in truths(key)[::2]]
    given = [(word, "high") for word in right]
    given[0] = ("b" if right[0] == "a" else "a", "low")
    found = turing.score([sent(key, "AB", given)], key)
    assert found.readers[0].figures["counts"]["right"] == 11
    assert found.readers[0].figures["counts"]["picked_first"] == sum(g[0] == "a" for g in given)
    assert "picked A" in (tmp_path / "study" / "score" / "score.html").read_text()
