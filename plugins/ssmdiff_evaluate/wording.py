"""How a figure is worded, on the page of an evaluation and in a comparison."""

from __future__ import annotations

BETTER = {"lower": "lower", "higher": "higher", "reference": "as real images"}
"""By ``Figure.better``."""


def number(value: float) -> str:
    """Four significant digits, without an exponent where that is short."""
    if 9999.5 <= abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:.4g}" if value == 0 or 1e-4 <= abs(value) < 1e6 else f"{value:.3e}"
