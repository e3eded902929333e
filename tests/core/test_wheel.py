"""The wheel holds what the folders hold, and says to type checkers that it is typed."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[2]
WHEEL = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
PACKAGES = [Path(package) for package in WHEEL["wheel"]["packages"]]


@pytest.fixture(scope="module")
def packed() -> set[str]:
    """Paths inside the wheel, as hatchling chooses them; no wheel is built."""
    return {
        str(file.distribution_path) for file in WheelBuilder(str(ROOT)).recurse_included_files()
    }


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_every_file_of_a_package_is_in_the_wheel(package: Path, packed: set[str]) -> None:
    """A pattern of ``.gitignore`` leaves out of a wheel what it matches, without a word."""
    room = ROOT / package.parent
    files = {
        str(path.relative_to(room))
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert files - packed == set()


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_every_package_says_that_it_is_typed(package: Path, packed: set[str]) -> None:
    assert f"{package.name}/py.typed" in packed
