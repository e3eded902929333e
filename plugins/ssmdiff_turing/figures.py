"""What the counts of a reader say: every statistic of the test, from scipy and statsmodels.

Rows of a table are what an image is, columns what it was judged to be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from ssmdiff import ConfigError
from statsmodels.stats import inter_rater, proportion

ALPHA = 0.05
"""Two-sided level of every test and interval."""

Figures = dict[str, Any]
"""Nested plain values, as JSON has them; None where a figure is not defined."""


@dataclass(frozen=True)
class Counts:
    """Answers about single images.

    Args:
        real: Real images (judged real, judged synthetic).
        synthetic: Synthetic images, likewise.

    Raises:
        ConfigError: A number is negative, or there is no answer about one of the kinds.
    """

    real: tuple[int, int]
    synthetic: tuple[int, int]

    def __post_init__(self) -> None:
        for kind, row in (("real", self.real), ("synthetic", self.synthetic)):
            if min(row) < 0 or sum(row) == 0:
                raise ConfigError(
                    f"answers about {kind} images are {row[0]} judged real and {row[1]} judged "
                    "synthetic; expected at least one answer, and no number below 0"
                )

    @property
    def table(self) -> NDArray[np.int64]:
        return np.array([self.real, self.synthetic])


@dataclass(frozen=True)
class Choices:
    """Answers about pairs of a real and a synthetic image.

    Args:
        right: Pairs whose synthetic image was found.
        wrong: The others.
        first: Pairs of which image A was picked, whichever it was.
    """

    right: int
    wrong: int
    first: int = 0

    def __post_init__(self) -> None:
        if min(self.right, self.wrong, self.first) < 0 or self.right + self.wrong == 0:
            raise ConfigError(
                f"answers about pairs are {self.right} right and {self.wrong} wrong; expected at "
                "least one answer, and no number below 0"
            )


def figures_of(counts: Counts, margin: float) -> Figures:
    """Tables III to V for these counts, with what the paper leaves out.

    Args:
        counts: Of one reader, or of several together.
        margin: Of the equivalence test: the shares of images judged real, of real and of synthetic
            images, count as alike where they differ by less.
    """
    (rr, rs), (sr, ss) = counts.real, counts.synthetic
    n_real, n_synthetic = rr + rs, sr + ss
    right, total = rr + ss, n_real + n_synthetic
    table = counts.table
    fisher = stats.fisher_exact(table)
    conditional = stats.contingency.odds_ratio(table)
    odds_low, odds_high = conditional.confidence_interval(1 - ALPHA)
    low, high = proportion.confint_proportions_2indep(
        rr, n_real, sr, n_synthetic, method="newcomb", compare="diff", alpha=ALPHA
    )
    return _plain(
        {
            "counts": {
                "real": {"judged_real": rr, "judged_synthetic": rs},
                "synthetic": {"judged_real": sr, "judged_synthetic": ss},
            },
            "accuracy": _share(right, total),
            "recall": {"real": rr / n_real, "synthetic": ss / n_synthetic},
            "precision": {"real": _ratio(rr, rr + sr), "synthetic": _ratio(ss, rs + ss)},
            "fisher": {
                "two_sided": fisher.pvalue,
                "less": stats.fisher_exact(table, "less").pvalue,
                "greater": stats.fisher_exact(table, "greater").pvalue,
            },
            "odds_ratio": {
                "sample": fisher.statistic,
                "conditional": conditional.statistic,
                "low": odds_low,
                "high": odds_high,
            },
            "difference": {"value": rr / n_real - sr / n_synthetic, "low": low, "high": high},
            "equivalence": equivalence(counts, margin),
            "sensitivity": sensitivity(counts),
            "other_tests": _other_tests(table),
            "power": power(n_real, n_synthetic, (rr + 0.5) / (n_real + 1), margin),
        }
    )


def figures_of_choices(choices: Choices, margin: float) -> Figures:
    """The same for pairs: chance is a half, and the margin lies on both sides of it."""
    right, total = choices.right, choices.right + choices.wrong
    p, *_ = proportion.binom_tost(right, total, 0.5 - margin, 0.5 + margin)
    return _plain(
        {
            "counts": {"right": right, "wrong": choices.wrong, "picked_first": choices.first},
            "accuracy": _share(right, total),
            "picked_first": _share(choices.first, total),
            "equivalence": {"margin": margin, "p": p, "shown": bool(p < ALPHA)},
            "sensitivity": {"d_prime": math.sqrt(2) * _z((right + 0.5) / (total + 1))},
            "power": {
                "answers": total,
                "of_accuracy": {
                    f"{share:g}": choice_power(total, share) for share in (0.6, 0.65, 0.7, 0.75)
                },
                "of_equivalence": choice_equivalence_power(total, margin),
            },
        }
    )


def equivalence(counts: Counts, margin: float) -> Figures:
    """Two one-sided tests that the shares judged real differ by less than the margin.

    ``p`` is Wald's, as textbooks have it, and ``p_score`` that of the score test, which holds its
    level where counts are small. Equivalence is shown where both are below the level.
    """
    arguments = (
        counts.real[0], sum(counts.real), counts.synthetic[0], sum(counts.synthetic),
    )  # fmt: skip
    found: Figures = {"margin": margin}
    for name, method in (("p", "wald"), ("p_score", "score")):
        with np.errstate(all="ignore"):
            tested = proportion.tost_proportions_2indep(
                *arguments, -margin, margin, method=method, compare="diff"
            )
        found[name] = float(tested.pvalue)
    known = [p for p in (found["p"], found["p_score"]) if math.isfinite(p)]
    if min(counts.real) == min(counts.synthetic) == 0:
        # Without a spread Wald's statistic is infinite: it says nothing.
        found["p"], known = None, [found["p_score"]]
    return {**found, "shown": bool(known and max(known) < ALPHA)}


def sensitivity(counts: Counts) -> Figures:
    """d' and criterion of detecting the synthetic, with the log-linear correction (Hautus 1995).

    Above 0, d' says that synthetic images were found more often than real ones were suspected, and
    the criterion that the reader leans to "real".
    """
    hits = (counts.synthetic[1] + 0.5) / (sum(counts.synthetic) + 1)
    alarms = (counts.real[1] + 0.5) / (sum(counts.real) + 1)
    return {
        "d_prime": _z(hits) - _z(alarms),
        "criterion": -(_z(hits) + _z(alarms)) / 2,
    }


def power(n_real: int, n_synthetic: int, rate: float, margin: float) -> Figures:
    """How often Fisher's test finds a true difference at these counts, and the equivalence test
    its absence.

    ``rate`` is the share of real images that are judged real; that of synthetic ones lies away
    from it by each difference, to the side where there is more room.
    """
    differences = sorted({0.05, 0.1, 0.15, 0.2, margin})
    side = -1 if rate >= 0.5 else 1
    rejected = fisher_p(n_real, n_synthetic) < ALPHA
    return {
        "real": n_real,
        "synthetic": n_synthetic,
        "rate": rate,
        "of_difference": {
            f"{difference:g}": _chance_of(rejected, rate, rate + side * difference)
            for difference in differences
            if 0 <= rate + side * difference <= 1
        },
        "of_equivalence": equivalence_power(n_real, n_synthetic, rate, margin),
    }


def fisher_power(n_real: int, n_synthetic: int, real: float, synthetic: float) -> float:
    """The chance that Fisher's two-sided p is below the level, exact over all tables."""
    return _chance_of(fisher_p(n_real, n_synthetic) < ALPHA, real, synthetic)


