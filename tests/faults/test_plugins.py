"""Faults of plugins while they load: the rows P1 to P9, P13 and P15 to P17 of the catalogue.

Rows P10, P11, P12 and P14, what a component does when it is used, are in
``test_plugin_contracts.py``. P2's other half, ``os._exit`` at import, ends the process before
anything can be told and is not defended. P18 is C7, a checkpoint's; P19 is not defended.

Each fault must leave the other plugins working, say why in ``Plugin.error``, and come up as an
error with exit code 3 only when something of that plugin is asked for.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from ssmdiff.errors import (
    ConfigError,
    ContractError,
    PluginBrokenError,
    PluginConflictError,
)
from ssmdiff.registry.component import Component
from ssmdiff.registry.registry import Plugin, Registry
from ssmdiff.runs.config import resolve
from ssmdiff_cli.main import app
from typer.testing import CliRunner

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
    "P13 newer interface": (
        "SSMDIFF_API = 99" + scans("yield ssmdiff.Component('one', object, 'x')"),
        "needs ssmdiff >= plugin API 99, and the ssmdiff that is installed has API 1. "
        "Try: pip install --upgrade ssmdiff",
    ),
    "P13 newer interface with a hook of its own": (
        "SSMDIFF_API = 2" + scans("return []", "ssmdiff_of_tomorrow()"),
        "needs ssmdiff >= plugin API 2",
    ),
    "P13 interface that is no number": (
        "SSMDIFF_API = '1'" + scans("return []"),
        "SSMDIFF_API is '1'; expected a whole number",
    ),
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
    return [ssmdiff.Command("surprise", "builtins:print", "x")]
"""
    argument = "ssmdiff_scans(grid)" if fault_of == "argument" else "ssmdiff_scans()"
    found, bad = load_bad(install, scans("raise ValueError", argument) + command)
    assert bad.error
    assert "surprise" not in found.names("command")


COMMAND = "yield ssmdiff.Command('extra', 'builtins:print', 'x')"


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
        ("sys.exit('bye')", "SystemExit: bye"),
        ("pass", "returned a NoneType; expected ssmdiff.Command records"),
        ("return ['junk']", "yielded a str; expected ssmdiff.Command records"),
        ("yield ssmdiff.Component('x', print, 'x')", "yielded a Component; expected ssmdiff.Comm"),
        ("yield ssmdiff.Command('x', print, 'x', job='no place')", "job 'no place' is not of the"),
        ("yield ssmdiff.Command('x', print, 'x', job=3)", "job is a int; expected a callable"),
    ],
)
def test_a_hook_for_commands_that_fails_leaves_the_other_commands(install, body, cause) -> None:
    install("ssmdiff-extra", scans(COMMAND, "ssmdiff_commands()"))
    found, bad = load_bad(install, scans(body, "ssmdiff_commands()"))
    assert "extra" in found.names("command")
    assert cause in bad.error


def test_p3_a_plugin_that_is_slow_to_load_is_warned_of(install, monkeypatch) -> None:
    """Its import puts the clock on, which is quicker than to sleep."""
    monkeypatch.setattr(time, "perf_counter", time.perf_counter)  # put back afterwards
    late = "import time\nnow = time.perf_counter\ntime.perf_counter = lambda: now() + 2.2\n"
    install("sleepy", late + textwrap.dedent(GOOD))
    with pytest.warns(UserWarning, match=r"plugin 'sleepy' \(sleepy 1\.0\) took 2\.\d s to load"):
        found = Registry()
    (sleepy,) = [plugin for plugin in found.plugins if plugin.name == "sleepy"]
    assert sleepy.load_s > 2
    assert sleepy.slow
    assert not sleepy.error
    assert type(found.create("scan", "good")) is object


def test_p3_the_load_time_is_listed(install, fresh_registry) -> None:
    install("quick", GOOD)
    listed = CliRunner().invoke(app, ["plugins", "list"])
    assert re.search(r"^quick  \(quick 1\.0\)  ok  \d+ ms$", listed.output, re.MULTILINE)
    rows = json.loads(CliRunner().invoke(app, ["plugins", "list", "--json"]).output)["plugins"]
    (quick,) = [row for row in rows if row["plugin"] == "quick"]
    assert 0 < quick["load_s"] < 1
    assert quick["slow"] is False


@pytest.mark.parametrize("api", ["", "SSMDIFF_API = 1"])
def test_p13_a_plugin_for_this_interface_loads(install, api: str) -> None:
    install("current", api + scans("yield ssmdiff.Component('one', object, 'x')"))
    assert "one" in Registry().names("scan")


