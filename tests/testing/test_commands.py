"""``plugins check|info|new``, ``scans check`` and ``cite`` as a person meets them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from ssmdiff.registry.component import KINDS
from ssmdiff.registry.registry import registry
from ssmdiff.testing import SUITES, why_unchecked
from ssmdiff_cli.citations import bibtex, collected
from ssmdiff_cli.main import app
from typer.testing import CliRunner, Result

BAD = """
    import numpy as np
    import ssmdiff

    class Inverse(ssmdiff.Scan):
        continuous = True

        def directions(self, dims):
            return 1

        def order(self, grid, generator=None):
            '''A snake's rank map in the place of its visiting list.'''
            rows = np.arange(np.prod(grid)).reshape(grid).T.copy()
            rows[1::2] = rows[1::2, ::-1]
            return ssmdiff.ScanOrder(np.argsort(rows.ravel())[None])

    @ssmdiff.hookimpl
    def ssmdiff_scans():
        yield ssmdiff.Component("inverse", Inverse, "an inverse where an order belongs")
        yield ssmdiff.Component("plain", "ssmdiff_bad:Inverse", "the same again")
"""

NEEDY = """class Inverse(ssmdiff.Scan):
        def __init__(self, turns: int):
            self.turns = turns
"""


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


class TestCheck:
    def test_a_scan_that_is_sound(self) -> None:
        result = invoke("scans", "check", "cross")
        assert result.exit_code == 0, result.output
        assert "  ok    permutation    " in result.output
        assert "12 checks, 0 failed, 1 skipped" in result.output

    def test_options_are_given_as_in_a_configuration(self) -> None:
        result = invoke("scans", "check", "regenerate", "--set", "base=raster", "--json")
        (report,) = json.loads(result.output)
        assert report["ok"] is True
        assert "base = 'raster'" in report["subject"]
        assert {f["status"] for f in report["findings"]} == {"ok", "skip"}

    def test_a_scan_with_a_fault_exits_3_and_says_what_to_do(self, install, fresh_registry) -> None:
        install("ssmdiff-bad", BAD)
        result = invoke("scans", "check", "inverse")
        assert result.exit_code == 3
        assert "  FAIL  continuity     got direction 0 on a 2 x 2 grid jumps from" in result.output
        assert "Try: return the visiting list, not its inverse" in result.output
        assert "scan 'inverse' (ssmdiff-bad 1.0) fails continuity" in result.output

    def test_everything_of_a_distribution(self, install, fresh_registry) -> None:
        install("ssmdiff-bad", BAD)
        result = invoke("plugins", "check", "ssmdiff-bad")
        assert result.exit_code == 3
        assert "scan 'inverse' (ssmdiff-bad 1.0)\n" in result.output
        assert "scan 'plain' (ssmdiff-bad 1.0)\n" in result.output

    @pytest.mark.parametrize(
        ("kind", "name"),
        [
            pytest.param("kernel", "torch", marks=pytest.mark.slow),
            ("dataset", "phantom"),
            ("block", "conv"),
            ("callback", "tensorboard"),
            ("command", "cite"),
        ],
    )
    def test_a_component_of_any_kind(self, kind: str, name: str) -> None:
        result = invoke("plugins", "check", name)
        assert result.exit_code == 0, result.output
        assert f"{kind} {name!r} (ssmdiff " in result.output
        assert " 0 failed" in result.output

    def test_a_kind_without_a_suite_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(SUITES, "callback")
        result = invoke("plugins", "check", "tensorboard")
        assert result.exit_code == 2
        assert "kind 'callback' has no checks; those that have: scan, block" in result.output

    def test_what_needs_options_is_said_and_is_no_success_by_itself(
        self, install, fresh_registry
    ) -> None:
        needy = BAD.replace("class Inverse(ssmdiff.Scan):", NEEDY)
        install("ssmdiff-bad", needy)
        result = invoke("plugins", "check", "ssmdiff-bad")
        assert result.exit_code == 2
        assert "scan 'inverse' (ssmdiff-bad 1.0): not checked by itself" in result.output
        assert "none of 2 components was checked" in result.output

    def test_what_needs_an_extra_that_is_not_installed_is_no_fault_of_ours(
        self, install, fresh_registry
    ) -> None:
        site = install("ssmdiff-bad", BAD.replace("Inverse,", '"lazy_part:Scan",'))
        (site / "lazy_part.py").write_text("import absent_package\n")
        result = invoke("plugins", "check", "ssmdiff-bad")
        assert result.exit_code == 3
        assert "needs the Python package 'absent_package'" in result.output
        entry = registry().find("scan", "inverse")
        entry.plugin.distribution = "ssmdiff"
        assert "pip install absent_package" in str(why_unchecked(entry, {}))
        assert invoke("plugins", "check", "inverse").exit_code == 3

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["scans", "check", "crss"], "did you mean 'cross'?"),
            (["plugins", "check", "phantm"], "did you mean 'phantom'?"),
            (["plugins", "check", "folder"], "Options are given with --set option=value"),
            (["plugins", "check", "cross", "--kind", "blok"], "there is no kind 'blok'"),
            (["scans", "check", "regenerate", "--set", "base=cros"], "did you mean 'cross'"),
        ],
    )
    def test_what_is_not_there_exits_2(self, arguments: list[str], said: str) -> None:
        result = invoke(*arguments)
        assert result.exit_code == 2, result.output
        assert said in result.output


class TestInfo:
    def test_a_component_with_its_options(self) -> None:
        told = invoke("plugins", "info", "regenerate").output
        assert re.search(r"^scans  \(ssmdiff [\d.]+\)  ok  \d+ ms$", told, re.MULTILINE)
        assert 'base: string or object, default "cross"' in told
        assert "block: integer >= 1, <= 64, default 1" in told
        assert "cite Ju and Zhou, VM-DDPM" in told

    def test_as_json(self) -> None:
        (row,) = json.loads(invoke("plugins", "info", "folder", "--json").output)
        (component,) = row["components"]
        assert row["distribution"] == "ssmdiff"
        assert component["options"]["path"] == {
            "type": "string",
            "required": True,
            "default": None,
        }

    def test_a_distribution_is_all_of_its_plugins(self) -> None:
        rows = json.loads(invoke("plugins", "info", "ssmdiff", "--json").output)
        assert {"scans", "kernels", "vmddpm"} <= {row["plugin"] for row in rows}
        assert not [c for row in rows for c in row["components"] if "error" in c]

    def test_a_broken_plugin_says_why(self, install, fresh_registry) -> None:
        install("ssmdiff-broken", "raise RuntimeError('no luck')")
        told = invoke("plugins", "info", "ssmdiff-broken")
        assert told.exit_code == 0
        assert "BROKEN" in told.output
        assert "RuntimeError: no luck" in told.output

    def test_what_is_not_there_exits_2(self) -> None:
        result = invoke("plugins", "info", "regenrate")
        assert result.exit_code == 2
        assert "did you mean 'regenerate'?" in result.output


class TestNew:
    """That the packages install and pass their tests is in ``tests/examples/test_pages.py``."""

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["cross"], "there is scan 'cross' (ssmdiff "),
            (["My-Scan"], "expected lower-case ASCII words"),
            (["../../x"], "is not allowed"),
            (["my-scan", "--kind", "scam"], "did you mean 'scan'?"),
            (["my-scan", "--kind", "judge"], "--kind judge: known: backbone, block, "),
            (["train", "--kind", "command"], "there is command 'train' (ssmdiff "),
            (["my-scan", "--out", "full"], "full is there and not empty; choose another --out"),
            (["my-scan", "--out", "file"], "file is there and not empty"),
        ],
    )
    def test_what_cannot_be_written_exits_2(
        self, arguments, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("full").mkdir()
        Path("full/mine.txt").write_text("keep")
        Path("file").write_text("keep")
        before = sorted(tmp_path.rglob("*"))
        result = invoke("plugins", "new", *arguments)
        assert result.exit_code == 2
        assert said in result.output
        assert sorted(tmp_path.rglob("*")) == before

    def test_nothing_is_left_to_be_filled_in(self, tmp_path: Path) -> None:
        for kind in KINDS:
            folder = tmp_path / kind
            assert invoke("plugins", "new", f"a_b-{kind}", "--kind", kind, "--out", folder)
            for path in folder.rglob("*.*"):
                if path.is_file():
                    assert "$" not in path.read_text(), path
            assert (folder / f"ssmdiff_a_b_{kind}" / f"{kind}.py").is_file()


class TestCite:
    def test_a_line_becomes_an_entry(self) -> None:
        (entry,) = bibtex("Ho et al., Denoising Diffusion & Co, NeurIPS 2020, arXiv:2006.11239")
        assert entry.text.splitlines() == [
            "@misc{ho2020denoising,",
            "  author = {Ho and others},",
            r"  title = {{Denoising Diffusion \& Co}},",
            "  howpublished = {NeurIPS 2020},",
            "  year = {2020},",
            "  eprint = {2006.11239},",
            "  archivePrefix = {arXiv},",
            "  url = {https://arxiv.org/abs/2006.11239},",
            "}",
        ]

    def test_bibtex_is_left_as_it_is(self) -> None:
        entry = "@article{x2020,\n  title = {Of X; and Y},\n}"
        assert [e.text for e in bibtex(entry)] == [entry]
        assert bibtex(entry)[0].key == "x2020"

    def test_several_works_in_one_line(self) -> None:
        line = (
            "Hilbert, Ueber die Abbildung, Math. Ann. 38, 1891; any H x W: Cerveny, gilbert, 2018; "
            "as a scan: He et al., MambaAD, arXiv:2404.06564, and Hu et al., ZigMa, ECCV 2024, "
            "arXiv:2403.13802; Roe and Poe, Title, doi:10.1000/182"
        )
        entries = bibtex(line)
        assert [e.key for e in entries] == [
            "hilbert1891ueber",
            "cerveny2018gilbert",
            "he2024mambaad",
            "hu2024zigma",
            "roetitle",
        ]
        assert "doi = {10.1000/182}" in entries[-1].text

    def test_a_work_is_told_once_and_in_full_and_keys_differ(self) -> None:
        found = collected(
            [
                "Ju and Zhou, VM-DDPM, arXiv:2405.05667",
                "Ju and Zhou, VM-DDPM: Vision Mamba Diffusion, arXiv:2405.05667",
                "Ju and Zhou, VM-DDPM, arXiv:2405.99999",
            ]
        )
        assert [e.key for e in found] == ["ju2024vmddpm", "ju2024vmddpmx"]
        assert "Vision Mamba" in found[0].text
        assert found[1].text.startswith("@misc{ju2024vmddpmx,")

    def test_every_citation_that_is_shipped_is_an_entry_with_its_braces_closed(self) -> None:
        from ssmdiff.registry.registry import Registry

        for entry in Registry(allowed=[]).all():
            for found in bibtex(entry.component.cite) if entry.component.cite else ():
                assert re.match(r"@\w+\{[a-z0-9]+,\n", found.text), entry.label
                assert found.text.count("{") == found.text.count("}"), entry.label
                assert "author = {}" not in found.text, entry.label

    def test_components_by_name(self) -> None:
        told = invoke("cite", "regenerate", "mss", "conv").output
        assert "% block conv: nothing to cite" in told
        assert told.count("@misc{") == 1
        assert "% scan regenerate, block mss" in told

    def test_all_components_of_a_run_those_inside_options_too(self, tmp_path: Path) -> None:
        from ssmdiff.runs.config import resolve
        from ssmdiff.runs.run import RunFolder

        scan = {"name": "regenerate", "base": "hilbert"}
        RunFolder(tmp_path / "run").create(resolve({"model": {"scan": scan}}))
        told = invoke("cite", tmp_path / "run").output
        for used in ("scan regenerate", "scan hilbert", "block mss", "backbone vmddpm"):
            assert used in told
        assert "scheduler" in told

    def test_what_is_neither_exits_2(self) -> None:
        result = invoke("cite", "regenrate")
        assert result.exit_code == 2
        assert "did you mean 'regenerate'?" in result.output
