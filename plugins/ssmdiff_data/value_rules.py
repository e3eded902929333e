"""Which stored values are black and white: one rule, worked out for a whole volume at once.

Never for a slice by itself: the brightness of neighbours would jump.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from ssmdiff import ConfigError, DataError

PERCENTILES = (0.1, 99.9)
"""What most work on MRI takes where nothing says black and white."""
HU_WINDOW = (0.0, 2000.0)
"""Centre and width: -1000 to 1000 HU."""
_FORMS = "percentile:0.1,99.9, window:CENTRE,WIDTH or range:BLACK,WHITE"

Name = Literal["percentile", "window", "range"]


class ValueRule(NamedTuple):
    """``percentile`` (low, high), ``window`` (centre, width) or ``range`` (black, white)."""

    name: Name
    first: float
    second: float

    def __str__(self) -> str:
        return f"{self.name}:{self.first:g},{self.second:g}"

    def limits(self, values: NDArray[Any]) -> tuple[float, float]:
        """Black and white of a volume, in its own units.

        Args:
            values: All of it.

        Raises:
            DataError: It holds one value alone, or none that is a number.
        """
        if self.name == "range":
            return self.first, self.second
        if self.name == "window":
            return self.first - self.second / 2, self.first + self.second / 2
        found = np.asarray(values)
        if found.dtype.kind == "f":
            found = found[np.isfinite(found)]
        if not found.size:
            raise DataError("it holds no value that is a number")
        low, high = (float(x) for x in np.percentile(found, [self.first, self.second]))
        if low == high:  # a small bright thing on black: percentiles miss it
            low, high = float(found.min()), float(found.max())
        if low == high:
            raise DataError(f"all its values are {low:g}, so nothing is black and white")
        return low, high


def parse_rule(text: str) -> ValueRule:
    """``percentile:0.1,99.9``, ``window:40,400`` or ``range:0,4095``.

    Raises:
        ConfigError: It is none of these.
    """
    name, _, rest = text.partition(":")
    parts = rest.split(",") if rest else []
    try:
        first, second = (float(part) for part in parts)
    except ValueError:
        first = second = float("nan")
    if name == "percentile" and not parts:
        first, second = PERCENTILES
    bounds = {
        "percentile": 0 <= first < second <= 100,
        "window": second > 0,
        "range": first < second,
    }
    finite = abs(first) < float("inf") and abs(second) < float("inf")
    if name not in bounds or not bounds[name] or not finite:
        raise ConfigError(f"--values {text!r}: expected {_FORMS}")
    return ValueRule(name, first, second)  # type: ignore[arg-type]


def rule_for(
    asked: ValueRule | None, value_range: tuple[float, float] | None, units: str
) -> tuple[ValueRule, str]:
    """The rule of a file, and why: the one asked for, or the one that the file itself gives."""
    if asked is not None:
        return asked, "as asked"
    if value_range is not None:
        return ValueRule("range", *value_range), "by the files' type"
    if units == "HU":
        return ValueRule("window", *HU_WINDOW), "the usual window of CT; --values chooses another"
    return (
        ValueRule("percentile", *PERCENTILES),
        "of each volume, since no black and white is known; --values chooses another",
    )


def to_unit(values: NDArray[Any], limits: tuple[float, float]) -> NDArray[np.float32]:
    """Black to white as -1 to 1, cut there; what is no number becomes black."""
    low, high = limits
    scaled = (np.asarray(values, np.float64) - low) / (high - low) * 2 - 1
    cleaned = np.nan_to_num(scaled, nan=-1.0, posinf=1.0, neginf=-1.0).clip(-1, 1)
    return np.asarray(cleaned, np.float32)
