"""Delete a plugin's folder and its entry point, and the rest still works.

Each plugin in turn is left out of a copy of the tree, and once all of them are. In the copy
``plugins list`` names the others, a command that is not there is told with the nearest, and the
core's tests pass; those that borrow a component of a plugin say so (``needs_plugin``) and are
skipped. Without any plugin they run on every push, and all night without each.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
import ssmdiff

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ROOMS = ("core", "plugins", "cli", "export")
PLUGINS = sorted(path.name for path in (ROOT / "plugins").iterdir() if any(path.glob("*.py")))
OF_THE_CORE = ("core", "ops", "diffusion")

# The development environment finds this repository by a .pth file, after what PYTHONPATH names.
FORGET = f"""
import sys
sys.path[:] = [path for path in sys.path if path not in {[str(ROOT / room) for room in ROOMS]!r}]
"""


class Copy:
    """The tree without some plugins, and an installation of it that PYTHONPATH leads to."""

    def __init__(self, path: Path, without: tuple[str, ...]) -> None:
        self.path, self.without = path, without
        for room in ROOMS:
            shutil.copytree(ROOT / room, path / room, ignore=shutil.ignore_patterns(*without))
        for folder in OF_THE_CORE:
            shutil.copytree(ROOT / "tests" / folder, path / "tests" / folder)
        (path / "tests" / Path(__file__).relative_to(ROOT / "tests")).unlink()
        shutil.copy(ROOT / "tests" / "conftest.py", path / "tests")
        (path / "docs").mkdir()
        for file in ("pyproject.toml", "README.md", "LICENSE", "Makefile"):
            lines = (ROOT / file).read_text(encoding="utf-8").splitlines(keepends=True)
            kept = "".join(line for line in lines if not any(name in line for name in without))
            (path / file).write_text(kept, encoding="utf-8")
        project = tomllib.loads((path / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        self.points: dict[str, str] = project["entry-points"]["ssmdiff"]
        self._install(project)

    def _install(self, project: dict) -> None:
        info = self.path / "site" / f"ssmdiff-{ssmdiff.__version__}.dist-info"
        info.mkdir(parents=True)
        # That of the installed package: what its extras require is read from there.
        (info / "METADATA").write_text(distribution("ssmdiff").read_text("METADATA") or "")
        groups = {**project["entry-points"], "console_scripts": project["scripts"]}
        lines = [
            line
            for group, points in groups.items()
            for line in (f"[{group}]", *(f"{name} = {place}" for name, place in points.items()))
        ]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        (self.path / "site" / "sitecustomize.py").write_text(FORGET)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        folders = [str(self.path / name) for name in (*ROOMS, "site")]
        return subprocess.run(
            [sys.executable, "-m", *words],
            cwd=self.path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )


@pytest.fixture(scope="module", params=["all", *PLUGINS])
def copy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Copy:
    without = tuple(PLUGINS) if request.param == "all" else (request.param,)
    return Copy(tmp_path_factory.mktemp("copy") / "ssmdiff", without)


def test_the_copy_is_all_that_is_imported(copy: Copy) -> None:
    (copy.path / "probe.py").write_text(
        "import importlib.util, ssmdiff\n"
        f"print(ssmdiff.__file__, *map(importlib.util.find_spec, {copy.without!r}))"
    )
    done = copy.run("probe")
    place, *found = done.stdout.split()
    assert place == str(copy.path / "core/ssmdiff/__init__.py"), done.stderr
    assert found == ["None"] * len(copy.without)


def test_the_other_plugins_are_listed(copy: Copy) -> None:
    listed = copy.run("ssmdiff_cli.main", "plugins", "list")
    assert listed.returncode == 0, listed.stderr
    found = re.findall(r"^(\S+)  \(ssmdiff \S+\)  ok", listed.stdout, re.MULTILINE)
    assert sorted(found) == sorted(copy.points), listed.stdout


def test_a_command_that_is_not_there_is_told_with_the_nearest(copy: Copy) -> None:
    told = copy.run("ssmdiff_cli.main", "plugin")
    assert told.returncode == 2
    said = " ".join(told.stderr.split())
    assert "did you mean 'plugins'?" in said
    assert "commands come from plugins" in said


def passes(copy: Copy, *folders: str) -> None:
    quiet = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow and not night"]
    done = copy.run("pytest", *quiet, *(f"tests/{folder}" for folder in folders))
    assert done.returncode == 0, done.stdout[-9000:] + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) > 100, done.stdout[-1000:]


@pytest.mark.parametrize("copy", ["all"], indirect=True)
def test_the_cores_tests_pass_without_any_plugin(copy: Copy) -> None:
    passes(copy, *OF_THE_CORE)


@pytest.mark.night
@pytest.mark.parametrize("copy", PLUGINS, indirect=True)
def test_the_cores_tests_pass(copy: Copy) -> None:
    passes(copy, *OF_THE_CORE)
