"""``pytest --ssmdiff``: one test per check per component, nothing without the flag."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SPIN = """
    import numpy as np
    import ssmdiff

    class Spin(ssmdiff.Scan):
        def __init__(self, by: int{default}):
            self.by = by

        def directions(self, dims):
            return 1

        def order(self, grid, generator=None):
            return ssmdiff.ScanOrder(np.roll(np.arange(np.prod(grid)), {by})[None])

    @ssmdiff.hookimpl
    def ssmdiff_scans():
        yield ssmdiff.Component("spin", Spin, "rotated")
"""


@pytest.fixture
def pytest_run(tmp_path: Path):
    """Run pytest in a folder with one test of its own."""
    place = tmp_path / "project"
    place.mkdir()
    (place / "test_own.py").write_text("def test_own(): pass\n")

    def run(*arguments: str, site: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", *arguments],
            cwd=place,
            capture_output=True,
            text=True,
            timeout=200,
            env={**os.environ, "PYTHONPATH": str(site or "")},
        )

    return run


def test_without_the_flag_nothing_is_collected_and_torch_is_not_imported(pytest_run) -> None:
    probe = "import sys; assert 'torch' not in sys.modules"
    (Path(pytest_run.__closure__[0].cell_contents) / "conftest.py").write_text(
        f"def pytest_unconfigure(config):\n    {probe}\n"
    )
    done = pytest_run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


@pytest.mark.slow
def test_the_components_of_one_distribution(pytest_run, install) -> None:
    site = install("ssmdiff-spin", SPIN.format(default=" = 1", by="self.by"))
    done = pytest_run("--ssmdiff=ssmdiff-spin", site=site)
    assert done.returncode == 0, done.stdout
    assert "PASSED ssmdiff::scan:spin::permutation" in done.stdout
    assert "PASSED test_own.py::test_own" in done.stdout
    assert "12 passed, 1 skipped" in done.stdout


@pytest.mark.slow
def test_a_failure_is_a_sentence(pytest_run, install) -> None:
    site = install("ssmdiff-spin", SPIN.format(default=" = 1", by="np.random.randint(99)"))
    done = pytest_run("--ssmdiff=ssmdiff-spin", "-m", "ssmdiff", "-k", "randomness", site=site)
    assert done.returncode == 1
    assert "scan 'spin' (ssmdiff-spin 1.0): randomness: got " in done.stdout
    assert "Traceback" not in done.stdout
    assert "1 failed, 12 deselected" in done.stdout


@pytest.mark.slow
def test_a_component_that_needs_options_is_skipped_and_says_so(pytest_run, install) -> None:
    site = install("ssmdiff-spin", SPIN.format(default="", by="self.by"))
    done = pytest_run("--ssmdiff=ssmdiff-spin", "-m", "ssmdiff", site=site)
    assert done.returncode == 0, done.stdout
    assert "12 skipped" in done.stdout
    assert "write a test with ssmdiff.testing.check_scan" in done.stdout


def test_an_unknown_distribution_is_a_usage_error(pytest_run) -> None:
    done = pytest_run("--ssmdiff", "test_own.py")
    assert done.returncode == 4
    assert "no distribution 'test_own.py' has a component to check" in done.stderr + done.stdout


@pytest.mark.slow
def test_with_the_bare_flag_everything_is_collected(pytest_run) -> None:
    done = pytest_run("--ssmdiff", "--collect-only", "-q")
    assert done.returncode == 0, done.stdout
    for name in ("scan:hilbert", "block:mss", "kernel:numba", "dataset:folder", "backbone:vmddpm"):
        assert f"ssmdiff::{name}::" in done.stdout
