"""The third-party package of ``examples/``: installed from its folder, listed, checked, trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[2] / "examples" / "ssmdiff-moore"


@pytest.fixture(scope="module", autouse=True)
def installed(site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package: building leaves its traces there and not in the repository."""
    copy = tmp_path_factory.mktemp("source") / FOLDER.name
    shutil.copytree(FOLDER, copy)
    site.install(copy)
    return copy


def test_its_own_tests_pass(site, installed, succeed) -> None:
    assert " passed" in succeed(site.pytest(installed / "tests", cwd=installed))


def test_it_is_listed_with_its_distribution_and_version(site, succeed) -> None:
    scans = json.loads(succeed(site.ssmdiff("scans", "list", "--json")))
    (row,) = [row for row in scans if row["name"] == "moore"]
    assert row["from"] == "ssmdiff-moore 1.0.0"
    listed = succeed(site.ssmdiff("plugins", "list"))
    assert "moore  (ssmdiff-moore 1.0.0)  ok" in listed


def test_it_is_checked_from_the_shell(site, succeed) -> None:
    told = succeed(site.ssmdiff("scans", "check", "moore", "--set", "start=0.5"))
    assert "scan 'moore' (ssmdiff-moore 1.0.0) with start = 0.5" in told
    assert "serves 4 of 85 grids of images" in told
    assert "12 checks, 0 failed" in told


def test_it_is_drawn_as_its_page_shows(site, succeed) -> None:
    drawn = succeed(site.ssmdiff("scans", "show", "moore", "--grid", "8x8", "--ascii"))
    assert drawn.startswith("o>o o>o o>o o>o\n")


def test_pytest_checks_it_without_a_test(site, succeed, tmp_path: Path) -> None:
    told = succeed(site.pytest("--ssmdiff=ssmdiff-moore", "-rA", cwd=tmp_path))
    assert "ssmdiff::scan:moore::permutation" in told
    assert "12 passed" in told


def test_a_network_trains_along_it(site, succeed, tmp_path: Path) -> None:
    arguments = ["model.backbone.channels=8", "model.backbone.widths=[1]", "sample.count=1"]
    arguments += ["train.bound_images=0", "train.batch_size=2", "sample.steps=2"]
    sets = [word for assignment in arguments for word in ("--set", assignment)]
    run = tmp_path / "run"
    line = ["train", "--scan", "moore", "--image-size", 16, "--steps", 2, "--out", run]
    succeed(site.ssmdiff(*line, *sets, cwd=tmp_path))
    assert "moore: ssmdiff-moore 1.0.0" in (run / "config.toml").read_text()
    assert "crinkly" in succeed(site.ssmdiff("cite", run))


def test_sizes_that_it_cannot_serve_are_refused_before_training(site, tmp_path: Path) -> None:
    done = site.ssmdiff("train", "--scan", "moore", "--image-size", 96, cwd=tmp_path)
    assert done.returncode == 2
    assert "scan 'moore' serves squares whose side is a power of two" in done.stderr
