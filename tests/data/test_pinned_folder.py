"""The data set ``folder`` has the pixels and the fingerprints that it had before readers."""

from __future__ import annotations

from pathlib import Path

from pinned_folder import digests

BEFORE = {
    "grey": "70af7f36a9a79b91",
    "deep": "56092217d64c10a9",
    "palette": "936bb61f80351769",
    "colour": "022467909a519d9e",
    "alpha": "1bc4538e8ea4bdde",
    "alpha over a window": "2faf1b3c9a901bd1",
    "grey alpha": "5d57a2a0a242cf35",
    "bits": "c3b7131904f815f5",
    "turned": "6004913370988e6e",
    "float": "0ed2ad8349c36bbc",
    "signed": "2f1987ff395dd697",
    "wide": "f6bcffbf7d2a3349",
    "white is zero": "57b89a33ebe08b96",
    "third axis": "96385521d07f7c27",
}
"""Made by the reader of commit bdc2fba, the last one before there was the kind ``reader``."""


def test_no_pixel_and_no_fingerprint_has_moved(tmp_path: Path) -> None:
    assert digests(tmp_path) == BEFORE
