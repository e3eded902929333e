"""Rows of tests of a suite: a component that is wrong on purpose, and what is said of it."""

from __future__ import annotations

import pytest


def cases(*rows: tuple[dict[str, str], str | None, str], fast: int = 1) -> list[object]:
    """Each of which loads all plugins anew: the first few in every tier, the others in CI."""
    return [
        pytest.param(*row, marks=[pytest.mark.slow] if i >= fast else [])
        for i, row in enumerate(rows)
    ]
