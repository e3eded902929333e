"""Answers held against the key: what each reader and all of them found, as one record."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssmdiff import ConfigError, DataError

from ssmdiff_turing import figures
from ssmdiff_turing.answers import (
    WORDS,
    Answers,
    Key,
    read_answers,
    read_key,
    refuse_page,
    refuse_twice,
)
from ssmdiff_turing.figures import Choices, Counts, Figures
from ssmdiff_turing.study import CONFIDENCES, SINGLE

ALL = "all doctors"


@dataclass(frozen=True)
class Reader:
    """One reader, or all of them, with the figures of their counted answers."""

    name: str
    answered: int
    of: int
    dropped: Mapping[str, int]
    counted: int
    figures: Figures


@dataclass(frozen=True)
class Score:
    """The outcome of a study.

    Args:
        key: Of the study.
        margin: Of the equivalence test.
        counted: The least confidence that counts.
        post_hoc: Which of the two were set only now, in words.
        readers: Each of them.
        together: All of them, where there are several.
        agreement: Fleiss' kappa, and on how many images.
        pairs: Fisher's p between two readers, of every two.
        images: What readers said of each image.
        notes: What has to be said beside the figures, a sentence each.
    """

    key: Key
    margin: float
    counted: str
    post_hoc: Sequence[str]
    readers: Sequence[Reader]
    together: Reader | None
    agreement: Figures
    pairs: Sequence[Mapping[str, Any]]
    images: Sequence[Mapping[str, Any]]
    notes: Sequence[str]

    @property
    def everyone(self) -> list[Reader]:
        """The readers, and all of them last."""
        return [*self.readers, *([self.together] if self.together else [])]

    def fields(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "study": self.key.study,
            "design": self.key.design,
            "made": self.key.fields.get("made"),
            "margin": self.margin,
            "counted": self.counted,
            "post_hoc": list(self.post_hoc),
            "readers": [_fields(reader) for reader in self.readers],
            "all": self.together and _fields(self.together),
            "agreement": self.agreement,
            "between": list(self.pairs),
            "images": list(self.images),
            "notes": list(self.notes),
        }

    def to_json(self) -> str:
        return json.dumps(self.fields(), indent=2) + "\n"

    def to_csv(self) -> str:
        """Every figure of every reader, one a row."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["doctor", "figure", "value"])
        for reader in self.everyone:
            own = {"answered": reader.answered, "of": reader.of, "counted": reader.counted}
            own |= {f"dropped.{word}": number for word, number in reader.dropped.items()}
            for name, value in {**own, **_flat(reader.figures)}.items():
                writer.writerow([reader.name, name, "" if value is None else value])
        for name, value in _flat(self.agreement, "agreement").items():
            writer.writerow([ALL, name, "" if value is None else value])
        return text.getvalue()


def score_answers(
    files: Sequence[Path],
    key: Path,
    *,
    margin: float | None = None,
    counted: str | None = None,
    page: Path | None = None,
) -> Score:
    """Hold what readers sent against the key.

    Args:
        files: One of each reader.
        key: Of the page.
        margin: Another than was set when the study was made; said to be post hoc.
        counted: Another least confidence, likewise.
        page: The page, to be held against the key as well.

    Raises:
        ConfigError: There are no files, two of one reader, or a number is out of its range.
        DataError: A file is not what it should be, was changed, or belongs to another page.
    """
    if not files:
        raise ConfigError("no answers were given; expected a file of each doctor")
    if margin is not None and not 0 < margin < 1:
        raise ConfigError(f"margin is {margin}; expected a number between 0 and 1")
    if counted is not None and counted not in CONFIDENCES:
        raise ConfigError(f"counted is {counted!r}; expected {', '.join(CONFIDENCES)}")
    known = read_key(Path(key))
    if page is not None:
        refuse_page(Path(page), known)
    answers = [read_answers(Path(path), known) for path in files]
    refuse_twice(answers)
    before = known.fields
    chosen_margin = before["margin"] if margin is None else margin
    chosen = before["counted"] if counted is None else counted
    if known.design != SINGLE and chosen_margin >= 0.5:
        raise ConfigError(f"margin is {chosen_margin}; of pairs it is below 0.5, which is chance")
    post_hoc = [
        f"the {name} was {was} when the study was made, and {now} was chosen afterwards"
        for name, was, now in (
            ("margin", before["margin"], chosen_margin),
            ("least confidence that counts", before["counted"], chosen),
        )
        if was != now
    ]
    readers = [_reader(known, given, chosen_margin, chosen) for given in answers]
    together = _together(known, answers, readers, chosen_margin, chosen)
    return Score(
        known,
        chosen_margin,
        chosen,
        post_hoc,
        readers,
        together,
        _agreement(known, answers, chosen),
        _between(known, readers),
        _images(known, answers, chosen),
        _notes(readers, together, chosen, post_hoc),
    )


def _counts_for(answer: Any, counted: str) -> bool:
    return answer is not None and CONFIDENCES.index(answer.confidence) >= CONFIDENCES.index(counted)


