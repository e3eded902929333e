"""What is read back: the key, the files that readers send, and the page. All are looked at as a
stranger's."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssmdiff import ConfigError, DataError

from ssmdiff_turing.study import CONFIDENCES, KEY_FORMAT, PAIRS, SINGLE, commitment

ANSWERS_FORMAT = "ssmdiff-turing-answers-1"
LARGEST = 16 * 2**20
"""Bytes of a key or of a file of answers; a page may have more."""
WORDS: dict[str, tuple[str, str]] = {SINGLE: ("real", "synthetic"), PAIRS: ("a", "b")}
"""What may be answered: of a single image what it is, of a pair which one is synthetic."""


@dataclass(frozen=True)
class Answer:
    """One answer: a word of :data:`WORDS`, and how sure the reader was."""

    judged: str
    confidence: str


@dataclass(frozen=True)
class Answers:
    """What one reader answered, by the number of the image or pair; None where nothing was."""

    path: Path
    reader: str
    given: Sequence[Answer | None]

    @property
    def count(self) -> int:
        return sum(answer is not None for answer in self.given)


@dataclass(frozen=True)
class Key:
    """The key of a study.

    Args:
        path: Its file.
        fields: As ``make`` wrote them.
    """

    path: Path
    fields: Mapping[str, Any]

    @property
    def design(self) -> str:
        return str(self.fields["design"])

    @property
    def study(self) -> str:
        """The hash that the page holds."""
        return commitment(self.fields)

    @property
    def truth(self) -> list[str]:
        """What the right answer to each image or pair is."""
        kinds = [image["kind"] for image in self.fields["images"]]
        if self.design == SINGLE:
            return kinds
        return ["a" if kind == "synthetic" else "b" for kind in kinds[::2]]


def read_key(path: Path) -> Key:
    """The key that ``make`` wrote.

    Raises:
        DataError: It is none.
    """
    fields = _json(path, "key of a study")
    images = fields.get("images")
    good = (
        fields.get("format") == KEY_FORMAT
        and fields.get("design") in tuple(WORDS)  # of any type
        and isinstance(images, list)
        and len(images) > 0
        and all(
            isinstance(image, dict)
            and image.get("kind") in ("real", "synthetic")
            and isinstance(image.get("sha256"), str)
            for image in images
        )
        and isinstance(fields.get("margin"), float)
        and 0 < fields["margin"] < 1
        and fields.get("counted") in CONFIDENCES
    )
    if not good:
        raise DataError(f"{path} is no key of a study; expected key.json of ssmdiff turing make")
    return Key(path, fields)


def read_answers(path: Path, key: Key) -> Answers:
    """A file that the page wrote, of the study of this key.

    Raises:
        DataError: It is no such file, was changed, or belongs to another study.
    """
    fields = _json(path, "file of answers")
    try:
        reader, given = fields["doctor"], fields["answers"]
        good = (
            fields["format"] == ANSWERS_FORMAT
            and isinstance(reader, str)
            and 0 < len(reader.strip()) <= 40
            and not any(unicodedata.category(letter) in ("Cc", "Cs") for letter in reader)
            and isinstance(given, list)
            and fields["design"] in WORDS
            and all(_good(item, WORDS[fields["design"]]) for item in given)
        )
    except (KeyError, TypeError):
        good = False
    if not good:
        raise DataError(
            f"{path} is no file of answers; expected what the page's button saves, "
            "answers-NAME-....json"
        )
    if fields.get("digest") != digest(fields):
        raise DataError(
            f"{path} was changed after {reader} saved it: its answers no longer have the digest "
            "that the page wrote. Ask for the file anew"
        )
    if fields["study"] != key.study or len(given) != len(key.truth):
        raise DataError(
            f"{path} holds answers to the page {str(fields['study'])[:12]}, and {key.path} is the "
            f"key of the page {key.study[:12]}; give the key that was made with that page, "
            "unchanged"
        )
    answers = [item and Answer(item["judged"], item["confidence"]) for item in given]
    return Answers(path, reader.strip(), answers)


def refuse_twice(files: Sequence[Answers]) -> None:
    """Each reader has one file.

    Raises:
        ConfigError: Two files are of one reader.
    """
    seen: dict[str, Answers] = {}
    for answers in files:
        other = seen.setdefault(answers.reader.casefold(), answers)
        if other is not answers:
            raise ConfigError(
                f"{other.path} ({other.count} answers) and {answers.path} ({answers.count}) are "
                f"both of {answers.reader}; give one file of each reader, the last that was saved"
            )


def refuse_page(path: Path, key: Key) -> None:
    """The page is the one that was made with this key, images included.

    Raises:
        DataError: It is not.
    """
    try:
        text = path.read_text(encoding="utf-8")
        (block,) = re.findall(
            r'<script type="application/json" id="study">(.*?)</script>', text, re.S
        )
        fields = json.loads(block)
        study, pictures = str(fields["study"]), [str(url) for url in fields["pictures"]]
        shown = [
            hashlib.sha256(base64.b64decode(url.partition(",")[2], validate=True)).hexdigest()
            for url in pictures
        ]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path} is no page of ssmdiff turing make: {error}") from error
    if study != key.study:
        raise DataError(
            f"{path} is the page {study[:12]}, and {key.path} the key of the page "
            f"{key.study[:12]}; the page has another key, or one of them was changed"
        )
    made = [image["sha256"] for image in key.fields["images"]]
    changed = [i + 1 for i, (a, b) in enumerate(zip(shown, made, strict=False)) if a != b]
    if changed or len(shown) != len(made):
        which = f"image {changed[0]}" if changed else "the number of images"
        raise DataError(f"{path} was changed after it was made: {which} is not that of {key.path}")


def digest(fields: Mapping[str, Any]) -> str:
    """SHA-256 over the lines of a file of answers, as the page computes it.

    It tells a change, by hand or on the way. Who means to forge answers can compute it anew.
    """
    lines = [fields["format"], fields["study"], fields["design"], fields["doctor"]]
    for item in fields["answers"]:
        lines.append("-" if item is None else f"{item['judged']} {item['confidence']} {item['at']}")
    return hashlib.sha256("\n".join(map(str, lines)).encode(errors="replace")).hexdigest()


def _good(item: Any, words: Sequence[str]) -> bool:
    return item is None or (
        isinstance(item, dict)
        and item.get("judged") in words
        and item.get("confidence") in CONFIDENCES
        and isinstance(item.get("at"), str)
    )


def _json(path: Path, what: str) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(f"{path} has more than {LARGEST >> 20} MiB, too much for a {what}")
        fields = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(fields, dict):
            raise ValueError("a table was expected")
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is no {what}: {error}") from error
    return fields
