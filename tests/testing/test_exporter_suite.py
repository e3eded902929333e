"""The suite of exporters finds what is wrong with one, and says it."""

from __future__ import annotations

import pytest
from ssmdiff.testing import Report, check_exporter

pytestmark = pytest.mark.usefixtures("fresh_registry")


def failures(report: Report) -> dict[str, str]:
    return {finding.name: finding.detail for finding in report.failures}


EXPORTER = """
    import torch
    import ssmdiff

    MARK = "a link to "

    class Bad:
        # A file that names a run's folder, and the number of its letters.
        suffixes = {suffixes}

        def export(self, request):
            if request.out.exists() and not request.overwrite {replaces}:
                raise ssmdiff.ConfigError("it is there")
            {before}
            text = f"{{MARK}}{{request.run.folder.path}}"
            request.out.write_text(f"{{text}} {{len(text)}}")
            {after}
            return ssmdiff.ExportResult((request.out,), ("a link",))

        def recognises(self, path):
            return {recognised}

        def open(self, path):
            text, _, length = path.read_text().rpartition(" ")
            if {damaged}:
                raise ssmdiff.ExportError("it was cut off")
            return {opened}

    class Other:
        def __init__(self, run, **changes):
            self.run, self.changes = run, changes

        def sample(self, n, seed, steps, told):
            scale = self.changes.pop("scale", 1)
            asked = {{"seed": seed, "steps": steps, "told": told, **self.changes}}
            return self.run.sample(n, **asked) * scale

    @ssmdiff.hookimpl
    def ssmdiff_exporters():
        yield ssmdiff.Component("bad", Bad, "does something wrong")
"""
INPUTS = (
    "x=torch.zeros(1, 1 + request.run.conditions.planes, 8, 8), timesteps=torch.tensor(1), "
    "context=torch.zeros(1, request.run.conditions.width)"
)
SOUND = {
    "suffixes": "('.link',)",
    "replaces": "",
    "before": "pass",
    "after": "pass",
    "recognised": "path.is_file() and path.read_bytes().startswith(MARK.encode())",
    "damaged": "length != str(len(text))",
    "opened": "ssmdiff.load_run(text.removeprefix(MARK))",
}
OPENED = SOUND["opened"]


@pytest.mark.parametrize(
    ("change", "check", "said"),
    [
        ({}, None, ""),
        ({"suffixes": "'.link'"}, "protocol", "suffixes is '.link'"),
        ({"suffixes": "('link',)"}, "protocol", "suffixes is ('link',)"),
        (
            {"after": "request.out.with_name('part').write_text('')"},
            "files",
            "what is on disk, all of it",
        ),
        ({"after": "request.out.unlink()"}, "files", "what is on disk, all of it"),
        ({"after": "return None"}, "files", "returns a NoneType; expected an ssmdiff.ExportResult"),
        ({"before": "request.run.model.half()"}, "untouched-run", "of the run's model changed"),
        ({"before": "request.run.model.train()"}, "untouched-run", "changed its mode"),
        ({"recognised": "path.suffix == '.link'"}, "recognition", "renamed.file is not recognised"),
        ({"recognised": "path.is_file()"}, "recognition", "which it did not write"),
        (
            {"recognised": "path.read_bytes().startswith(MARK.encode())"},
            "recognition",
            "IsADirectoryError",
        ),
        ({"recognised": "'yes'"}, "recognition", "recognises returns 'yes'"),
        ({"opened": f"Other({OPENED}, scale=0.9)"}, "images", "are off by"),
        ({"opened": f"Other({OPENED}, steps=2)"}, "images", "are off by"),
        ({"opened": f"Other({OPENED}, seed=5)"}, "images", "another seed gives the same images"),
        ({"replaces": "and False"}, "replacing", "written over without overwrite"),
        (
            {"after": f"request.run.model({INPUTS})"},
            "failed-export",
            "probe.link is left after an export that failed",
        ),
        ({"damaged": "False", "opened": "Other(None)"}, "damage", "AttributeError"),
        ({"damaged": "False", "opened": "Other(self.run)"}, "damage", "is opened and sampled"),
    ],
)
def test_exporters(install, change: dict[str, str], check: str | None, said: str) -> None:
    if change.get("opened") == "Other(self.run)":
        change = {**change, "before": "Bad.run = request.run"}
    install("ssmdiff-bad", EXPORTER.format(**SOUND | change))
    found = failures(check_exporter("bad"))
    if check is None:
        assert not found
    else:
        assert said in found[check]


def test_an_exporter_that_cannot_write_here_is_skipped_and_says_why(install) -> None:
    change = {"before": "raise ssmdiff.ConfigError('needs a machine of another kind')"}
    install("ssmdiff-bad", EXPORTER.format(**SOUND | change))
    found = {finding.name: finding for finding in check_exporter("bad")}
    assert found["protocol"].status == "ok"
    assert found["images"].status == "skip"
    assert found["images"].detail == "cannot write here: needs a machine of another kind"
