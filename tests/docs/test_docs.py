"""The documents are true: their commands run, their code runs, their links and figures hold."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import shown
from PIL import Image
from shown import blocks, console, quick
from ssmdiff.registry.registry import Registry
from ssmdiff_cli.main import app
from typer.testing import CliRunner

ROOT, PAGES = shown.ROOT, shown.PAGES


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder as the documents assume it: a demo run is there, and some 16-bit images."""
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 4096, (70, 80)).astype(np.uint16)
        Image.fromarray(pixels).save(f"images/{i}.png")
    return tmp_path


def tiers(pages):
    """A page whose commands train, export, measure or check is one of the slow tier."""
    slow = re.compile(r"ssmdiff (train|export|bench|doctor|\w+ check|reproduce .*--scale)\b")
    for page in pages:
        if page.name == "deploy.md":  # test_deploy.py runs all of it
            continue
        heavy = any(slow.match(line) for line in console(page))
        yield pytest.param(page, marks=[pytest.mark.slow] if heavy else [], id=page.name)


@pytest.mark.parametrize("page", list(tiers(PAGES)))
def test_every_command_shown_runs(page, place):
    for line in console(page):
        words = quick(line)
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, f"{line}\n{result.output}"
        if words[0] == "train":  # what was written is what was said
            (run,) = re.findall(r"^run: (.+)$", result.output, re.MULTILINE)
            written = tomllib.loads(Path(run, "config.toml").read_text())
            assert not shown.differing(words, written), line


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_link_inside_leads_somewhere(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.slow
def test_the_library_example_runs(place):
    (code,) = blocks(ROOT / "README.md", "python")
    names = {}
    exec(code.replace('"steps": 20,', '"steps": 2, "bound_images": 0,'), names)
    assert names["run"].config.model.scan["name"] == "hilbert"
    assert names["run"].checkpoint.step == 2
    assert names["images"].shape == (4, 1, 32, 32)
    assert names["orders"][0].index.shape == (4, 35)


def test_the_readme_and_the_help_know_the_same_commands():
    shown = {line.split()[1] for page in PAGES for line in console(page)}
    assert set(Registry(allowed=[]).names("command")) <= shown


@pytest.mark.slow
def test_the_plugin_of_the_architecture_page_installs_and_trains(place):
    """The two-file package, copied out of the page, installed with pip, used by name."""
    page = ROOT / "docs" / "architecture.md"
    (project,), (module,) = blocks(page, "toml"), blocks(page, "python")
    package = place / "package"
    package.mkdir()
    (package / "pyproject.toml").write_text(project)
    (package / "ssmdiff_backwards.py").write_text(module)
    site = place / "site"
    installed = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
         "--no-index", "--target", str(site), str(package)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert installed.returncode == 0, installed.stderr

    # A second package that raises at import breaks nothing else.
    (site / "ssmdiff_bad.py").write_text("raise RuntimeError('out of order')\n")
    info = site / "ssmdiff_bad-0.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ssmdiff-bad\nVersion: 0.2\n")
    (info / "entry_points.txt").write_text("[ssmdiff]\nbad = ssmdiff_bad\n")

    def ssmdiff(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "ssmdiff", *arguments],
            capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(site)},
        )  # fmt: skip

    listed = ssmdiff("plugins", "list").stdout
    assert "backwards  (ssmdiff-backwards 0.1)  ok" in listed
    assert "bad  (ssmdiff-bad 0.2)  BROKEN" in listed
    assert "RuntimeError: out of order" in listed
    trained = ssmdiff(*quick("ssmdiff train --scan backwards --out run"))
    assert trained.returncode == 0, trained.stderr
    assert "backwards: ssmdiff-backwards 0.1" in Path("run/config.toml").read_text()