def equivalence_power(n_real: int, n_synthetic: int, rate: float, margin: float) -> float:
    """The chance that Wald's two one-sided tests show equivalence where both shares are ``rate``.

    Tables without any spread, of which Wald's test says nothing, count as not shown.
    """
    x, y = np.arange(n_real + 1)[:, None], np.arange(n_synthetic + 1)[None]
    with np.errstate(all="ignore"):
        above, below = (
            proportion.test_proportions_2indep(
                x, n_real, y, n_synthetic, value=value, method="wald", compare="diff",
                alternative=side,
            ).pvalue
            for value, side in ((-margin, "larger"), (margin, "smaller"))
        )  # fmt: skip
    flat = (x % n_real == 0) & (y % n_synthetic == 0)
    return _chance_of((above < ALPHA) & (below < ALPHA) & ~flat, rate, rate)


def choice_power(total: int, share: float) -> float:
    """The chance that the two-sided binomial test against a half finds that share."""
    k = np.arange(total + 1)
    p = np.minimum(
        1, 2 * np.minimum(stats.binom.cdf(k, total, 0.5), stats.binom.sf(k - 1, total, 0.5))
    )
    return float(stats.binom.pmf(k, total, share)[p < ALPHA].sum())


def choice_equivalence_power(total: int, margin: float) -> float:
    """The chance that equivalence is shown where readers only guess."""
    found = proportion.power_binom_tost(0.5 - margin, 0.5 + margin, total, 0.5, ALPHA)
    return max(0.0, float(np.atleast_1d(found)[0]))


