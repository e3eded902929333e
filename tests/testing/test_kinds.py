"""Every kind has a tenant, a hook page, a template, a suite and a page, or does not exist."""

from __future__ import annotations

import inspect
from importlib import resources
from pathlib import Path

import pytest
import ssmdiff.testing
from ssmdiff.registry import hookspecs
from ssmdiff.registry.component import KINDS
from ssmdiff.registry.registry import Registry
from ssmdiff.testing import SUITES, suite_for
from ssmdiff_cli.authoring import USES

ROOT = Path(__file__).parents[2]


def page_of(kind: str) -> Path:
    article = "an" if kind[0] in "aeiou" else "a"
    return ROOT / "docs" / f"write-{article}-{kind}.md"


def test_every_hook_is_that_of_a_kind_or_an_event_of_a_run() -> None:
    hooks = {
        name: hook
        for name, hook in vars(hookspecs).items()
        if name.startswith("ssmdiff_") and not inspect.signature(hook).parameters
    }
    assert set(hooks) == {kind.hook for kind in KINDS.values()}
    assert all(hook.__doc__ for hook in hooks.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_a_tenant(kind: str) -> None:
    assert Registry(allowed=[]).names(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_a_suite_and_a_function_that_runs_it(kind: str) -> None:
    assert suite_for(kind).checks
    assert getattr(ssmdiff.testing, f"check_{kind}").__doc__
    assert sorted(SUITES) == sorted(KINDS), "nothing else has one"


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_a_template(kind: str) -> None:
    template = resources.files("ssmdiff_cli.authoring") / "templates" / kind
    assert (template / "MODULE" / f"{kind}.py.txt").is_file()
    assert (template / "tests" / f"test_{kind}.py.txt").is_file()
    assert "$name" in USES[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_a_page_that_explains_every_check_and_is_found(kind: str) -> None:
    page = page_of(kind)
    text = page.read_text(encoding="utf-8")
    missing = [check for check in suite_for(kind).checks if f"`{check}`" not in text]
    assert missing == []
    command = "plugins new my-scan" if kind == "scan" else f"plugins new my-{kind} --kind {kind}"
    assert f"$ ssmdiff {command}\n" in text
    for map_ in ("README.md", "docs/architecture.md"):
        assert f"{page.name})" in (ROOT / map_).read_text(encoding="utf-8"), map_
