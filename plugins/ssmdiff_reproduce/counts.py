"""Tables III to V of VM-DDPM: every figure of a visual Turing test, from the counts alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import ssmdiff

from ssmdiff_reproduce.papers import VM_DDPM

MARGINS = (0.10, 0.15, 0.20)
NOTE = (
    'The paper\'s heads "Precision" and "Recall" are exchanged: what it calls precision is the '
    "share of a kind that was recognised, which is recall, and the other way round."
)


@dataclass(frozen=True)
class Line:
    """One figure.

    Args:
        table: Of the paper; empty where it prints no such figure.
        of: Whose it is.
        figure: What it is, rightly named.
        printed: In the paper; None where it prints none.
        computed: Here.
    """

    table: str
    of: str
    figure: str
    printed: float | None
    computed: float | None

    @property
    def agrees(self) -> bool | None:
        """Whether the figure, rounded as printed, is the printed one; None where none is."""
        if self.printed is None or self.computed is None:
            return None
        digits = len(f"{self.printed:.10f}".rstrip("0").partition(".")[2])
        return abs(self.computed - self.printed) <= 0.5000001 * 0.1 ** max(digits, 3)


@dataclass(frozen=True)
class Reproduction:
    """Tables of a paper, computed anew."""

    paper: str
    lines: Sequence[Line]
    notes: Sequence[str]

    def fields(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def from_counts(paper: str) -> Reproduction:
    """Tables III to V, from the counts of III and IV.

    Raises:
        PluginNotFoundError: The job ``turing`` is not installed.
    """
    turing = ssmdiff.job("turing")
    lines: list[Line] = []
    for name, doctor in VM_DDPM.items():
        margins = {m: turing.figures(doctor.real, doctor.synthetic, m) for m in MARGINS}
        found = margins[MARGINS[0]]
        for i, kind in enumerate(("real", "synthetic")):
            lines += [
                Line(
                    doctor.table, name, f"recall, {kind}", doctor.per_kind[i], found["recall"][kind]
                ),
                Line(
                    doctor.table,
                    name,
                    f"precision, {kind}",
                    doctor.per_judgement[i],
                    found["precision"][kind],
                ),
            ]
        lines.append(
            Line("V", name, "Fisher, two-sided p", doctor.fisher, found["fisher"]["two_sided"])
        )
        lines += [Line("", name, label, None, value) for label, value in _more(found).items()]
        lines += [
            Line("", name, f"equivalence within {m:.2f}, p", None, f["equivalence"]["p"])
            for m, f in margins.items()
        ]
    readers = [(doctor.real, doctor.synthetic) for doctor in VM_DDPM.values()]
    for kind, p in turing.between(*readers).items():
        lines.append(Line("", "both", f"Fisher between the doctors, {kind}, p", None, p))
    for rate in (0.80, 0.75, 0.70, 0.65):
        chance = turing.fisher_power((100, 100), (0.85, rate))
        lines.append(Line("", "design", f"power, 0.85 against {rate:.2f}", None, chance))
    return Reproduction(paper, lines, [NOTE])


def _more(found: dict[str, Any]) -> dict[str, float | None]:
    """What the paper does not print, and a reader of table V wants to know."""
    accuracy, odds, gap = found["accuracy"], found["odds_ratio"], found["difference"]
    others = found["other_tests"]
    return {
        "Fisher, one-sided less": found["fisher"]["less"],
        "Fisher, one-sided greater": found["fisher"]["greater"],
        "Fisher, one-sided doubled": others["fisher_doubled"],
        "Fisher, mid-p": others["fisher_mid_p"],
        "odds ratio, sample": odds["sample"],
        "odds ratio, conditional": odds["conditional"],
        "odds ratio, low": odds["low"],
        "odds ratio, high": odds["high"],
        "chi-squared p": others["chi2"],
        "chi-squared p, Yates": others["chi2_yates"],
        "Barnard p": others["barnard"],
        "Boschloo p": others["boschloo"],
        "accuracy": accuracy["value"],
        "accuracy, low": accuracy["low"],
        "accuracy, high": accuracy["high"],
        "accuracy, p of chance": accuracy["p_of_chance"],
        "d'": found["sensitivity"]["d_prime"],
        "criterion": found["sensitivity"]["criterion"],
        "judged real, difference": gap["value"],
        "difference, low": gap["low"],
        "difference, high": gap["high"],
    }
