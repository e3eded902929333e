"""The table of README.md names tests that are there, and every file of a kind."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
TABLE = Path(__file__).with_name("README.md").read_text(encoding="utf-8")


def test_every_test_that_is_named_is_there() -> None:
    named = re.findall(r"`?([a-z_]+/test_\w+\.py)(?:::(test_\w+))?", TABLE)
    assert len(named) > 100
    for file, test in named:
        text = (TESTS / file).read_text(encoding="utf-8")
        assert not test or f"def {test}(" in text, (file, test)


def test_every_file_of_a_kind_is_named() -> None:
    for path in Path(__file__).parent.glob("test_kind_*.py"):
        assert path.name in TABLE
