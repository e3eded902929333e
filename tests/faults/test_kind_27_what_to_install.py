"""Kind 27: what a sentence says to install brings what is missing."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from ssmdiff.registry.component import KINDS
from ssmdiff.registry.plugin import Plugin, missing_module
from ssmdiff_cli.main import app
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]
HOUSE = ("core", "plugins", "cli", "export")
OURS = Plugin("core", "ssmdiff", "0.2.0", "ssmdiff.registry.builtin")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
INDEX = {
    "tensorrt": "NVIDIA's, installed from there; docs/tensorrt.md",
    "pytest": "the runner that loads our plugin for it",
    "mpl_toolkits": "a part of matplotlib, there with it",
}
"""Packages that none of our extras brings, and why."""


def named(requirement: str) -> str:
    return re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def brought_by(extra: str) -> set[str]:
    """The distributions of an extra and, since a package brings its own, of the package itself."""
    found = {named(line) for line in PROJECT["dependencies"]}
    for line in PROJECT["optional-dependencies"][extra]:
        inner = re.match(r"ssmdiff\[(.*?)\]", line)
        if inner:
            found |= set().union(*(brought_by(name) for name in inner[1].split(",")))
        else:
            found.add(named(line))
    return found


def and_what_they_require(names: set[str]) -> set[str]:
    """One step along the metadata of what is installed here: numba brings llvmlite."""
    found = set(names)
    for name in names:
        try:
            found |= {named(line) for line in requires(name) or () if "extra ==" not in line}
        except ModuleNotFoundError:
            continue
    return found


def imported() -> dict[str, list[str]]:
    """Every package of others that a module of ours imports, and where."""
    found: dict[str, list[str]] = {}
    for path in (path for room in HOUSE for path in sorted((ROOT / room).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in (name.partition(".")[0] for name in names):
                if name not in sys.stdlib_module_names and not name.startswith("ssmdiff"):
                    found.setdefault(name, []).append(str(path.relative_to(ROOT)))
    return found


def advised(sentence: str) -> set[str]:
    """What the line ``pip install ...`` of a sentence brings."""
    (line,) = re.findall(r"pip install (?:--[\w-]+ )*(?:'([^']+)'|([\w.-]+))", sentence)
    target = line[0] or line[1]
    extra = re.fullmatch(r"ssmdiff\[([\w-]+)\]", target)
    return and_what_they_require(brought_by(extra[1]) if extra else {named(target)})


@pytest.mark.parametrize("package", sorted(imported().keys() - INDEX.keys()))
@pytest.mark.parametrize("part", ["", ".inner.part"])
def test_a_package_that_is_missing_is_brought_by_what_is_advised(package: str, part: str) -> None:
    sentence = missing_module(ModuleNotFoundError(name=package + part), OURS)
    # The distributions that hold it here; by its own name where it is not installed.
    holders = {named(d) for d in packages_distributions().get(package, [package])}
    assert advised(sentence) & holders, (sentence, imported()[package])


@pytest.mark.parametrize(("plugin", "extra"), [("turing", "turing"), ("metrics", "evaluate")])
def test_of_several_extras_the_one_called_as_the_plugin_is_advised(plugin: str, extra: str) -> None:
    """scipy comes with two; that of the evaluation brings no statsmodels."""
    asking = Plugin(plugin, "ssmdiff", "0.2.0", f"ssmdiff_{plugin}")
    sentence = missing_module(ModuleNotFoundError(name="scipy"), asking)
    assert sentence.endswith(f"Try: pip install 'ssmdiff[{extra}]'")


@pytest.mark.parametrize("package", ["nobody_ships_this", "wandb_of_another", "tensorrt"])
def test_what_no_extra_brings_is_advised_by_its_own_name(package: str) -> None:
    sentence = missing_module(ModuleNotFoundError(name=package), OURS)
    assert sentence.endswith(f"Try: pip install {package}")
    stranger = Plugin("a", "ssmdiff-a", "1.0", "ssmdiff_a")
    assert missing_module(ModuleNotFoundError(name=package), stranger) == sentence


def sentences() -> Iterator[tuple[str, str]]:
    """Every place of code and documents that names an extra, with what is written around it."""
    files = [p for room in HOUSE for p in sorted((ROOT / room).rglob("*.py"))]
    files += [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for path in files:
        lines = path.read_text(encoding="utf-8").splitlines()
        for i, line in enumerate(lines):
            for extra in re.findall(r"ssmdiff\[([\w,-]+)\]", line):
                around = " ".join(lines[max(0, i - 4) : i + 5])
                yield f"{path.relative_to(ROOT)}:{i + 1} [{extra}]", around


@pytest.mark.parametrize(("place", "around"), list(sentences()))
def test_an_extra_that_is_named_is_there_and_brings_what_the_sentence_is_about(
    place: str, around: str
) -> None:
    extra = place.rpartition("[")[2].rstrip("]")
    assert extra in PROJECT["optional-dependencies"]
    own = brought_by(extra) - {named(line) for line in PROJECT["dependencies"]}
    own |= {name.rpartition("-")[2] for name in own}  # NVRTC, of nvidia-cuda-nvrtc
    words = set(re.split(r"[^a-z0-9-]+", around.lower().replace("_", "-")))
    titled = {"onnxruntime"} if "ONNX Runtime" in around else set()
    titled |= {"tensorrt-rtx-cu13-libs"} if "TensorRT for RTX" in around else set()
    assert own & (words | titled), (place, own)


def test_what_is_recommended_for_a_new_package_is_what_its_extra_brings(tmp_path: Path) -> None:
    for kind in KINDS:
        folder = tmp_path / kind
        told = CliRunner().invoke(
            app, ["plugins", "new", f"a-{kind}", "--kind", kind, "--out", str(folder)]
        )
        assert told.exit_code == 0, told.output
        (extra,) = re.findall(r"pip install -e '[^']*\[(\w+)\]'", told.output)
        written = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        brought = {named(line) for line in written["optional-dependencies"][extra]}
        assert {"pytest"} == brought & {"pytest"}
        assert "pytest" in told.output.splitlines()[-1]
        # Its tests import nothing that neither it nor ssmdiff brings.
        free = brought | {named(line) for line in PROJECT["dependencies"]} | {"ssmdiff"}
        for test in (folder / "tests").glob("*.py"):
            for node in ast.walk(ast.parse(test.read_text())):
                for alias in node.names if isinstance(node, ast.Import) else ():
                    top = alias.name.partition(".")[0]
                    assert top in sys.stdlib_module_names or named(top) in free | {
                        f"ssmdiff-a-{kind}"
                    }, (test, alias.name)
