"""Studies of small images, and answers as the page writes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from studies import PLANTED, write_images


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """(synthetic, real): twelve of each, 16 x 16."""
    synthetic = write_images(tmp_path / "drawn", 12, smooth=False, seed=0)
    real = write_images(tmp_path / "real", 12, smooth=True, seed=1, name=PLANTED[2] + "-{i}")
    return synthetic, real


@pytest.fixture
def sent(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file of answers to a key: ``sent(key, "AB", [("real", "high"), None, ...])``."""

    def write(
        key: Path, reader: str, given: Sequence[tuple[str, str] | None], name: str | None = None
    ) -> Path:
        fields = json.loads(key.read_text())
        known = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        answers = [
            None if item is None else {"judged": item[0], "confidence": item[1], "at": "2026"}
            for item in given
        ]
        record = {
            "format": "ssmdiff-turing-answers-1",
            "study": hashlib.sha256(known.encode()).hexdigest(),
            "design": fields["design"],
            "doctor": reader,
            "answers": answers,
        }
        lines = [record["format"], record["study"], record["design"], reader]
        lines += ["-" if i is None else f"{i[0]} {i[1]} 2026" for i in given]
        record["digest"] = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        path = tmp_path / (name or f"answers-{reader}.json")
        path.write_text(json.dumps(record))
        return path

    return write