def _reader(key: Key, answers: Answers, margin: float, counted: str) -> Reader:
    kept = [(t, a) for t, a in zip(key.truth, answers.given, strict=True) if a is not None]
    used = [(t, a.judged) for t, a in kept if _counts_for(a, counted)]
    dropped = Counter(a.confidence for _, a in kept if not _counts_for(a, counted))
    words = {str(word): dropped[word] for word in CONFIDENCES[: CONFIDENCES.index(counted)]}
    try:
        found = _figures(key, used, margin)
    except ConfigError as error:
        raise DataError(
            f"{answers.path}: {answers.reader} gave {answers.count} answers, of which {len(used)} "
            f"count, too few for any figure ({error}). Leave that file out"
        ) from error
    return Reader(answers.reader, len(kept), len(key.truth), words, len(used), found)


def _figures(key: Key, used: Sequence[tuple[str, str]], margin: float) -> Figures:
    seen = Counter(used)
    if key.design == SINGLE:
        real, synthetic = (
            (seen[kind, "real"], seen[kind, "synthetic"]) for kind in ("real", "synthetic")
        )
        return figures.figures_of(Counts(real, synthetic), margin)
    right = sum(number for (truth, judged), number in seen.items() if truth == judged)
    first = sum(number for (_, judged), number in seen.items() if judged == "a")
    return figures.figures_of_choices(Choices(right, len(used) - right, first), margin)


def _together(
    key: Key, answers: Sequence[Answers], readers: Sequence[Reader], margin: float, counted: str
) -> Reader | None:
    if len(readers) < 2:
        return None
    rows = [
        [(truth, a.judged) for a in one if a is not None and _counts_for(a, counted)]
        for truth, one in zip(key.truth, zip(*(a.given for a in answers), strict=True), strict=True)
    ]
    found = _figures(key, [pair for row in rows for pair in row], margin)
    given = [row for row in rows if row]
    interval = figures.over_images(
        [sum(truth == judged for truth, judged in row) for row in given], [len(r) for r in given]
    )
    found["accuracy"]["over_images"] = None if interval is None else list(interval)
    dropped = {word: sum(r.dropped[word] for r in readers) for word in readers[0].dropped}
    return Reader(
        ALL,
        sum(r.answered for r in readers),
        sum(r.of for r in readers),
        dropped,
        sum(r.counted for r in readers),
        found,
    )


def _agreement(key: Key, answers: Sequence[Answers], counted: str) -> Figures:
    words = WORDS[key.design]
    rows = [
        [words.index(a.judged) for a in one if a is not None]
        for one in zip(*(a.given for a in answers), strict=True)
        if all(_counts_for(a, counted) for a in one)
    ]
    return figures.agreement(rows)


def _between(key: Key, readers: Sequence[Reader]) -> list[dict[str, Any]]:
    if key.design != SINGLE:
        return []
    found = []
    for a, b in itertools.combinations(readers, 2):
        first, second = (
            Counts(*(tuple(r.figures["counts"][kind].values()) for kind in ("real", "synthetic")))
            for r in (a, b)
        )
        found.append({"first": a.name, "second": b.name, **figures.between(first, second)})
    return found


def _images(key: Key, answers: Sequence[Answers], counted: str) -> list[dict[str, Any]]:
    """What was said of each image, so that one may look at those that gave the model away."""
    step = 1 if key.design == SINGLE else 2
    found = []
    for i, truth in enumerate(key.truth):
        said = [a.given[i] for a in answers]
        judged = [a.judged for a in said if a is not None and _counts_for(a, counted)]
        shown = key.fields["images"][i * step : (i + 1) * step]
        found.append(
            {
                "number": i + 1,
                "kinds": [image["kind"] for image in shown],
                "indices": [image.get("index") for image in shown],
                "right": sum(word == truth for word in judged),
                "counted": len(judged),
            }
        )
    return found


def _notes(
    readers: Sequence[Reader], together: Reader | None, counted: str, post_hoc: Sequence[str]
) -> list[str]:
    notes = [f"Post hoc: {text}." for text in post_hoc]
    for reader in readers:
        if reader.answered < reader.of:
            notes.append(
                f"{reader.name} stopped after {reader.answered} of {reader.of}; the figures are of "
                "those, and say less than the design promised."
            )
    for reader in readers:
        if reader.dropped:
            parts = ", ".join(f"{number} of {word}" for word, number in reader.dropped.items())
            notes.append(
                f"{reader.name}: answers below {counted} confidence do not count, {parts} "
                f"confidence; {reader.counted} of {reader.answered} are left."
            )
    if together is not None:
        notes.append(
            "Of all doctors together: p-values, and intervals but that over images, take answers "
            "for independent, which answers about one image are not; and they say nothing of other "
            "doctors."
        )
    return notes


def _fields(reader: Reader) -> dict[str, Any]:
    return {
        "doctor": reader.name,
        "answered": reader.answered,
        "of": reader.of,
        "dropped": dict(reader.dropped),
        "counted": reader.counted,
        "figures": reader.figures,
    }


def _flat(figures: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in figures.items():
        name = f"{path}.{key}" if path else key
        if isinstance(value, Mapping):
            found |= _flat(value, name)
        elif isinstance(value, list):
            found |= {f"{name}.{i}": part for i, part in enumerate(value)}
        else:
            found[name] = value
    return found
