"""How many images and doctors a margin needs, before anyone looks at an image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scipy import stats
from ssmdiff import ConfigError

from ssmdiff_turing import figures

EXACT = 1500
"""Above so many images of a kind the sum over all tables gives way to the normal law."""


@dataclass(frozen=True)
class Row:
    """One design that reaches the power that was asked for.

    Args:
        doctors: How many judge every image.
        images: Of each kind; of pairs, pairs.
        answers: Of one doctor.
        equivalence: The chance that equivalence is shown where there is no difference.
        difference: The chance that a true difference as large as the margin is found.
    """

    doctors: int
    images: int
    answers: int
    equivalence: float
    difference: float


@dataclass(frozen=True)
class Plan:
    """Designs for a margin.

    Args:
        margin: Shares judged real that differ by less count as alike; of pairs, how far from a half
            the share of right answers may be.
        power: What each row reaches.
        rate: The share of images judged real.
        agreement: Correlation of two doctors' answers about one image.
        forced_choice: Pairs.
        rows: One for each number of doctors.
    """

    margin: float
    power: float
    rate: float
    agreement: float
    forced_choice: bool
    rows: Sequence[Row]

    def fields(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def make_plan(
    margin: float = 0.15,
    doctors: Sequence[int] = (1, 2, 3, 5),
    power: float = 0.8,
    rate: float = 0.5,
    agreement: float = 0.2,
    forced_choice: bool = False,
) -> Plan:
    """Images of each kind that show equivalence within a margin, for some numbers of doctors.

    m doctors who judge the same n images know as much as n m / (1 + (m - 1) agreement) independent
    answers do. What they find holds for these doctors: that others differ is not in it.

    Raises:
        ConfigError: A number is out of its range.
    """
    for name, value in (("margin", margin), ("power", power), ("rate", rate)):
        if not 0 < value < 1:
            raise ConfigError(f"{name} is {value}; expected a number between 0 and 1")
    if forced_choice and margin >= 0.5:
        raise ConfigError(f"margin is {margin}; of pairs it is below 0.5, which is chance")
    if not 0 <= agreement <= 1:
        raise ConfigError(f"agreement is {agreement}; expected a number from 0 to 1")
    if not doctors or min(doctors) < 1:
        raise ConfigError(f"doctors are {list(doctors)}; expected whole numbers from 1")
    shown = _choices(margin) if forced_choice else _singles(margin, rate)
    needed = _smallest(shown, power, _first_guess(margin, power, rate, forced_choice))
    rows = []
    for m in doctors:
        images = math.ceil(needed * (1 + (m - 1) * agreement) / m)
        known = max(1, math.floor(images * m / (1 + (m - 1) * agreement)))
        rows.append(
            Row(
                m,
                images,
                images if forced_choice else 2 * images,
                shown(known),
                _found(known, margin, rate, forced_choice),
            )
        )
    return Plan(margin, power, rate, agreement, forced_choice, rows)


def _first_guess(margin: float, power: float, rate: float, forced_choice: bool) -> int:
    z = stats.norm.ppf(1 - figures.ALPHA) + stats.norm.ppf(1 - (1 - power) / 2)
    spread = 0.25 if forced_choice else 2 * rate * (1 - rate)
    return max(2, math.ceil(float(spread * (z / margin) ** 2)))


def _smallest(shown: Callable[[int], float], power: float, guess: int) -> int:
    """The smallest n near the guess from which on twenty in a row reach the power.

    An exact power goes up in teeth; the first n that reaches it by luck is followed by some that
    do not.
    """
    if guess > EXACT:
        return guess
    n = max(2, int(guess * 0.85))
    start, run = n, 0
    while run < 20:
        if shown(n) >= power:
            run += 1
        else:
            start, run = n + 1, 0
        n += 1
    return start


def _singles(margin: float, rate: float) -> Callable[[int], float]:
    def shown(n: int) -> float:
        if n <= EXACT:
            return figures.equivalence_power(n, n, rate, margin)
        return _normal(margin, math.sqrt(2 * rate * (1 - rate) / n))

    return shown


def _choices(margin: float) -> Callable[[int], float]:
    return lambda n: (
        figures.choice_equivalence_power(n, margin)
        if n <= EXACT
        else _normal(margin, math.sqrt(0.25 / n))
    )


def _normal(margin: float, error: float) -> float:
    z = margin / error - stats.norm.ppf(1 - figures.ALPHA)
    return max(0.0, float(2 * stats.norm.cdf(z) - 1))


def _found(n: int, margin: float, rate: float, forced_choice: bool) -> float:
    """The chance that the test of a difference finds one as large as the margin."""
    if forced_choice:
        return figures.choice_power(n, min(1.0, 0.5 + margin))
    other = rate - margin if rate >= margin else rate + margin
    if n <= EXACT:
        return figures.fisher_power(n, n, rate, other)
    error = math.sqrt((rate * (1 - rate) + other * (1 - other)) / n)
    return float(stats.norm.cdf(margin / error - stats.norm.ppf(1 - figures.ALPHA / 2)))
