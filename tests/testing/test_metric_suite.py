"""The suite of metrics finds what is wrong with one, and says it."""

from __future__ import annotations

import pytest
from ssmdiff.testing import Report, check_metric

pytestmark = pytest.mark.usefixtures("fresh_registry")


def failures(report: Report) -> dict[str, str]:
    return {finding.name: finding.detail for finding in report.failures}


METRIC = """
    import numpy as np
    import ssmdiff
    from ssmdiff import Figure

    class Bad:
        section = {section}
        needs = {needs}
        better = "lower"

        def __call__(self, evaluation):
            x, y = (side.features for side in (evaluation.samples, evaluation.reference))
            if min(len(x), len(y)) < 3:
                {few}
            value = float(abs(x.mean() - y.mean()))
            name, more = "apart " + evaluation.network, {{}}
            {change}
            return [Figure(name, value, self.better, **more)]

    @ssmdiff.hookimpl
    def ssmdiff_metrics():
        yield ssmdiff.Component("bad", Bad, "does something wrong")
"""
SOUND = {
    "section": "'quality'",
    "needs": "('reference', 'samples')",
    "few": "raise ssmdiff.ConfigError('needs three')",
    "change": "",
}
INTERVAL = "more['interval'] = (value - 1, value + 1)"


@pytest.mark.parametrize(
    ("change", "check", "said"),
    [
        ({}, None, ""),
        ({"section": "'beauty'"}, "protocol", "section is 'beauty'; expected one of quality"),
        ({"needs": "['samples']"}, "protocol", "needs is ['samples']"),
        ({"needs": "('reference',)"}, "protocol", "samples in it"),
        ({"change": "return []"}, "figures", "at least one ssmdiff.Figure"),
        ({"change": "return [value]"}, "figures", "at least one ssmdiff.Figure"),
        (
            {"change": "return [Figure(name, value, 'lower')] * 2"},
            "figures",
            "apart probe stands there twice",
        ),
        ({"change": "value = value / 0 if value else value"}, "figures", "ZeroDivisionError"),
        ({"change": "more['floor'] = np.inf"}, "figures", "floor inf"),
        ({"change": "more['interval'] = (2.0, 1.0)"}, "figures", "expected (low, high)"),
        ({"change": "self.better = 'up'"}, "figures", "is better 'up'"),
        ({"change": "more['details'] = {'x': x}"}, "figures", "cannot be written"),
        ({"change": "name = 'apart'"}, "names", "'apart' is the name of two figures"),
        ({"change": "name, value = 'one', 1.0"}, None, ""),
        ({"change": "value += np.random.random()"}, "determinism", "was moved"),
        ({"change": "self.n = getattr(self, 'n', 0) + 1; value += self.n"}, "determinism", "again"),
        ({"change": "x -= x.mean()"}, "untouched-input", "features of samples were written to"),
        ({"change": "value = float(x[0, 0] ** 2)"}, "order", "moves by"),
        ({"change": f"value = 0.001 * float(x[0, 0]); {INTERVAL}"}, None, ""),
        ({"change": "value = -value"}, "ranking", "'apart probe' is -0 of the reference itself"),
        ({"change": "value = -value; self.better = 'higher'"}, None, ""),
        ({"change": "value = -value", "section": "'novelty'"}, None, ""),
        ({"change": "len(evaluation.held_out.features)"}, "fewer-sets", "has no attribute"),
        (
            {
                "change": "len(evaluation.held_out.features)",
                "needs": "('reference', 'samples', 'held_out')",
            },
            None,
            "",
        ),
        ({"change": "evaluation.mirrored.mean()"}, "fewer-sets", "has no attribute 'mean'"),
        ({"few": "pass"}, "few-images", "0 images of reference: ContractError"),
        ({"few": "y[0]"}, "few-images", "IndexError"),
    ],
)
@pytest.mark.filterwarnings("ignore:Mean of empty", "ignore:invalid value")
def test_metrics(install, change: dict[str, str], check: str | None, said: str) -> None:
    install("ssmdiff-bad", METRIC.format(**SOUND | change))
    found = failures(check_metric("bad"))
    if check is None:
        assert not found
    else:
        assert said in found[check]


def test_a_metric_that_wants_more_images_is_given_them_or_is_not_checked(install) -> None:
    few = "if min(len(x), len(y)) < {}: raise ssmdiff.ConfigError('needs more')"
    install("ssmdiff-bad", METRIC.format(**SOUND | {"change": few.format(300)}))
    report = check_metric("bad")
    assert report.ok, str(report)
    assert not any(finding.skipped for finding in report)


def test_a_metric_that_refuses_every_size_is_not_checked(install) -> None:
    change = "raise ssmdiff.ConfigError('needs a million')"
    install("ssmdiff-bad", METRIC.format(**SOUND | {"change": change}))
    report = check_metric("bad")
    assert report.ok
    skipped = [finding for finding in report if finding.skipped]
    assert len(skipped) == len(report) - 1
    assert skipped[0].detail == "refuses 512 images a set: needs a million"
    assert {finding.detail for finding in skipped[1:]} == {"no size is taken, as above"}
