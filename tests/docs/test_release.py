"""What a release says of itself: one version, a citation that is read, names that exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import ssmdiff

ROOT = Path(__file__).parents[2]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
CITATION = (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_the_newest_heading_of_the_changelog_is_this_version() -> None:
    headings = re.findall(r"^## (\S+), (unreleased|\d{4}-\d\d-\d\d)$", CHANGELOG, re.MULTILINE)
    assert headings[0][0] == ssmdiff.__version__
    assert headings == sorted(headings, key=lambda heading: heading[0], reverse=True)


def test_the_citation_has_this_version_and_licence() -> None:
    fields = dict(re.findall(r"^([\w-]+): (.+)$", CITATION, re.MULTILINE))
    assert fields["version"] == ssmdiff.__version__
    assert fields["license"] == "Apache-2.0"
    assert fields["cff-version"] == "1.2.0"


def test_the_names_that_moved_are_where_the_changelog_says() -> None:
    rows = re.findall(r"^ *\| `(ssmdiff[\w.]*)`: (.+) \| `([\w.]+)` \|$", CHANGELOG, re.MULTILINE)
    names = [(new, name) for _, names, new in rows for name in re.findall(r"`(\w+)`", names)]
    assert len(names) > 50
    missing = [
        f"{new}.{name}" for new, name in names if not hasattr(importlib.import_module(new), name)
    ]
    assert missing == []
