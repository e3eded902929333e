"""The packages that the pages for authors end in, and those that ``plugins new`` writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ssmdiff.registry.component import KINDS

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[2] / "docs"
LONGEST = 20  # lines of the scan's module, as the page promises


def files_of(page: Path) -> dict[str, str]:
    """The files that a page shows, by the name in their first line."""
    blocks = re.findall(r"^```(?:toml|python)\n(# (\S+)\n.*?)^```", page.read_text(), re.M | re.S)
    return {name: text for text, name in blocks}


def lay_out(files: dict[str, str], folder: Path) -> Path:
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("page", "kind", "name"),
    [
        ("write-a-scan.md", "scan", "checkerboard"),
        ("write-a-block.md", "block", "running-mean"),
        ("write-a-kernel.md", "kernel", "one-by-one"),
    ],
)
def test_the_package_of_the_page_installs_and_keeps_its_contract(
    page: str, kind: str, name: str, site, succeed, tmp_path: Path
) -> None:
    site.install(lay_out(files_of(DOCS / page), tmp_path / "package"))
    assert f"{name}  (ssmdiff-{name} 0.1)  ok" in succeed(site.ssmdiff("plugins", "list"))
    told = succeed(site.ssmdiff("plugins", "check", name))
    assert f"{kind} '{name}' (ssmdiff-{name} 0.1)" in told
    assert " 0 failed" in told
    flags = ["model.backbone.channels=8", "model.backbone.widths=[1]", "sample.count=1"]
    flags += ["train.bound_images=0", "train.batch_size=2", "sample.steps=2"]
    sets = [word for flag in flags for word in ("--set", flag)]
    line = ["train", f"--{kind}", name, "--image-size", 8, "--steps", 2, "--out", tmp_path / "run"]
    succeed(site.ssmdiff(*line, *sets, cwd=tmp_path))


def test_the_scan_of_the_page_is_under_twenty_lines() -> None:
    module = files_of(DOCS / "write-a-scan.md")["ssmdiff_checkerboard.py"]
    assert len([line for line in module.splitlines() if line.strip()]) < LONGEST


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_package_installs_passes_its_tests_and_is_listed(
    kind: str, site, succeed, tmp_path: Path
) -> None:
    name = f"my-{kind}"
    told = succeed(site.ssmdiff("plugins", "new", name, "--kind", kind, cwd=tmp_path))
    assert f"pip install -e './ssmdiff-{name}[test]'" in told
    package = tmp_path / f"ssmdiff-{name}"
    site.install(package)
    assert " passed" in succeed(site.pytest("tests", cwd=package))
    described = succeed(site.ssmdiff("plugins", "info", name))
    assert f"{name}  (ssmdiff-{name} 0.1.0)  ok" in described
    if kind == "scan":
        assert name in succeed(site.ssmdiff("scans", "list"))
