"""The registry: what it finds, what it refuses, and what it says."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import ssmdiff
from ssmdiff.errors import (
    ConfigError,
    ContractError,
    PluginBrokenError,
    PluginNotFoundError,
)
from ssmdiff.registry.component import KINDS, Component
from ssmdiff.registry.registry import Registry, registry, split_spec

ROOT = Path(__file__).parents[2]

ARIADNE = """
    import ssmdiff

    class Ariadne:
        def __init__(self, turns: int = 3) -> None:
            self.turns = turns

    @ssmdiff.hookimpl
    def ssmdiff_scans():
        yield ssmdiff.Component("ariadne", Ariadne, "inwards from a corner")
"""


def plugin_with(kind: str, factory: str) -> str:
    """A plugin whose one component, ``part``, has the factory that the code calls ``factory``."""
    hook = KINDS[kind].hook
    return f"""
import ssmdiff

{factory}

@ssmdiff.hookimpl
def {hook}():
    yield ssmdiff.Component("part", factory, "a part")
"""


def test_built_ins_are_the_entry_points_of_the_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    built_in = {p.name: p.module for p in Registry().plugins if p.built_in}
    assert built_in == project["entry-points"]["ssmdiff"]


def test_no_built_in_is_broken_or_in_conflict() -> None:
    found = Registry(allowed=[])
    assert {p.name: p.error for p in found.plugins if p.error} == {}
    assert found.conflicts() == []


def test_every_built_in_component_can_be_imported() -> None:
    for entry in Registry(allowed=[]).all():
        assert callable(entry.factory()), entry.label


def test_a_third_party_plugin_is_found_and_its_component_built(install) -> None:
    install("ssmdiff-ariadne", ARIADNE)
    assert Registry().create("scan", "ariadne", turns=5).turns == 5


@pytest.mark.needs_plugin("ssmdiff_scans")
def test_a_component_knows_the_distribution_and_version_that_gave_it(install) -> None:
    install("ssmdiff-ariadne", ARIADNE, version="0.2")
    found = Registry()
    assert found.find("scan", "ariadne").label == "scan 'ariadne' (ssmdiff-ariadne 0.2)"
    assert found.find("scan", "cross").plugin.source == f"ssmdiff {ssmdiff.__version__}"


@pytest.mark.needs_plugin("ssmdiff_scans")
def test_names_and_all_are_sorted_and_hold_the_kind(install) -> None:
    install("ssmdiff-ariadne", ARIADNE)
    found = Registry()
    names = found.names("scan")
    assert names == sorted(names)
    assert {"cross", "regenerate", "ariadne"} <= set(names)
    assert [entry.component.name for entry in found.all("scan")] == names
    assert {entry.kind.name for entry in found.all()} <= set(KINDS)


def test_plugins_load_built_ins_first_and_then_by_name(install) -> None:
    names = ("zebra", "ant", "moth")
    for name in names:
        install(name, ARIADNE.replace('"ariadne"', f'"{name}"'))
    # Whatever else is installed here is left out.
    distributions = [plugin.distribution for plugin in Registry(allowed=names).plugins]
    assert distributions[-3:] == ["ant", "moth", "zebra"]
    assert set(distributions[:-3]) == {"ssmdiff"}


@pytest.mark.needs_plugin("ssmdiff_scans")
def test_damaged_metadata_does_not_hide_the_other_plugins(install) -> None:
    install("ssmdiff-ariadne", ARIADNE)
    install("ssmdiff-damaged", ARIADNE.replace('"ariadne"', '"other"'), metadata=False)
    found = Registry()
    assert found.find("scan", "other").plugin.source == "unknown 0"
    assert {"cross", "ariadne"} <= set(found.names("scan"))


@pytest.mark.needs_plugin("ssmdiff_scans")
def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no scan named 'regenrate'; did you mean 'regenerate'"):
        Registry().find("scan", "regenrate")


@pytest.mark.needs_plugin("ssmdiff_scans")
def test_an_unknown_name_with_none_near_lists_all() -> None:
    with pytest.raises(ConfigError, match=r"known: .*cross.*raster"):
        Registry().find("scan", "zzzzzz")


@pytest.mark.parametrize("call", ["find", "names", "create"])
def test_an_unknown_kind_is_answered_with_the_nearest(call: str) -> None:
    arguments = ["scann"] if call == "names" else ["scann", "cross"]
    with pytest.raises(ConfigError, match="there is no kind 'scann'; did you mean 'scan'"):
        getattr(Registry(), call)(*arguments)


def test_names_are_never_resolved_as_import_paths() -> None:
    with pytest.raises(ConfigError, match="no scan named"):
        Registry().create("scan", "ssmdiff_scans.fixed:Raster")


@pytest.mark.needs_plugin("ssmdiff_scans")
def test_create_takes_a_table_as_well_as_a_name() -> None:
    by_table = Registry().create("scan", {"name": "regenerate", "block": 2})
    by_name = Registry().create("scan", "regenerate", block=2)
    assert by_table.block == by_name.block == 2


@pytest.mark.needs_plugin("ssmdiff_scans")
def test_create_refuses_an_unknown_option_and_names_the_component() -> None:
    with pytest.raises(ConfigError, match=r"scan 'regenerate' .*'blok'.*did you mean 'block'"):
        Registry().create("scan", "regenerate", blok=2)


@pytest.mark.needs_plugin("ssmdiff_scans")
def test_options_are_returned_with_their_defaults() -> None:
    options = Registry().options("scan", {"name": "regenerate", "block": 2})
    assert options == {"name": "regenerate", "block": 2, "base": "cross"}


@pytest.mark.needs_plugin("ssmdiff_scans")
def test_an_option_error_carries_the_path_of_the_configuration() -> None:
    with pytest.raises(ConfigError, match=r"^model\.scan\.block: got 0"):
        Registry().options("scan", {"name": "regenerate", "block": 0}, "model.scan")


@pytest.mark.parametrize("spec", [{}, {"base": "cross"}, {"name": 3}, 5, None, ["cross"]])
def test_a_spec_without_a_name_is_refused(spec: Any) -> None:
    with pytest.raises(ConfigError, match=r"model\.scan: a scan is a name or a table"):
        split_spec("scan", spec, "model.scan")


def test_splitting_a_spec_leaves_the_callers_table_alone() -> None:
    spec = {"name": "cross", "block": 2}
    split_spec("scan", spec)
    assert spec == {"name": "cross", "block": 2}


def test_wired_arguments_reach_only_factories_that_take_them(install) -> None:
    factory = "def factory(channels: int, width: int = 3):\n    return channels, width"
    install("ssmdiff-part", plugin_with("block", factory))
    found = Registry()
    assert found.create("block", "part", channels=8, time_channels=4, directions=2) == (8, 3)


def test_a_wired_argument_cannot_be_set_as_an_option(install) -> None:
    factory = "def factory(channels: int, width: int = 3):\n    return channels, width"
    install("ssmdiff-part", plugin_with("block", factory))
    with pytest.raises(ConfigError, match="'channels'"):
        Registry().create("block", {"name": "part", "channels": 8})


@pytest.mark.parametrize("fault", ["ValueError('too small')", "SystemExit('too small')"])
def test_a_factory_that_fails_while_building_is_named(install, fault: str) -> None:
    install("ssmdiff-part", plugin_with("scan", f"def factory():\n    raise {fault}"))
    wanted = r"scan 'part' \(ssmdiff-part 1\.0\) failed while it was built: \w+: too small"
    with pytest.raises(PluginBrokenError, match=wanted):
        Registry().create("scan", "part")


def test_a_factory_that_imports_a_missing_package_late_says_what_to_install(install) -> None:
    install("ssmdiff-part", plugin_with("scan", "def factory():\n    import absent_package"))
    with pytest.raises(PluginBrokenError, match=r"'absent_package'.* pip install absent_package"):
        Registry().create("scan", "part")


@pytest.mark.needs_plugin("ssmdiff_scans")
def test_a_factorys_own_ssmdiff_error_passes_unchanged() -> None:
    with pytest.raises(ConfigError, match="no scan named 'nowhere'"):
        Registry().create("scan", "regenerate", base="nowhere")


def named_by(text: str) -> str:
    return plugin_with("scan", f"factory = {text!r}")


def test_a_factory_named_by_a_string_may_be_nested(install) -> None:
    install("ssmdiff-part", named_by("collections:OrderedDict.fromkeys"))
    assert callable(Registry().find("scan", "part").factory())


@pytest.mark.parametrize(
    ("target", "cause"),
    [
        ("ssmdiff_part.inner:Name", "No module named 'ssmdiff_part.inner'"),
        ("collections:Absent", "no attribute 'Absent'"),
    ],
)
def test_a_factory_that_is_not_there_is_broken(install, target: str, cause: str) -> None:
    install("ssmdiff-part", named_by(target))
    with pytest.raises(PluginBrokenError, match=f"cannot be imported from '{target}'.*{cause}"):
        Registry().find("scan", "part").factory()


def test_a_missing_package_is_named_even_if_the_plugins_name_starts_alike(install) -> None:
    site = install("mamba-extras", named_by("mamba_extras_scan:Scan"))
    (site / "mamba_extras_scan.py").write_text("import mamba\n")
    with pytest.raises(PluginBrokenError, match="needs the Python package 'mamba'"):
        Registry().find("scan", "part").factory()


def test_a_built_ins_missing_package_that_no_extra_brings_is_named(install) -> None:
    site = install("ssmdiff-part", named_by("lazy_part:Scan"))
    (site / "lazy_part.py").write_text("import absent_package\n")
    entry = Registry().find("scan", "part")
    entry.plugin.distribution = "ssmdiff"
    with pytest.raises(PluginBrokenError, match=r"'absent_package'.* pip install absent_package$"):
        entry.factory()


@pytest.mark.needs_plugin("ssmdiff_wandb")
def test_a_built_ins_missing_package_points_at_the_extra_that_names_it(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.delitem(sys.modules, "ssmdiff_wandb.callback", raising=False)
    with pytest.raises(PluginBrokenError, match=r"'wandb'.* pip install 'ssmdiff\[wandb\]'"):
        Registry(allowed=[]).find("callback", "wandb").factory()


@pytest.mark.parametrize(
    "name",
    [
        "Cross",  # case
        "\u0441ross",  # Cyrillic es
        "cross\u200b",  # zero-width space
        "../cross",
        "cross/../../x",
        "cross.x",
        "cross x",
        "cross\n",
        "-cross",
        "cross-",
        "cross--x",
        "1cross",
        "",
        None,
        3,
    ],
)
def test_a_component_name_that_could_mislead_is_refused(name: Any) -> None:
    with pytest.raises(ContractError, match=r"component name .* is not allowed"):
        Component(name, dict, "summary")


@pytest.mark.parametrize("name", ["cross", "mamba-ssm", "axis_cross", "sweep8", "random-n"])
def test_an_ordinary_component_name_is_accepted(name: str) -> None:
    assert Component(name, dict, "summary").name == name


@pytest.mark.parametrize("factory", ["module", "module:", ":Name", "../x:Y", "a b:c", 5, None])
def test_a_factory_of_another_form_is_refused(factory: Any) -> None:
    with pytest.raises(ContractError, match="factory"):
        Component("part", factory, "summary")


@pytest.mark.parametrize("summary", ["", "   ", None])
def test_a_component_without_a_summary_is_refused(summary: Any) -> None:
    with pytest.raises(ContractError, match="no summary"):
        Component("part", dict, summary)


@pytest.mark.usefixtures("fresh_registry")
class TestAllowList:
    """SSMDIFF_PLUGINS: unset all, empty none but the built-ins, else only those."""

    @pytest.fixture(autouse=True)
    def two_plugins(self, install) -> None:
        install("ssmdiff-ariadne", ARIADNE)
        install("Ssmdiff.Peano", ARIADNE.replace('"ariadne"', '"peano"'))

    def third_party(self) -> set[str]:
        return {plugin.distribution for plugin in registry().plugins if not plugin.built_in}

    def test_unset_loads_all(self, monkeypatch) -> None:
        monkeypatch.delenv("SSMDIFF_PLUGINS", raising=False)
        assert self.third_party() >= {"ssmdiff-ariadne", "Ssmdiff.Peano"}

    @pytest.mark.needs_plugin("ssmdiff_scans")
    def test_empty_loads_the_built_ins_alone(self, monkeypatch) -> None:
        monkeypatch.setenv("SSMDIFF_PLUGINS", "")
        assert self.third_party() == set()
        assert "cross" in registry().names("scan")

    @pytest.mark.needs_plugin("ssmdiff_scans")
    def test_a_list_loads_only_those(self, monkeypatch) -> None:
        monkeypatch.setenv("SSMDIFF_PLUGINS", "ssmdiff-ariadne")
        assert self.third_party() == {"ssmdiff-ariadne"}
        assert "cross" in registry().names("scan")

    def test_names_are_compared_as_package_indexes_compare_them(self, monkeypatch) -> None:
        monkeypatch.setenv("SSMDIFF_PLUGINS", " SSMDIFF_ariadne , ssmdiff-peano,")
        assert self.third_party() == {"ssmdiff-ariadne", "Ssmdiff.Peano"}

    def test_an_unknown_distribution_is_an_error_with_a_near_match(self, monkeypatch) -> None:
        monkeypatch.setenv("SSMDIFF_PLUGINS", "ssmdiff-ariane")
        with pytest.raises(PluginNotFoundError, match="did you mean 'ssmdiff-ariadne'"):
            registry()

    def test_a_plugin_left_out_is_not_imported(self, monkeypatch, install) -> None:
        install("ssmdiff-loud", "raise RuntimeError('imported')")
        monkeypatch.setenv("SSMDIFF_PLUGINS", "ssmdiff-ariadne")
        assert [plugin.error for plugin in registry().plugins if plugin.error] == []


def test_the_registry_is_listed_without_importing_torch(python) -> None:
    result = python("""
        import sys, ssmdiff
        for entry in ssmdiff.registry().all():
            entry.label
        print("torch" in sys.modules)
    """)
    assert result.stdout.strip() == "False", result.stderr


@pytest.mark.needs_plugin("ssmdiff_scans")
def test_the_function_registry_is_not_hidden_by_the_module_of_that_name(python) -> None:
    result = python("""
        import ssmdiff.registry.registry
        import ssmdiff
        ssmdiff.create("scan", "cross")
        print(ssmdiff.registry() is ssmdiff.registry())
    """)
    assert result.stdout.strip() == "True", result.stderr
