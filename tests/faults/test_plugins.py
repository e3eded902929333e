"""Faults of plugins: the rows P1, P2, P4 to P9, P16 and P17 of the catalogue.

Each fault must leave the other plugins working, say why in ``Plugin.error``, and come up as an
error with exit code 3 only when something of that plugin is asked for.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ssmdiff.errors import (
    ConfigError,
    ContractError,
    PluginBrokenError,
    PluginConflictError,
)
from ssmdiff.registry import Plugin, Registry

GOOD = """
    import ssmdiff

    @ssmdiff.hookimpl
    def ssmdiff_scans():
        return [ssmdiff.Component("good", object, "it works")]
"""


def scans(body: str, signature: str = "ssmdiff_scans()") -> str:
    """A plugin whose hook has this signature and body."""
    return f"""
import sys
import ssmdiff

@ssmdiff.hookimpl
def {signature}:
    {body}
"""


def load_bad(install, code: str) -> tuple[Registry, Plugin]:
    """The registry with a faulty plugin between good ones, and what became of it."""
    install("a-good", GOOD)
    install("ssmdiff-bad", code)
    found = Registry()
    (bad,) = [plugin for plugin in found.plugins if plugin.distribution == "ssmdiff-bad"]
    return found, bad


FAULTS = {
    "P1 raises at import": ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
    "P1 syntax error": ("def broken(:", "SyntaxError"),
    "P2 exits at import": ("import sys; sys.exit(4)", "SystemExit: 4"),
    "P2 exits in a hook": (scans("sys.exit('bye')"), "SystemExit: bye"),
    "P4 missing dependency": (
        "import absent_package.inner",
        "needs the Python package 'absent_package', which is not installed. "
        "Try: pip install absent_package",
    ),
    "P4 missing name": ("from ssmdiff import absent_name", "ImportError: cannot import name"),
    "P7 misspelt hook": (
        scans("return []", "ssmdiff_scan()"),
        "hook 'ssmdiff_scan' is not one of ssmdiff's; did you mean 'ssmdiff_scans'?",
    ),
    "P8 wrong argument": (
        scans("return []", "ssmdiff_scans(grid)"),
        "Argument(s) {'grid'} are declared in the hookimpl but can not be found in the hookspec",
    ),
    "P9 returns None": (scans("pass"), "hook 'ssmdiff_scans' returned a NoneType"),
    "P9 returns a number": (scans("return 5"), "hook 'ssmdiff_scans' returned a int"),
    "P9 returns one component": (
        scans("return ssmdiff.Component('one', object, 'not in a list')"),
        "hook 'ssmdiff_scans' returned a Component",
    ),
    "P9 returns junk": (
        scans("return [ssmdiff.Component('one', object, 'x'), 'junk']"),
        "hook 'ssmdiff_scans' yielded a str; expected ssmdiff.Component records",
    ),
    "P9 raises midway": (
        scans("yield ssmdiff.Component('one', object, 'x'); raise ValueError('midway')"),
        "ValueError: midway",
    ),
    "P9 raises without a message": (scans("raise ValueError"), "ValueError"),
    "P6 yields a name twice": (
        scans("yield from [ssmdiff.Component('one', object, 'x')] * 2"),
        "hook 'ssmdiff_scans' yields 'one' twice",
    ),
    "P17 name that is a path": (
        scans("yield ssmdiff.Component('../../x', object, 'x')"),
        "component name '../../x' is not allowed",
    ),
}


@pytest.fixture(params=FAULTS)
def fault(request: pytest.FixtureRequest) -> tuple[str, str]:
    return FAULTS[request.param]


def test_the_faulty_plugin_says_why(install, fault) -> None:
    code, cause = fault
    _, bad = load_bad(install, code)
    assert cause in bad.error
    assert "\n" not in bad.error
    assert "Traceback" in bad.detail


def test_the_faulty_plugin_offers_nothing(install, fault) -> None:
    found, bad = load_bad(install, fault[0])
    assert bad.components == []
    assert "one" not in found.names("scan")


def test_the_other_plugins_work(install, fault) -> None:
    found, _ = load_bad(install, fault[0])
    assert type(found.create("scan", "good")) is object
    assert found.create("scan", "cross").directions(2) == 4
    assert [plugin.distribution for plugin in found.plugins if plugin.error] == ["ssmdiff-bad"]


def test_asking_for_what_it_may_have_offered_tells_its_error(install, fault) -> None:
    code, cause = fault
    found, _ = load_bad(install, code)
    with pytest.raises(PluginBrokenError) as raised:
        found.find("scan", "one-of-its-own")
    assert raised.value.exit_code == 3
    assert "(ssmdiff-bad 1.0) failed to load" in str(raised.value)
    assert cause in str(raised.value)


def test_a_misspelt_name_stays_a_mistake_of_the_user(install) -> None:
    found, _ = load_bad(install, "raise RuntimeError")
    with pytest.raises(ConfigError, match="did you mean 'regenerate'"):
        found.find("scan", "regenrate")


@pytest.mark.parametrize("fault_of", ["hook", "argument"])
def test_a_faulty_plugin_adds_no_commands_either(install, fault_of: str) -> None:
    command = """
