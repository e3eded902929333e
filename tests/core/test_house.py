"""The house: lists of packages agree with the folders, imports stay light, files stay short."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from ssmdiff.registry.component import KINDS
from ssmdiff.registry.registry import Registry

ROOT = Path(__file__).parents[2]
ROOMS = ("core", "plugins", "cli", "export")
LONGEST = 400  # lines of a file
JOBS = {"ssmdiff_train", "ssmdiff_bench"}  # whose commands the command line still imports

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
IMPORT_LINTER = PYPROJECT["tool"]["importlinter"]


def folders(*rooms: str) -> list[str]:
    """The packages under these rooms, as ``room/package``."""
    return sorted(
        f"{room}/{path.name}"
        for room in rooms
        for path in (ROOT / room).glob("*")
        if path.is_dir() and any(path.rglob("*.py"))
    )


def packages(*rooms: str) -> list[str]:
    return sorted(folder.partition("/")[2] for folder in folders(*rooms))


def contract(kind: str, source: str | None = None) -> dict[str, list[str]]:
    (found,) = [
        c
        for c in IMPORT_LINTER["contracts"]
        if c["type"] == kind and (source is None or c["source_modules"] == [source])
    ]
    return found


def test_the_wheel_holds_every_package() -> None:
    listed = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert sorted(listed) == folders(*ROOMS)


def test_the_editable_install_finds_every_room() -> None:
    listed = PYPROJECT["tool"]["hatch"]["build"]["dev-mode-dirs"]
    assert sorted(listed) == sorted(room for room in ROOMS if folders(room))


def test_every_plugin_folder_has_an_entry_point() -> None:
    points = PYPROJECT["project"]["entry-points"]["ssmdiff"]
    assert points["core"] == "ssmdiff.registry.builtin", "what the core itself contributes"
    assert points["export"] == "ssmdiff_export.plugin", "so that its runtime needs no pluggy"
    inside = {points["core"], points["export"]}
    assert sorted(set(points.values()) - inside) == packages("plugins")


def test_the_import_linter_knows_every_package() -> None:
    assert sorted(IMPORT_LINTER["root_packages"]) == packages(*ROOMS)


def test_the_core_may_import_none_of_the_others() -> None:
    forbidden = contract("forbidden", "ssmdiff")["forbidden_modules"]
    assert sorted(forbidden) == packages("plugins", "cli", "export")


def test_plugins_are_held_apart() -> None:
    assert sorted(contract("independence")["modules"]) == packages("plugins")


def test_the_command_line_may_import_no_plugin() -> None:
    forbidden = contract("forbidden", "ssmdiff_cli")["forbidden_modules"]
    assert sorted(forbidden) == sorted({*packages("plugins")} - JOBS)


def test_plugin_modules_import_nothing_heavy(python) -> None:
    result = python(f"""
        import importlib, sys
        for name in {[*packages("plugins"), "ssmdiff_export.plugin"]!r}:
            importlib.import_module(name)
            for heavy in ("torch", "numba", "diffusers", "PIL", "matplotlib", "onnx"):
                assert heavy not in sys.modules, f"import {{name}} imports {{heavy}}"
    """)
    assert result.returncode == 0, result.stderr


def test_every_component_has_a_summary_of_one_line() -> None:
    for entry in Registry(allowed=[]).all():
        assert entry.component.summary.strip(), entry.label
        assert "\n" not in entry.component.summary, entry.label


def test_every_kind_has_a_hook_with_a_page_of_its_own() -> None:
    from ssmdiff.registry import hookspecs

    for kind in KINDS.values():
        assert getattr(hookspecs, kind.hook).__doc__, kind.hook


def test_no_file_is_longer_than_a_reader_bears() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
    }
    assert {path: lines for path, lines in lengths.items() if lines > LONGEST} == {}


@pytest.mark.parametrize("room", ROOMS)
def test_every_package_says_what_it_is(room: str) -> None:
    for folder in folders(room):
        text = (ROOT / folder / "__init__.py").read_text(encoding="utf-8")
        assert text.startswith('"""'), folder
