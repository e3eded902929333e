"""How many images a margin needs: the power that is promised is there, with few to spare."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import ssmdiff
from ssmdiff import ConfigError
from ssmdiff_cli.main import app
from ssmdiff_turing import figures
from typer.testing import CliRunner

turing = ssmdiff.job("turing")


def test_the_power_is_reached_and_not_far_below() -> None:
    plan = turing.plan(0.25, [1], power=0.8)
    (row,) = plan.rows
    # The normal law: n = 2 p (1 - p) (z_95 + z_90)^2 / margin^2.
    assert row.images == pytest.approx(0.5 * (1.6449 + 1.2816) ** 2 / 0.25**2, rel=0.06)
    assert figures.equivalence_power(row.images, row.images, 0.5, 0.25) >= 0.8
    assert figures.equivalence_power(row.images - 8, row.images - 8, 0.5, 0.25) < 0.8
    assert row.difference == figures.fisher_power(row.images, row.images, 0.5, 0.25)
    assert row.answers == 2 * row.images


def test_doctors_who_agree_add_little() -> None:
    free = turing.plan(0.25, [1, 4], agreement=0.0).rows
    alike = turing.plan(0.25, [1, 4], agreement=1.0).rows
    assert free[1].images == math.ceil(free[0].images / 4)
    assert alike[1].images == alike[0].images
    some = turing.plan(0.25, [4], agreement=0.2).rows[0]
    assert free[1].images < some.images < alike[1].images


def test_pairs_need_their_own_number() -> None:
    (row,) = turing.plan(0.15, [1], forced_choice=True).rows
    assert figures.choice_equivalence_power(row.images, 0.15) >= 0.8
    assert row.answers == row.images


def test_a_small_margin_is_planned_by_the_normal_law() -> None:
    (row,) = turing.plan(0.03, [1]).rows
    assert row.images == pytest.approx(0.5 * (1.6449 + 1.2816) ** 2 / 0.03**2, rel=0.001)
    assert row.equivalence == pytest.approx(0.8, abs=0.001)


@pytest.mark.slow
def test_the_table_of_the_page_is_what_the_command_prints() -> None:
    printed = CliRunner().invoke(app, ["turing", "plan", "--margin", "0.15"]).stdout
    table = "".join(printed.splitlines(keepends=True)[:-1])
    assert table.count("\n") == 5
    assert table in (Path(__file__).parents[2] / "docs" / "turing.md").read_text()


@pytest.mark.parametrize(
    "wrong", [{"margin": 0}, {"power": 1.0}, {"rate": -1}, {"agreement": 2}, {"doctors": [0]}]
)
def test_numbers_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError, match="expected"):
        turing.plan(**wrong)
