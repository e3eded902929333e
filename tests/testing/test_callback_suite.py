"""The suite of callbacks finds what is wrong with one, and says it."""

from __future__ import annotations

import pytest
from ssmdiff.testing import Report, check_callback

pytestmark = pytest.mark.usefixtures("fresh_registry")


def failures(report: Report) -> dict[str, str]:
    return {finding.name: finding.detail for finding in report.failures}


CALLBACK = """
    import random
    import ssmdiff

    class Bad:
        opened = []

        def __init__(self):
            self.rows = []

        @ssmdiff.hookimpl
        def ssmdiff_run_start(self, folder, config, step):
            self.folder, self.step = folder, step
            {start}

        {mark}
        def {hook}:
            {body}

        @ssmdiff.hookimpl
        def ssmdiff_run_end(self, status):
            (self.folder / "rows.txt").write_text("row" * len(self.rows))
            {end}

    @ssmdiff.hookimpl
    def ssmdiff_callbacks():
        yield ssmdiff.Component("bad", Bad, "does something wrong")
"""
SOUND = {
    "start": "pass",
    "mark": "@ssmdiff.hookimpl",
    "hook": "ssmdiff_step_end(self, record)",
    "body": "self.rows.append(record.loss)",
    "end": "pass",
}


@pytest.mark.parametrize(
    ("change", "check", "said"),
    [
        ({}, None, ""),
        ({"mark": ""}, "hooks-of-a-run", "'ssmdiff_step_end' has no mark, so that it is never"),
        ({"hook": "ssmdiff_step_ends(self)"}, "hooks-of-a-run", "mean 'ssmdiff_step_end'?"),
        ({"hook": "ssmdiff_scans(self)"}, "hooks-of-a-run", "the hooks of a run alone"),
        ({"hook": "ssmdiff_step_end(self, loss)"}, "hooks-of-a-run", "{'loss'} are declared"),
        ({"body": "1 / 0"}, "whole-run", "ZeroDivisionError"),
        (
            {"body": "(self.folder / 'metrics.jsonl').write_text('')"},
            "whole-run",
            "the run's own metrics.jsonl changed or went",
        ),
        (
            {"end": "(self.folder / 'checkpoints/step-4/manifest.json').unlink(missing_ok=True)"},
            "whole-run",
            "checkpoints/step-4/manifest.json changed or went",
        ),
        ({"body": "random.random()"}, "randomness", "a hook moved a global random state"),
        ({"end": "sum(self.rows) / len(self.rows)"}, "early-end", "ZeroDivisionError"),
        ({"end": "assert status == 'finished'"}, "early-end", "AssertionError"),
        ({"start": "(folder / 'notes').mkdir()"}, "resume", "FileExistsError"),
        (
            {"start": "self.rows = Bad.opened", "body": "self.rows.append(record.loss)"},
            "next-run",
            "kept in the callback, not in its class",
        ),
    ],
)
def test_callbacks(install, change: dict[str, str], check: str | None, said: str) -> None:
    install("ssmdiff-bad", CALLBACK.format(**SOUND | change))
    found = failures(check_callback("bad"))
    if check is None:
        assert not found
    else:
        assert said in found[check]


def test_a_callback_without_hooks_hears_nothing(install) -> None:
    install(
        "ssmdiff-bad",
        """
        import ssmdiff

        @ssmdiff.hookimpl
        def ssmdiff_callbacks():
            yield ssmdiff.Component("bad", object, "has no hook")
        """,
    )
    said = failures(check_callback("bad"))["hooks-of-a-run"]
    assert "hears nothing" in said
    assert "expected at least one of ssmdiff_run_start, ssmdiff_step_end" in said


def test_a_callback_that_sends_is_checked_with_its_offline_options(install) -> None:
    install(
        "ssmdiff-sender",
        """
        import ssmdiff

        class Sender:
            offline_options = {"address": ""}

            def __init__(self, address: str = "https://example.org"):
                self.address = address

            @ssmdiff.hookimpl
            def ssmdiff_run_start(self):
                assert not self.address, "sent"

        @ssmdiff.hookimpl
        def ssmdiff_callbacks():
            yield ssmdiff.Component("sender", Sender, "sends what it hears")
        """,
    )
    report = check_callback("sender")
    assert report.ok, report
    assert "with address = ''" in report.subject
    assert not check_callback({"name": "sender", "address": "https://example.org"}).ok
