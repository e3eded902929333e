"""Ways in processes of their own: times, memory, and what happens to those that give no number."""

from __future__ import annotations

import functools
import json

import jobs
import pytest
from ssmdiff.errors import ConfigError
from ssmdiff_bench.compare import Effort, choose, measure, steps
from ssmdiff_bench.memory import why_not
from ssmdiff_bench.record import STATUSES, Record, Row, table
from ssmdiff_bench.timing import Timing
from ssmdiff_bench.worker import Way

CASES = [{"series": "call", "size": size} for size in (1, 2)]
NAMES = ("sleep", "hold", "hang", "exhaust", "die", "no job")


def way(name):
    return Way(name, functools.partial(jobs.load, name))


@pytest.fixture(scope="module")
def measured():
    """All ways over two sizes, and what was told meanwhile."""
    ways = [*map(way, NAMES), Way("elsewhere", None, "it is not installed; try: pip install it")]
    told = []
    rows = measure(ways, CASES, Effort(repeats=4, budget_s=5, limit_s=1.5), told.append)
    return ways, rows, told


def row(rows, name, size=1):
    (found,) = [r for r in rows if r.way == name and r.size == size]
    return found


def test_times_are_those_of_the_calls(measured):
    _, rows, _ = measured
    sleep = row(rows, "sleep")
    assert sleep.status == "ok"
    assert sleep.ratio == 1
    assert min(sleep.timing.seconds) >= 0.03
    assert len(sleep.timing.seconds) == 4
    hold = row(rows, "hold")
    assert hold.ratio == hold.timing.median_s / sleep.timing.median_s


@pytest.mark.skipif(why_not() is not None, reason="memory is not measured here")
def test_memory_is_the_peak_of_a_call_beyond_what_was_there(measured):
    _, rows, _ = measured
    for size in (1, 2):
        assert row(rows, "hold", size).memory.extra / jobs.MIB == pytest.approx(60, abs=2)
        assert row(rows, "sleep", size).memory.extra / jobs.MIB < 2


def test_outputs_are_compared_with_the_first_way(measured):
    _, rows, _ = measured
    assert row(rows, "sleep").difference == 0
    assert row(rows, "hold").difference == 0.5


@pytest.mark.parametrize(
    ("name", "status", "detail"),
    [
        ("hang", "too slow", "a call took longer than 1.5 s"),
        ("exhaust", "out of memory", "Unable to allocate"),
        ("die", "failed", "exit code 7"),
        ("no job", "failed", "ValueError: it cannot be built"),
    ],
)
def test_a_way_without_a_number_says_why(measured, name, status, detail):
    _, rows, _ = measured
    assert row(rows, name).status == status
    assert detail in row(rows, name).detail
    again = row(rows, name, 2)
    if status == "failed":  # another size may do
        assert again.status == "failed"
    else:
        assert (again.status, again.detail) == ("not run", f"{status} at 1")


def test_absent_ways_stay_in_the_record(measured):
    _, rows, _ = measured
    absent = row(rows, "elsewhere", 0)
    assert absent.status == "absent"
    assert "pip install it" in absent.detail
    assert any(
        "elsewhere: not here: it is not installed" in line
        for line in table(Record("t", {}, {}, rows))
    )


def test_progress_counts_every_way_and_case(measured):
    ways, _, told = measured
    assert told.count("") == steps(ways, CASES) == 12


def test_the_record_is_plain_json(measured, tmp_path):
    _, rows, _ = measured
    record = Record("scan", {"processor": "x"}, {"repeats": 4}, rows)
    record.write(tmp_path / "new" / "record.json")
    read = json.loads((tmp_path / "new" / "record.json").read_text())
    assert {"format", "bench", "machine", "settings", "size", "rows"} <= read.keys()
    keys = {
        "way", "series", "size", "status", "detail", "first_ms", "time_ms", "ratio", "extra_mib",
        "peak_mib", "difference",
    }  # fmt: skip
    assert len(read["rows"]) == 13
    for told in read["rows"]:
        assert keys <= told.keys()
        assert told["status"] in STATUSES
        assert (told["time_ms"] is not None) == (told["status"] == "ok")
        if told["time_ms"]:
            assert set(told["time_ms"]) == {"median", "min", "quartiles", "repeats"}
            low, high = told["time_ms"]["quartiles"]
            assert told["time_ms"]["min"] <= low <= told["time_ms"]["median"] <= high


def test_a_memory_limit_is_reported_and_kills_nothing_else():
    effort = Effort(repeats=1, limit_s=20, memory_bytes=30 * jobs.MIB)
    rows = measure([way("sleep"), way("hold")], CASES[:1], effort)
    assert [r.status for r in rows] == ["ok", "out of memory"]


def test_a_way_asked_for_by_name_must_be_here():
    ways = [way("sleep"), Way("elsewhere", None, "it is not installed; try: pip install it")]
    assert [w.name for w in choose(ways, None)] == ["sleep", "elsewhere"]
    assert [w.name for w in choose(ways, ["sleep"])] == ["sleep"]
    with pytest.raises(ConfigError, match="elsewhere was asked for and is not here: it is not ins"):
        choose(ways, ["elsewhere"])
    with pytest.raises(ConfigError, match="did you mean 'sleep'"):
        choose(ways, ["slep"])


def test_a_plot_has_a_panel_for_time_and_one_for_memory(tmp_path):
    pytest.importorskip("matplotlib")
    from PIL import Image
    from ssmdiff_bench.memory import Memory
    from ssmdiff_bench.plot import write_plot

    def done(name, size):
        return Row(name, "call", size, timing=Timing((0.1, 0.2)), memory=Memory(0, size * jobs.MIB))

    many = [done(name, size) for name in ("a", "b") for size in (1, 2)]
    for rows in (many, many[:1]):  # lines, and bars for one size
        write_plot(Record("scan", {}, {}, rows), tmp_path / "plot.png")
        with Image.open(tmp_path / "plot.png") as image:
            assert image.format == "PNG"
            dark = image.convert("L").point(lambda v: 255 if v < 250 else 0)
            wide, high = dark.size
            for half in ((0, 0, wide // 2, high), (wide // 2, 0, wide * 4 // 5, high)):
                share = dark.crop(half).histogram()[255] / (wide * high / 2)
                assert share > 0.01
    with pytest.raises(ConfigError, match="nothing was measured"):
        write_plot(Record("scan", {}, {}, [Row("a", "", 0, "absent", "why")]), tmp_path / "x.png")
