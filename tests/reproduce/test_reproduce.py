"""Tables of the paper, computed anew."""

from __future__ import annotations

import json

import pytest
import ssmdiff
from ssmdiff import ConfigError
from ssmdiff_cli.main import app
from typer.testing import CliRunner

pytestmark = pytest.mark.needs_plugin("ssmdiff_turing")


def test_every_figure_that_the_paper_prints_is_found_again() -> None:
    found = ssmdiff.job("reproduce")("vm-ddpm", 5)
    printed = [line for line in found.lines if line.printed is not None]
    assert len(printed) == 10
    assert all(line.agrees for line in printed)
    by = {(line.of, line.figure): line.computed for line in found.lines}
    assert by["doctor 1", "Fisher, two-sided p"] == pytest.approx(0.5613633789558615, rel=1e-13)
    assert by["doctor 2", "Fisher, two-sided p"] == pytest.approx(0.11981827985236218, rel=1e-13)
    assert by["both", "Fisher between the doctors, real, p"] == pytest.approx(0.00027, abs=5e-6)
    assert by["doctor 1", "recall, real"] == 0.86  # the paper heads it "Precision"
    assert "exchanged" in found.notes[0]


def test_a_figure_that_is_another_does_not_agree() -> None:
    from ssmdiff_reproduce.counts import Line

    assert Line("V", "x", "p", 0.56136, 0.5613633).agrees
    assert not Line("V", "x", "p", 0.56136, 0.56137).agrees
    assert Line("III", "x", "recall", 0.860, 0.8604).agrees
    assert not Line("III", "x", "recall", 0.860, 0.8606).agrees
    assert Line("", "x", "p", None, 0.5).agrees is None


@pytest.mark.slow
def test_the_command_prints_the_paper_beside_it() -> None:
    result = CliRunner().invoke(app, ["reproduce", "vm-ddpm", "--table", "5"])
    assert result.exit_code == 0, result.output
    assert "Fisher, two-sided p                     0.56136    0.56136" in result.output
    assert "differs" not in result.output
    record = json.loads(
        CliRunner().invoke(app, ["reproduce", "vm-ddpm", "--table", "5", "--json"]).stdout
    )
    assert record["paper"] == "vm-ddpm"


def test_what_is_not_computed_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--table 6 of vm-ddpm is not computed here"):
        ssmdiff.job("reproduce")("vm-ddpm", 6)
    with pytest.raises(ConfigError, match="did you mean 'vm-ddpm'"):
        ssmdiff.job("reproduce")("vmddpm", 5)