def test_p1_p4_the_list_and_the_exit_code_of_the_command_line(install, fresh_registry) -> None:
    install("ssmdiff-bad", "import absent_package")
    listed = CliRunner().invoke(app, ["plugins", "list"])
    assert listed.exit_code == 0
    assert "ssmdiff_bad  (ssmdiff-bad 1.0)  BROKEN" in listed.output
    assert "needs the Python package 'absent_package'" in listed.output
    for arguments in (["scans", "check", "one-of-its-own"], ["plugins", "check", "ssmdiff-bad"]):
        asked = CliRunner().invoke(app, arguments)
        assert asked.exit_code == 3, asked.output
        assert "needs the Python package 'absent_package'" in asked.output


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
        code = scans("yield ssmdiff.Component('corkscrew', object, 'x')")
        install("one-spiral", code, version="1.2")
        install("other-spiral", code, version="0.9")
        return Registry()

    def test_asking_for_it_names_both_and_their_versions(self, found) -> None:
        both = "'corkscrew' is offered by one-spiral 1.2 and other-spiral 0.9"
        with pytest.raises(PluginConflictError, match=both) as raised:
            found.create("scan", "corkscrew")
        assert raised.value.exit_code == 3

    def test_neither_wins(self, found) -> None:
        assert "corkscrew" not in [entry.component.name for entry in found.all("scan")]
        assert "corkscrew" in found.names("scan")

    def test_it_is_listed(self, found) -> None:
        (sentence,) = found.conflicts()
        assert "one-spiral 1.2" in sentence
        assert "SSMDIFF_PLUGINS" in sentence

    def test_the_rest_works(self, found) -> None:
        assert found.create("scan", "cross").directions(2) == 4

    def test_the_allow_list_resolves_it(self, found) -> None:
        only = Registry(allowed=["one-spiral"])
        assert only.find("scan", "corkscrew").plugin.distribution == "one-spiral"


def test_p6_a_built_in_cannot_be_shadowed(install) -> None:
    install("shadow", scans("yield ssmdiff.Component('cross', object, 'mine')"))
    with pytest.raises(PluginConflictError, match=r"ssmdiff .* and shadow 1\.0; a plugin may not"):
        Registry().find("scan", "cross")


@pytest.mark.parametrize(
    "name", ["Cross", "CROSS", "cr\u043ess", "cross ", "cro\u200bss", "", "-x"]
)
def test_p6_a_name_that_looks_like_another_is_refused(install, name: str) -> None:
    """Other case, a Cyrillic o, blanks and what cannot be seen: none of them is a name."""
    found, bad = load_bad(install, scans(f"yield ssmdiff.Component({name!r}, object, 'x')"))
    assert "is not allowed; expected lower-case ASCII words" in bad.error
    assert found.create("scan", "cross").directions(2) == 4


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
            yield ssmdiff.Component("corkscrew", spiral, "x")
    """
    install("ssmdiff-spiral", code)
    with pytest.raises(ConfigError, match=message) as raised:
        Registry().create("scan", "corkscrew", **options)
    assert raised.value.exit_code == 2


def test_p15_in_a_configuration_the_dotted_path_is_named(install, fresh_registry) -> None:
    code = """
        from typing import Annotated
        import ssmdiff
        from pydantic import Field

        def spiral(turns: Annotated[int, Field(ge=1)] = 3): ...

        @ssmdiff.hookimpl
        def ssmdiff_scans():
            yield ssmdiff.Component("corkscrew", spiral, "x")
    """
    install("ssmdiff-spiral", code)
    for options, message in (
        ({"turn": 2}, r"model\.scan\.turn: unknown key; did you mean 'turns'\?"),
        ({"turns": 0}, r"model\.scan\.turns: got 0"),
        ({"turns": True}, r"model\.scan\.turns: got True"),
    ):
        with pytest.raises(ConfigError, match=message):
            resolve({"model": {"scan": {"name": "corkscrew", **options}}})


def test_p16_listing_imports_no_torch_and_no_factory(install, python) -> None:
    site = install("lazy", scans("yield ssmdiff.Component('lazy', 'lazy_inner:Scan', 'x')"))
    (site / "lazy_inner.py").write_text("raise RuntimeError('imported')\n")
    listed = python(
        """
        import sys
        from ssmdiff_cli.main import app
        app(["plugins", "list"], standalone_mode=False)
        heavy = ("torch", "numba", "diffusers", "accelerate", "matplotlib", "lazy_inner")
        print([name for name in heavy if name in sys.modules])
        """,
        PYTHONPATH=str(site),
    )
    assert listed.returncode == 0, listed.stderr
    assert "lazy  (lazy 1.0)  ok" in listed.stdout
    assert listed.stdout.strip().endswith("[]")


def test_p16_a_component_that_is_not_asked_for_is_not_imported(install) -> None:
    site = install("lazy", scans("yield ssmdiff.Component('lazy', 'lazy_inner:Scan', 'x')"))
    (site / "lazy_inner.py").write_text("class Scan: ...\n")
    found = Registry()
    assert "lazy_inner" not in sys.modules
    assert type(found.create("scan", "lazy")).__name__ == "Scan"


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "a/b", "a.b", "os:system", "x\n"])
def test_p17_a_name_that_is_no_name_is_refused_in_a_record(name: str) -> None:
    with pytest.raises(ContractError, match="is not allowed"):
        Component(name, object, "x")


def test_p17_a_name_that_is_a_path_opens_nothing() -> None:
    with pytest.raises(ConfigError, match="no scan named"):
        Registry().create("scan", "../../x")


def test_a_package_installed_by_pip_is_found(tmp_path: Path, python) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "pip_spiral.py").write_text(
        scans("yield ssmdiff.Component('corkscrew', object, 'x')")
    )
    (source / "pyproject.toml").write_text(
        """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "ssmdiff-pip-spiral"
version = "0.3"

[project.entry-points.ssmdiff]
corkscrew = "pip_spiral"

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
        'import ssmdiff; print(ssmdiff.registry().find("scan", "corkscrew").label)',
        PYTHONPATH=str(target),
    )
    assert result.stdout.strip() == "scan 'corkscrew' (ssmdiff-pip-spiral 0.3)", result.stderr