@ssmdiff.hookimpl
def ssmdiff_commands():
    return [("surprise", None)]
"""
    argument = "ssmdiff_scans(grid)" if fault_of == "argument" else "ssmdiff_scans()"
    found, bad = load_bad(install, scans("raise ValueError", argument) + command)
    assert bad.error
    assert "surprise" not in [name for name, _ in found.commands()]


def test_commands_of_plugins_are_collected(install) -> None:
    install("ssmdiff-extra", scans("yield 'extra', None", "ssmdiff_commands()"))
    assert ("extra", None) in Registry().commands()


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
        ("sys.exit('bye')", "SystemExit: bye"),
        ("pass", "TypeError"),
        ("return ['junk']", "ValueError"),
    ],
)
def test_a_hook_for_commands_that_fails_leaves_the_other_commands(install, body, cause) -> None:
    install("ssmdiff-extra", scans("yield 'extra', None", "ssmdiff_commands()"))
    found, bad = load_bad(install, scans(body, "ssmdiff_commands()"))
    assert ("extra", None) in found.commands()
    assert cause in bad.error


def test_p5_entry_points_of_one_name_from_two_distributions_both_load(install) -> None:
    install("first-dist", scans("yield ssmdiff.Component('one', object, 'x')"), point="same")
    install("second-dist", scans("yield ssmdiff.Component('two', object, 'x')"), point="same")
    found = Registry()
    assert {"one", "two"} <= set(found.names("scan"))


def test_p5_two_entry_points_of_one_module_name_the_second(install) -> None:
    install("first-dist", GOOD)
    site = install("second-dist", GOOD)
    points = site / "second_dist-1.0.dist-info" / "entry_points.txt"
    points.write_text("[ssmdiff]\nsecond = first_dist\n")
    found = Registry()
    assert type(found.create("scan", "good")) is object
    (second,) = [plugin for plugin in found.plugins if plugin.error]
    assert second.distribution == "second-dist"
    assert "already registered" in second.error


class TestConflict:
    """P6: two distributions claim one name."""

    @pytest.fixture
    def found(self, install) -> Registry:
        code = scans("yield ssmdiff.Component('spiral', object, 'x')")
        install("one-spiral", code, version="1.2")
        install("other-spiral", code, version="0.9")
        return Registry()

    def test_asking_for_it_names_both_and_their_versions(self, found) -> None:
        both = "'spiral' is offered by one-spiral 1.2 and other-spiral 0.9"
        with pytest.raises(PluginConflictError, match=both) as raised:
            found.create("scan", "spiral")
        assert raised.value.exit_code == 3

    def test_neither_wins(self, found) -> None:
        assert "spiral" not in [entry.component.name for entry in found.all("scan")]
        assert "spiral" in found.names("scan")

    def test_it_is_listed(self, found) -> None:
        (sentence,) = found.conflicts()
        assert "one-spiral 1.2" in sentence
        assert "SSMDIFF_PLUGINS" in sentence

    def test_the_rest_works(self, found) -> None:
        assert found.create("scan", "cross").directions(2) == 4

    def test_the_allow_list_resolves_it(self, found) -> None:
        only = Registry(allowed=["one-spiral"])
        assert only.find("scan", "spiral").plugin.distribution == "one-spiral"


def test_p6_a_built_in_cannot_be_shadowed(install) -> None:
    install("shadow", scans("yield ssmdiff.Component('cross', object, 'mine')"))
    with pytest.raises(PluginConflictError, match=r"ssmdiff .* and shadow 1\.0; a plugin may not"):
        Registry().find("scan", "cross")


def test_p6_one_name_in_two_kinds_is_no_conflict(install) -> None:
    code = """
        import ssmdiff

        @ssmdiff.hookimpl
        def ssmdiff_blocks():
            yield ssmdiff.Component("cross", object, "a block, not a scan")
    """
    install("cross-block", code)
    found = Registry()
    assert found.conflicts() == []
    assert type(found.create("block", "cross")) is object


def test_p10_a_scan_that_gives_no_permutation_is_an_error_of_the_plugin(install) -> None:
    code = """
        import numpy as np
        import ssmdiff

        class Twice(ssmdiff.Scan):
            def directions(self, dims):
                return 1

            def order(self, grid, generator=None):
                table = np.arange(np.prod(grid))[None]
                table[0, -1] = 0
                return ssmdiff.ScanOrder(table)

        @ssmdiff.hookimpl
        def ssmdiff_scans():
            yield ssmdiff.Component("twice", Twice, "the first token twice")
    """
    install("ssmdiff-twice", code)
    from ssmdiff.orders import fixed_order

    with pytest.raises(ContractError, match=r"scan Twice on a 7 x 5 grid: .*token 0 .*at time 34"):
        fixed_order(Registry().create("scan", "twice"), (7, 5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"turn": 2}, "'turn': unknown key; did you mean 'turns'"),
        ({"turns": 0}, "'turns': got 0; input should be greater than or equal to 1"),
        ({"turns": "2"}, "'turns': got '2'"),
    ],
)
def test_p15_an_option_that_does_not_fit_is_a_configuration_error(install, options, message):
    code = """
        from typing import Annotated
        import ssmdiff
        from pydantic import Field

        def spiral(turns: Annotated[int, Field(ge=1)] = 3): ...

        @ssmdiff.hookimpl
        def ssmdiff_scans():
            yield ssmdiff.Component("spiral", spiral, "x")
    """
    install("ssmdiff-spiral", code)
    with pytest.raises(ConfigError, match=message) as raised:
        Registry().create("scan", "spiral", **options)
    assert raised.value.exit_code == 2


def test_p16_a_component_that_is_not_asked_for_is_not_imported(install) -> None:
    site = install("lazy", scans("yield ssmdiff.Component('lazy', 'lazy_inner:Scan', 'x')"))
    (site / "lazy_inner.py").write_text("class Scan: ...\n")
    found = Registry()
    assert "lazy_inner" not in sys.modules
    assert type(found.create("scan", "lazy")).__name__ == "Scan"


def test_p17_a_name_that_is_a_path_opens_nothing() -> None:
    with pytest.raises(ConfigError, match="no scan named"):
        Registry().create("scan", "../../x")


def test_a_package_installed_by_pip_is_found(tmp_path: Path, python) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "pip_spiral.py").write_text(scans("yield ssmdiff.Component('spiral', object, 'x')"))
    (source / "pyproject.toml").write_text(
        """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "ssmdiff-pip-spiral"
version = "0.3"

[project.entry-points.ssmdiff]
spiral = "pip_spiral"

[tool.hatch.build.targets.wheel]
include = ["pip_spiral.py"]
"""
    )
    target = tmp_path / "target"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run(
        [*pip, "--no-build-isolation", "--target", str(target), str(source)],
        check=True,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    result = python(
        'import ssmdiff; print(ssmdiff.registry().find("scan", "spiral").label)',
        PYTHONPATH=str(target),
    )
    assert result.stdout.strip() == "scan 'spiral' (ssmdiff-pip-spiral 0.3)", result.stderr
