"""The suite of feature networks finds what is wrong with one, and says it."""

from __future__ import annotations

import pytest
from ssmdiff.testing import Report, check_features

pytestmark = pytest.mark.usefixtures("fresh_registry")


def failures(report: Report) -> dict[str, str]:
    return {finding.name: finding.detail for finding in report.failures}


FEATURES = """
    import hashlib
    from typing import Literal

    import numpy as np
    import ssmdiff

    class Bad:
        trained_on_reference = {learns}
        kept = {{}}

        def __init__(self, bins: int = 4, way: Literal["mean", "median"] = "mean"):
            self.bins, self.way = bins, way

        def fit(self, reference):
            {refuse}
            self.shape, self.offset = reference.shape, {offset}

        def __call__(self, levels):
            if levels.shape[1:] != self.shape:
                {unfit}
            x = levels.reshape(len(levels), -1) / 255
            x = getattr(np, self.way)(x, axis=1, keepdims=True)
            found = (x - self.offset) ** np.arange(1, 1 + self.bins)
            {change}
            return found

        def digest(self):
            made_from = {digest}
            return hashlib.sha256(str(made_from).encode()).hexdigest(){cut}

    @ssmdiff.hookimpl
    def ssmdiff_features():
        yield ssmdiff.Component("bad", Bad, "does something wrong")
"""
SOUND = {
    "learns": "True",
    "refuse": "if len(reference) < 2: raise ssmdiff.ConfigError('too few')",
    "offset": "reference.levels(range(len(reference))).mean() / 255",
    "unfit": "raise ssmdiff.ConfigError('another shape')",
    "change": "",
    "digest": "(self.bins, self.way, self.offset)",
    "cut": "",
}


@pytest.mark.parametrize(
    ("change", "check", "said"),
    [
        ({}, None, ""),
        ({"change": "found = found.tolist()"}, "vectors", "vectors are list"),
        ({"change": "found = found.astype(np.float16)"}, "vectors", "vectors are float16"),
        ({"change": "found = found[:, 0]"}, "vectors", "8 images have shape (8,)"),
        ({"change": "found[0, 1] = np.inf"}, "vectors", "1 values are not finite"),
        ({"change": "found = found * 0"}, "vectors", "all images have the same vector"),
        ({"change": "found -= found.mean(axis=0)"}, "batches", "an image alone is off by"),
        ({"change": "found[0] += 0.01"}, "batches", "a function of each image alone"),
        ({"digest": "(self.way, self.offset)"}, "digest", "with bins = 5 the vectors are others"),
        ({"digest": "(self.bins, self.offset)"}, "digest", "with way = 'median' the vectors"),
        ({"digest": "(self.bins, self.way)"}, "digest", "with another reference the vectors"),
        ({"digest": "(id(self), self.bins)"}, "digest", "fitted twice to one reference"),
        ({"cut": "[:8]"}, "digest", "expected a sha256 in hex"),
        ({"learns": "False"}, "reference", "another reference gives other vectors"),
        ({"learns": "'yes'"}, "reference", "trained_on_reference is 'yes'"),
        ({"offset": "np.random.random()"}, "randomness", "a global random state was moved"),
        ({"offset": "float(np.random.get_state()[1][7])"}, "randomness", "another network"),
        ({"change": "levels[0] = 0"}, "untouched-input", "the images were written to"),
        (
            {"change": "kept = Bad.kept.setdefault(len(x), found); kept[:] = found; found = kept"},
            "untouched-input",
            "written over by a later one",
        ),
        ({"unfit": "1 / 0"}, "refusals", "images 5 x 32 x 32: ZeroDivisionError"),
        ({"unfit": "return np.full((2, 3), np.nan)"}, "refusals", "vectors of shape (2, 3)"),
        ({"unfit": "return np.full((2, 4), np.nan)"}, "refusals", "values that are not finite"),
        ({"refuse": "1 / (len(reference) > 1)"}, "refusals", "a reference of 0 images"),
    ],
)
def test_features(install, change: dict[str, str], check: str | None, said: str) -> None:
    install("ssmdiff-bad", FEATURES.format(**SOUND | change))
    found = failures(check_features("bad"))
    if check is None:
        assert not found
    else:
        assert said in found[check]


def test_a_network_that_lacks_its_file_says_once_why_it_is_not_checked(install) -> None:
    refuse = "raise ssmdiff.ConfigError('needs the file x.pt')"
    install("ssmdiff-bad", FEATURES.format(**SOUND | {"refuse": refuse}))
    report = check_features("bad")
    assert report.ok
    assert all(finding.skipped for finding in report)
    said = [finding.detail for finding in report]
    assert said[0] == "cannot be fitted here: needs the file x.pt"
    assert set(said[1:]) == {"cannot be fitted here, as above"}


def test_a_network_for_colour_alone_is_checked_in_colour(install) -> None:
    refuse = "if reference.shape[0] != 3 or len(reference) < 2: raise ssmdiff.ConfigError('no')"
    install("ssmdiff-bad", FEATURES.format(**SOUND | {"refuse": refuse}))
    report = check_features("bad")
    assert report.ok
    assert "3 x 32 x 32" in next(iter(report)).detail
