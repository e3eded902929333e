"""The suite of writers finds what is wrong with one, and says it."""

from __future__ import annotations

import pytest
from ssmdiff.testing import Report, check_writer
from suite_cases import cases

pytestmark = pytest.mark.usefixtures("fresh_registry")

WRITER = """
    import io
    import time

    import numpy as np
    import ssmdiff


    class Bad:
        suffix = {suffix}

        def write(self, path, image, facts):
            if image.ndim != 3 or len(image) != 1:
                {refuse}
            if not np.isfinite(image).all():
                raise ssmdiff.ConfigError("not finite")
            {first}
            values = image[0].astype(np.float64)
            {change}
            buffer = io.BytesIO()
            np.save(buffer, values)
            ssmdiff.write_atomically(path, buffer.getvalue() + {tail})
            {last}


    @ssmdiff.hookimpl
    def ssmdiff_writers():
        yield ssmdiff.Component("bad", Bad, "does something wrong")
"""
SOUND = {
    "suffix": "'.npy'",
    "refuse": "raise ssmdiff.ConfigError('grey pictures')",
    "first": "",
    "change": "",
    "tail": "b''",
    "last": "",
}


@pytest.mark.parametrize(
    ("change", "check", "said"),
    cases(
        ({}, None, ""),
        ({"suffix": "'npy'"}, "protocol", "suffix is 'npy'"),
        ({"last": "path.with_suffix('.txt').write_text('')"}, "files", "is there afterwards"),
        ({"first": "image[0, 0, 0] = 0"}, "files", "the image was written to"),
        ({"refuse": "path.touch(); raise ssmdiff.ConfigError('no')"}, "files", "is left of an"),
        ({"tail": "str(time.time()).encode()"}, "determinism", "two files"),
        ({"tail": "str(path).encode()"}, "determinism", "two files"),
        ({"first": "np.random.random()"}, "determinism", "moved a global random state"),
        ({"change": "values = np.zeros_like(values)"}, "determinism", "two images are one file"),
        ({"change": "values = -values"}, "values", "brighter where it is brighter"),
        ({"change": "values = values[::-1]"}, "values", "other values than were written"),
        ({"change": "values = values.T"}, "values", "the same sizes"),
        ({"change": "values = np.rint(values * 20)"}, "values", "off by"),
        ({"change": "values = values + facts.value_range[0]"}, "facts", "TypeError"),
        ({"refuse": "raise ValueError(image.shape)"}, "files", "ValueError"),
    ),
)
def test_what_is_wrong_is_found(
    install, change: dict[str, str], check: str | None, said: str
) -> None:
    install("ssmdiff-bad", WRITER.format(**{**SOUND, **change}))
    report: Report = check_writer("bad")
    failures = {finding.name: finding.detail for finding in report.failures}
    if check is None:
        assert failures == {}
        assert "by picture" in str(report)
        return
    assert check in failures, failures
    assert said in failures[check]


UNITS = """
    import numpy as np
    import ssmdiff

    class Own:
        suffix = ".own"
        suffixes = frozenset({".own"})

        def write(self, path, image, facts):
            if image.ndim != 3 or len(image) != 1:
                raise ssmdiff.ConfigError("grey pictures")
            low, high = facts.value_range or (-1, 1)
            values = low + (image[0].astype(float) + WRONG) / 2 * (high - low)
            ssmdiff.write_atomically(path, b"OWN" + bytes(image.shape[1:]) + values.tobytes())

        def claims(self, path, head):
            return head.startswith(b"OWN")

        def sources(self, root, files):
            return [ssmdiff.Source((path,), path.name) for path in files]

        def header(self, source):
            shape = tuple(source.files[0].read_bytes()[3:5])
            return ssmdiff.ImageHeader(shape, "yx", "float64", units="HU")

        def read(self, source):
            values = np.frombuffer(source.files[0].read_bytes()[5:])
            header = self.header(source)
            return ssmdiff.ImageData(values.reshape(header.shape), header)

    @ssmdiff.hookimpl
    def ssmdiff_writers():
        yield ssmdiff.Component("own", Own, "in units")

    @ssmdiff.hookimpl
    def ssmdiff_readers():
        yield ssmdiff.Component("own", Own, "in units")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("wrong", "ok"), [("1", True), ("2", False)])
def test_a_file_that_names_its_units_is_held_to_them(install, wrong: str, ok: bool) -> None:
    install("ssmdiff-own", UNITS.replace("WRONG", wrong))
    report = check_writer("own")
    assert report.ok == ok, str(report)
    if not ok:
        assert "-1 and 1 are" in report.failures[0].detail
