"""Packages as a stranger would make them: installed by pip, used from another process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Done = subprocess.CompletedProcess[str]


class Site:
    """A folder that pip installs into and that other processes import from."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def install(self, package: Path) -> None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
        pip += ["--no-build-isolation", "--disable-pip-version-check"]
        done = self._run([*pip, "--target", str(self.path), "--upgrade", str(package)])
        assert done.returncode == 0, done.stderr

    def ssmdiff(self, *arguments: object, cwd: Path | None = None) -> Done:
        return self._run([sys.executable, "-m", "ssmdiff", *map(str, arguments)], cwd)

    def pytest(self, *arguments: object, cwd: Path | None = None) -> Done:
        quiet = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
        return self._run([sys.executable, "-m", "pytest", *quiet, *map(str, arguments)], cwd)

    def _run(self, command: list[str], cwd: Path | None = None) -> Done:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(self.path), "PYTHONDONTWRITEBYTECODE": "1"},
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture
def succeed() -> Callable[[Done], str]:
    """The output of a process that went well."""

    def output(done: Done) -> str:
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return output
