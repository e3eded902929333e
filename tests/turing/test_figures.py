"""The statistics, against what the paper printed, closed forms, loops and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from ssmdiff import ConfigError
from ssmdiff_turing import figures
from ssmdiff_turing.figures import Choices, Counts

DOCTORS = {
    "first": Counts((86, 14), (81, 17)),
    "second": Counts((44, 28), (58, 21)),
}
KNOWN = {
    "fisher.two_sided": (0.5613633789558615, 0.11981827985236218),
    "fisher.less": (0.80042, 0.07500),
    "fisher.greater": (0.32563, 0.96316),
    "odds_ratio.sample": (1.28924, 0.56897),
    "odds_ratio.conditional": (1.28759, 0.57112),
    "odds_ratio.low": (0.55668, 0.26916),
    "odds_ratio.high": (3.02167, 1.19667),
    "other_tests.chi2": (0.51700, 0.10668),
    "other_tests.chi2_yates": (0.65099, 0.15007),
    "other_tests.barnard": (0.60137, 0.11253),
    "other_tests.boschloo": (0.52647, 0.11297),
    "other_tests.fisher_doubled": (0.65126, 0.15000),
    "other_tests.fisher_mid_p": (0.49834, 0.10074),
    "recall.real": (0.860, 0.611),
    "recall.synthetic": (0.173, 0.266),
    "precision.real": (0.515, 0.431),
    "precision.synthetic": (0.548, 0.429),
    "accuracy.value": (0.5202, 0.4305),
    "accuracy.low": (0.4509, 0.3542),
    "accuracy.high": (0.5887, 0.5102),
    "accuracy.p_of_chance": (0.619, 0.103),
    "sensitivity.d_prime": (0.137, -0.338),
    "sensitivity.criterion": (0.996, 0.447),
    "difference.value": (0.0335, -0.123),
    "difference.low": (-0.069, -0.266),
    "difference.high": (0.136, 0.026),
    "equivalence.p": (0.0120, 0.361),
}
"""Of the two doctors of the paper, margin 0.15; as many digits as were written down."""


def at(found: dict, path: str):
    for part in path.split("."):
        found = found[part]
    return found


@pytest.fixture(scope="module")
def found() -> list[dict]:
    return [figures.figures_of(counts, 0.15) for counts in DOCTORS.values()]


@pytest.mark.parametrize("path", KNOWN)
def test_the_paper_s_counts_give_the_known_figures(found, path: str) -> None:
    for ours, known in zip(found, KNOWN[path], strict=True):
        digits = len(repr(known).partition(".")[2])
        if digits > 10:
            assert at(ours, path) == pytest.approx(known, rel=1e-13)
        else:  # trailing zeros are not in a float: three digits at least were written
            assert abs(at(ours, path) - known) <= 0.51 * 10 ** -max(digits, 3)


@pytest.mark.parametrize(
    ("margin", "first", "second"),
    [(0.10, 0.0988, 0.619), (0.15, 0.0120, 0.361), (0.20, 0.0006, 0.156)],
)
def test_equivalence_is_walds_two_one_sided_tests(margin, first, second) -> None:
    for counts, known in zip(DOCTORS.values(), (first, second), strict=True):
        (a, b), (c, d) = counts.real, counts.synthetic
        p, q = a / (a + b), c / (c + d)
        error = math.sqrt(p * (1 - p) / (a + b) + q * (1 - q) / (c + d))
        nearer = (margin - abs(p - q)) / error
        ours = figures.equivalence(counts, margin)
        assert ours["p"] == pytest.approx(stats.norm.sf(nearer), rel=1e-9)
        assert ours["p"] == pytest.approx(known, abs=6e-4)
        assert ours["shown"] is (max(ours["p"], ours["p_score"]) < 0.05)


def test_equivalence_without_a_spread_is_left_to_the_score_test() -> None:
    ours = figures.equivalence(Counts((30, 0), (30, 0)), 0.15)
    assert ours["p"] is None  # Wald's would be 0, for any number of answers
    assert ours["p_score"] == pytest.approx(0.0131, abs=2e-3)
    assert figures.equivalence(Counts((4, 0), (4, 0)), 0.15)["shown"] is False


def test_doctors_judge_unlike_each_other() -> None:
    ours = figures.between(*DOCTORS.values())
    assert ours["real"] == pytest.approx(0.00027, abs=5e-6)
    assert ours["synthetic"] == pytest.approx(0.1456, abs=5e-5)


def test_every_table_has_scipys_p() -> None:
    ours = figures.fisher_p(9, 7)
    for x in range(10):
        for y in range(8):
            expected = stats.fisher_exact([[x, 9 - x], [y, 7 - y]]).pvalue
            assert ours[x, y] == pytest.approx(expected, rel=1e-9), (x, y)


@pytest.mark.parametrize(
    ("synthetic", "known"), [(0.80, 0.1149), (0.75, 0.3586), (0.70, 0.6688), (0.65, 0.8853)]
)
def test_the_power_of_the_design_is_what_simulation_finds(synthetic: float, known: float) -> None:
    """Facts have 0.10, 0.35, 0.66 and 0.87, of a simulation; the sum over all tables is exact."""
    exact = figures.fisher_power(100, 100, 0.85, synthetic)
    assert exact == pytest.approx(known, abs=5e-5)
    rng = np.random.default_rng(0)
    x, y = rng.binomial(100, 0.85, 40_000), rng.binomial(100, synthetic, 40_000)
    share = (figures.fisher_p(100, 100)[x, y] < 0.05).mean()
    assert exact == pytest.approx(share, abs=4 * math.sqrt(exact * (1 - exact) / 40_000))


def test_power_of_equivalence_is_what_simulation_finds() -> None:
    exact = figures.equivalence_power(60, 50, 0.7, 0.25)
    rng = np.random.default_rng(1)
    p, q = rng.binomial(60, 0.7, 40_000) / 60, rng.binomial(50, 0.7, 40_000) / 50
    error = np.sqrt(p * (1 - p) / 60 + q * (1 - q) / 50)
    shown = (0.25 - abs(p - q)) / error > stats.norm.ppf(0.95)
    assert exact == pytest.approx(shown.mean(), abs=0.012)
    assert figures.equivalence_power(30, 30, 1.0, 0.15) == 0  # nothing varies, nothing is shown


def test_a_reader_who_says_one_thing_only_has_figures_still() -> None:
    ours = figures.figures_of(Counts((20, 0), (20, 0)), 0.15)
    assert ours["accuracy"]["value"] == 0.5
    assert ours["precision"]["synthetic"] is None
    assert ours["fisher"]["two_sided"] == 1
    assert ours["sensitivity"]["d_prime"] == 0
    assert ours["other_tests"]["barnard"] is None


def test_pairs_are_held_against_a_half() -> None:
    ours = figures.figures_of_choices(Choices(60, 40, 55), 0.15)
    assert ours["accuracy"]["value"] == 0.6
    assert ours["accuracy"]["p_of_chance"] == pytest.approx(
        2 * sum(math.comb(100, k) for k in range(60, 101)) / 2**100
    )
    # The larger of the two tails: 60 right or fewer, were the truth 0.65.
    expected = sum(math.comb(100, k) * 0.65**k * 0.35 ** (100 - k) for k in range(61))
    assert ours["equivalence"]["p"] == pytest.approx(expected)
    assert ours["sensitivity"]["d_prime"] == pytest.approx(
        math.sqrt(2) * stats.norm.ppf(60.5 / 101)
    )
    assert figures.choice_power(100, 0.5) <= 0.05
    tail = [*range(40), *range(61, 101)]  # 60 of 100 has p 0.057
    power = sum(math.comb(100, k) * 0.6**k * 0.4 ** (100 - k) for k in tail)
    assert ours["power"]["of_accuracy"]["0.6"] == pytest.approx(power, abs=1e-6)


def test_kappa_is_fleiss() -> None:
    judged = [[0, 0, 1], [1, 1, 1], [0, 1, 0], [0, 0, 0], [1, 1, 0]]
    table = np.array([[row.count(0), row.count(1)] for row in judged])
    within = ((table**2).sum(1) - 3) / (3 * 2)
    share = table.sum(0) / table.sum()
    by_hand = (within.mean() - (share**2).sum()) / (1 - (share**2).sum())
    assert figures.agreement(judged) == {"kappa": pytest.approx(by_hand), "images": 5}
    assert figures.agreement([[0, 0], [0, 0]])["kappa"] is None


def test_counts_without_one_kind_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least one answer"):
        Counts((0, 0), (3, 4))
    with pytest.raises(ConfigError, match="no number below 0"):
        Counts((-1, 3), (3, 4))
