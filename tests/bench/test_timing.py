"""Medians and quartiles, and the turns that ways take."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from ssmdiff_bench.record import growth
from ssmdiff_bench.timing import TURNS, MeasureError, Timing, clocked, interleaved


def test_a_timing_has_the_quantiles_of_numpy():
    seconds = tuple(np.random.default_rng(0).lognormal(size=11))
    timing = Timing(seconds)
    assert timing.median_s == statistics.median(seconds)
    assert timing.quartiles_s == pytest.approx(tuple(np.quantile(seconds, [0.25, 0.75])))
    told = timing.to_json()
    assert told["min"] == pytest.approx(min(seconds) * 1e3, rel=1e-4)
    assert told["repeats"] == 11
    assert Timing((2.0,)).quartiles_s == (2.0, 2.0)


class Clock:
    """A clock that moves when a call says so."""

    def __init__(self):
        self.now, self.called = 0.0, []

    def call(self, name, seconds):
        def function():
            self.called.append(name)
            self.now += seconds

        return clocked(function, lambda: self.now)


def test_slow_ways_alternate_and_the_clock_is_read_around_each_call():
    clock = Clock()
    turns = {"a": clock.call("a", 0.5), "b": clock.call("b", 0.25)}
    found = interleaved(turns, repeats=3)
    assert clock.called == ["a", "b"] * 3
    assert found == {"a": Timing((0.5,) * 3), "b": Timing((0.25,) * 3)}


def test_short_calls_are_made_in_a_row_after_an_uncounted_one():
    clock = Clock()
    turns = {"short": clock.call("short", 0.01), "long": clock.call("long", 1.0)}
    found = interleaved(turns, 20 * TURNS, first_s={"short": 0.01, "long": 1.0})
    assert len(found["short"].seconds) == 20 * TURNS
    first_turn = clock.called.index("long")
    assert first_turn == 11  # ten in a tenth of a second, and the uncounted one


def test_short_calls_are_spread_over_turns():
    clock = Clock()
    turns = {"short": clock.call("short", 0.001), "long": clock.call("long", 1.0)}
    interleaved(turns, 2 * TURNS, first_s={"short": 0.001, "long": 1.0})
    last_short = len(clock.called) - 1 - clock.called[::-1].index("short")
    assert clock.called[:last_short].count("long") == TURNS - 1


def test_a_way_ends_with_its_budget_and_makes_one_call_at_least():
    clock = Clock()
    turns = {"slow": clock.call("slow", 3.0), "slower": clock.call("slower", 30.0)}
    found = interleaved(turns, repeats=10, budget_s=5.0)
    assert len(found["slow"].seconds) == 2
    assert len(found["slower"].seconds) == 1


def test_a_way_that_fails_ends_and_the_others_go_on():
    clock = Clock()

    def bad(calls, warm):
        raise MeasureError("too slow", "a call took longer than 1 s")

    found = interleaved({"bad": bad, "good": clock.call("good", 0.5)}, repeats=3)
    assert found["bad"].status == "too slow"
    assert len(found["good"].seconds) == 3


def test_growth_is_the_exponent():
    assert growth([(n, 3 * n**1.7) for n in (64, 128, 256)]) == pytest.approx(1.7)
    assert growth([(64, 1.0)]) is None