def fisher_p(n_real: int, n_synthetic: int) -> NDArray[np.float64]:
    """Two-sided p of every table, (n_real + 1, n_synthetic + 1) by the two numbers judged real.

    The sum over all tables of the same margins that are no more likely, as scipy and R have it.
    """
    found = np.ones((n_real + 1, n_synthetic + 1))
    for judged in range(n_real + n_synthetic + 1):
        x = np.arange(max(0, judged - n_synthetic), min(judged, n_real) + 1)
        chances = stats.hypergeom.pmf(x, n_real + n_synthetic, n_real, judged)
        order = np.argsort(chances)
        sums = np.cumsum(chances[order])
        last = np.searchsorted(chances[order], chances * (1 + 1e-7), side="right") - 1
        found[x, judged - x] = np.minimum(1, sums[last])
    return found


def agreement(judged: Sequence[Sequence[int]]) -> Figures:
    """Fleiss' kappa over images that every reader judged.

    Args:
        judged: A row for each image, in it what each reader said, as numbers.
    """
    if len(judged) < 2 or len(judged[0]) < 2:
        return {"kappa": None, "images": len(judged)}
    table, _ = inter_rater.aggregate_raters(np.asarray(judged), n_cat=2)
    with np.errstate(all="ignore"):
        kappa = float(inter_rater.fleiss_kappa(table))
    return _plain({"kappa": kappa, "images": len(judged)})


def between(first: Counts, second: Counts) -> Figures:
    """Fisher's two-sided p that two readers judge alike, real and synthetic images apart."""
    return _plain(
        {
            "real": stats.fisher_exact([first.real, second.real]).pvalue,
            "synthetic": stats.fisher_exact([first.synthetic, second.synthetic]).pvalue,
        }
    )


def over_images(right: Sequence[int], given: Sequence[int]) -> tuple[float, float] | None:
    """An interval of the accuracy of several readers, by a bootstrap of images.

    Answers about one image go together, which an interval over single answers does not know.
    None where there is nothing to vary.
    """
    if len(right) < 3 or len(set(zip(right, given, strict=True))) == 1:
        return None
    found = stats.bootstrap(
        (np.asarray(right), np.asarray(given)),
        lambda r, g, axis: r.sum(axis) / g.sum(axis),
        paired=True,
        n_resamples=2000,
        confidence_level=1 - ALPHA,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def _other_tests(table: NDArray[np.int64]) -> Figures:
    """Relatives of Fisher's test, which a reader of another paper may want."""
    n_real = int(table[0].sum())
    x = int(table[0, 0])
    judged = int(table[:, 0].sum())
    law = stats.hypergeom(int(table.sum()), n_real, judged)
    two_sided = stats.fisher_exact(table).pvalue
    tails = min(law.cdf(x), law.sf(x - 1))
    empty = 0 in table.sum(0)
    return {
        "chi2": None if empty else stats.chi2_contingency(table, correction=False).pvalue,
        "chi2_yates": None if empty else stats.chi2_contingency(table).pvalue,
        "barnard": None if empty else stats.barnard_exact(table).pvalue,
        "boschloo": None if empty else stats.boschloo_exact(table).pvalue,
        "fisher_mid_p": two_sided - law.pmf(x) / 2,
        "fisher_doubled": min(1.0, 2 * tails),
    }


def _share(part: int, total: int) -> Figures:
    """A share with Wilson's interval, and the binomial test against a half."""
    low, high = proportion.proportion_confint(part, total, ALPHA, method="wilson")
    p = stats.binomtest(part, total).pvalue
    return {"value": part / total, "low": low, "high": high, "p_of_chance": p}


def _chance_of(chosen: NDArray[np.bool_], real: float, synthetic: float) -> float:
    n_real, n_synthetic = (length - 1 for length in chosen.shape)
    x = stats.binom.pmf(np.arange(n_real + 1), n_real, real)
    y = stats.binom.pmf(np.arange(n_synthetic + 1), n_synthetic, synthetic)
    return float(x @ chosen @ y)


def _ratio(part: int, total: int) -> float | None:
    return part / total if total else None


def _z(share: float) -> float:
    return float(stats.norm.ppf(share))


def _plain(found: Mapping[str, Any]) -> Figures:
    """Numbers of Python; None for what is not finite, which JSON does not know."""
    return {key: _plain_value(value) for key, value in found.items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _plain(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, np.integer):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None
