"""The suite of readers finds what is wrong with one, and says it."""

from __future__ import annotations

import pytest
from ssmdiff.testing import Report, check_reader
from suite_cases import cases

pytestmark = pytest.mark.usefixtures("fresh_registry")

READER = """
    import os
    import struct

    import numpy as np
    import ssmdiff

    count = iter(range(10**6))


    class Bad:
        suffixes = {suffixes}

        def claims(self, path, head):
            return {claims}

        def sources(self, root, files):
            files = {files}
            for path in files:
                yield ssmdiff.Source((path,), {name})

        def header(self, source):
            data = source.files[0].read_bytes()[:12]
            {look}
            height, width = struct.unpack("<ii", data[4:12])
            {check}
            return ssmdiff.ImageHeader({shape}, "yx", "uint8")

        def read(self, source):
            header = self.header(source)
            data = source.files[0].read_bytes()[12:]
            {before}
            if {short}:
                raise ssmdiff.DataError({sentence})
            values = np.frombuffer(data[:height_of(header)], np.uint8).reshape(header.shape)
            {change}
            return ssmdiff.ImageData(values, header{valid})

        def examples(self, folder):
            for n in (1, 2):
                content = b"BAD1" + struct.pack("<ii", 4, 5 * n) + bytes(range(20 * n))
                {example}


    def height_of(header):
        return header.shape[0] * header.shape[1]


    @ssmdiff.hookimpl
    def ssmdiff_readers():
        yield ssmdiff.Component("bad", Bad, "does something wrong")
"""
SOUND = {
    "suffixes": "frozenset({'.bad'})",
    "claims": "head.startswith(b'BAD1')",
    "files": "list(files)",
    "name": "path.relative_to(root).as_posix()",
    "look": "if len(data) < 12: raise ssmdiff.DataError('cut short')",
    "check": "if not 0 < height < 99 or not 0 < width < 99: raise ssmdiff.DataError('odd')",
    "shape": "(height, width)",
    "before": "",
    "short": "len(data) < height_of(header)",
    "sentence": "'it is cut short'",
    "change": "",
    "valid": "",
    "example": "(folder / f'{n}.bad').write_bytes(content)",
}
HUNGRY = (
    "if width not in (5, 10) or height != 4: np.ones(90 << 20, np.uint8); "
    "raise ssmdiff.DataError('odd')"
)


@pytest.mark.parametrize(
    ("change", "check", "said"),
    cases(
        ({}, None, ""),
        ({"suffixes": "('.bad',)"}, "protocol", "a frozenset such as"),
        ({"suffixes": "frozenset({'.BAD'})"}, "protocol", "lower case"),
        ({"claims": "path.suffix == '.bad'"}, "recognition", "a file of empty is claimed"),
        ({"claims": "head[:4]"}, "recognition", "claims returns b''"),
        ({"claims": "head[0] == 66"}, "recognition", "IndexError"),
        ({"claims": "head.startswith(b'B') and path.suffix == '.bad'"}, "recognition", "not under"),
        ({"claims": "False"}, "recognition", "none of its own examples is claimed"),
        ({"name": "str(path)"}, "sources", "a name relative to the folder"),
        ({"files": "list(files)[1:]"}, "sources", "is in no source"),
        ({"files": "list(files)[:1] or [os.devnull]"}, "sources", ""),
        (
            {"shape": "(height, width - 1)", "change": "values = values[:, :1]"},
            "images",
            "one shape",
        ),
        ({"change": "values = values.astype(float); values[0, 0] = np.nan"}, "images", "1 values"),
        ({"change": "values = values.astype(complex)"}, "images", "values are complex128"),
        ({"valid": ", np.ones((1, 1), bool)"}, "images", "valid is bool of shape (1, 1)"),
        ({"change": "values = values + np.uint8(next(count) % 7)"}, "determinism", "two images"),
        ({"before": "np.random.random()"}, "determinism", "moved a global random state"),
        ({"before": "open(f'{source.files[0]}.note', 'w').close()"}, "determinism", "changed the"),
        ({"look": ""}, "damage", "raises error: unpack requires a buffer"),
        ({"short": "False"}, "damage", "raises ValueError"),
        ({"sentence": "'two\\nlines'"}, "damage", "one sentence"),
        ({"check": HUNGRY}, "damage", "bytes of memory"),
        ({"example": "pass"}, "recognition", "examples() wrote nothing"),
    ),
)
def test_what_is_wrong_is_found(
    install, change: dict[str, str], check: str | None, said: str
) -> None:
    install("ssmdiff-bad", READER.format(**{**SOUND, **change}))
    report: Report = check_reader("bad")
    failures = {finding.name: finding.detail for finding in report.failures}
    if check is None:
        assert failures == {}
        assert "2 examples by content" in str(report)
        return
    assert check in failures, failures
    assert said in failures[check]


@pytest.mark.slow
def test_a_reader_without_examples_is_looked_at_as_far_as_it_goes(install) -> None:
    code = READER.format(**SOUND).replace("def examples", "def no_examples")
    install("ssmdiff-bad", code)
    report = check_reader("bad")
    assert report.ok
    assert [finding.name for finding in report.findings if not finding.skipped] == ["protocol"]
