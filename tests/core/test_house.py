"""The rules of the house (docs/architecture.md), each held by a test."""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from ssmdiff.registry.component import KINDS
from ssmdiff.registry.registry import Registry

ROOT = Path(__file__).parents[2]
ROOMS = ("core", "plugins", "cli", "export")
LONGEST = 400  # lines of a file

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
    assert sorted(listed) == sorted(ROOMS)


def test_every_plugin_folder_has_an_entry_point() -> None:
    points = PYPROJECT["project"]["entry-points"]["ssmdiff"]
    assert points["core"] == "ssmdiff.registry.builtin", "what the core itself contributes"
    assert points["export"] == "ssmdiff_export.plugin", "so that its runtime needs no pluggy"
    assert points["cli"] == "ssmdiff_cli.plugin", "its commands take the road of everyone's"
    inside = {points["core"], points["export"], points["cli"]}
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
    assert sorted(forbidden) == packages("plugins", "export")


def test_plugin_modules_import_nothing_heavy(python) -> None:
    result = python(f"""
        import importlib, sys
        for name in {[*packages("plugins"), "ssmdiff_export.plugin", "ssmdiff_cli.plugin"]!r}:
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


# Rule 2: the core imports no package of an extra, and names no tenant.

BASE = {"numpy", "torch", "pluggy", "pydantic", "safetensors", "tomli_w"}
ALSO_PACKAGES = {
    "networks/compiling.py": {"triton"},
    "runs/jobs.py": {"onnx"},
    "testing/pytest_plugin.py": {"pytest"},
}
"""What a file of the core may name or import besides: torch.compile needs Triton on a GPU, and the
job ``export`` the extra ``onnx``."""


def core_files() -> dict[str, ast.Module]:
    core = ROOT / "core" / "ssmdiff"
    return {
        str(path.relative_to(core)): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(core.rglob("*.py"))
    }


def imports(tree: ast.AST) -> Iterator[str]:
    """The modules that a file imports, but for those that only type checkers see."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "ssmdiff_cli":
            yield from (f"ssmdiff_cli.{name.name}" for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
        else:
            yield from imports(node)


def test_the_core_imports_no_package_of_an_extra() -> None:
    allowed = {*sys.stdlib_module_names, *BASE, "ssmdiff"}
    strange = {
        file: found
        for file, tree in core_files().items()
        if (
            found := {name.partition(".")[0] for name in imports(tree)}
            - allowed
            - ALSO_PACKAGES.get(file, set())
        )
    }
    assert strange == {}


@pytest.mark.needs_plugin("ssmdiff_vmddpm", "ssmdiff_kernels", "ssmdiff_data", "ssmdiff_scans")
def test_the_core_names_no_tenant() -> None:
    """No component of a plugin stands by name in the core, outside of its presets.

    Noise schedulers are the core's own; ``euler`` is also a discretisation. Commands are words of
    every day, and ``ssmdiff.job`` types those of our jobs by name. ``gan`` is a kind of component
    besides a method, and kinds are the core's.
    """
    found = [e for e in Registry(allowed=[]).all() if e.kind.name not in ("scheduler", "command")]
    core = {e.component.name for e in found if e.plugin.name == "core"}
    tenants = {e.component.name for e in found} - core - set(KINDS)
    assert {"vmddpm", "numba", "phantom", "regenerate"} <= tenants
    named = {
        (file, node.value)
        for file, tree in core_files().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value in tenants - ALSO_PACKAGES.get(file, set())
    }
    assert named == set()


# Rule 3: our own plugins use the public surface and nothing else.

PUBLIC = {"ssmdiff", "ssmdiff.nn", "ssmdiff.testing"}
OF_COMMANDS = "ssmdiff_cli.flags"  # the flags that commands share


def of_ssmdiff(name: str) -> bool:
    return name == "ssmdiff" or name.startswith(("ssmdiff.", "ssmdiff_cli"))


def test_plugins_and_export_use_the_public_surface() -> None:
    deeper = {
        (str(path.relative_to(ROOT)), name)
        for room in ("plugins", "export", "examples")
        for path in (ROOT / room).rglob("*.py")
        for name in imports(ast.parse(path.read_text(encoding="utf-8")))
        if of_ssmdiff(name) and name not in PUBLIC
    }
    assert {(file, name) for file, name in deeper if name != OF_COMMANDS} == set()
    assert {Path(file).name for file, _ in deeper} <= {"command.py"}


def test_pages_and_templates_name_nothing_deeper() -> None:
    pattern = re.compile(r"^\s*(?:from|import) (ssmdiff[\w.]*)", re.MULTILINE)
    texts = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    texts += (ROOT / "cli" / "ssmdiff_cli" / "authoring").rglob("*.txt")
    deeper = {
        (str(path.relative_to(ROOT)), name)
        for path in texts
        for name in pattern.findall(path.read_text(encoding="utf-8"))
        if of_ssmdiff(name) and name not in PUBLIC
    }
    assert deeper == set()


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    import ssmdiff

    for name in ssmdiff.__all__:
        assert getattr(ssmdiff, name) is not None, name
    for name in ("Component", "Scan", "ScanOrder", "load_run", "selective_scan"):
        assert name in ssmdiff.__all__


# Rule 4: inside of the core an arrow runs one way, and what files are sampled with needs numpy.


def test_arrows_inside_of_the_core_run_one_way() -> None:
    layers = contract("layers")["layers"]
    rooms = {path.name for path in (ROOT / "core" / "ssmdiff").iterdir() if path.is_dir()}
    listed = {room for layer in layers for room in re.split(r"[|:\s]+", layer)}
    assert listed == rooms - {"__pycache__"}


def test_orders_and_seeds_need_numpy_alone(python) -> None:
    result = python("""
        import sys
        for absent in ("torch", "pluggy", "pydantic", "tomli_w", "safetensors", "typer", "rich"):
            sys.modules[absent] = None
        import ssmdiff
        order = ssmdiff.ScanOrder([[1, 0, 2]])
        assert ssmdiff.stream(0, "noise").random() >= 0
        assert order.inverse.tolist() == [[1, 0, 2]]
    """)
    assert result.returncode == 0, result.stderr


# Rule 6: no file that a reader cannot bear, and a core that is a core.


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


CAPABILITIES = {
    "the op's calculus": 200,
    "configuration proven, key by key": 105,
    "runs that are not lost, and say what they do": 110,
    "sets of samples by index; orders compared": 140,
    "what is read is looked at before it is used": 50,
    "feature networks and metrics": 75,
    "published data sets, their terms, and what data sets declare": 95,
    "readers and writers of file formats": 150,
    "figures while a run trains, the best checkpoint": 80,
    "methods: what is trained, and how an image comes out of it": 250,
    "functions of blocks that exporters know": 30,
    "GANs: pairs of networks, losses between them": 50,
    "conditions: what a model is told, encoded and recorded": 230,
    "networks, runs and sets of samples that are told": 135,
    "flows: walks, processes, methods of a backbone": 250,
    "guidance, outside of the network": 155,
    "walks that begin at an image, or fill one in": 160,
}
"""What came to the core after the house was moved, and the lines it may have for it: at most 250
each. docs/architecture.md says why each belongs there."""
CORE_LINES = 3300 + sum(CAPABILITIES.values())
"""Lines of code of the core without its tests' kit; blank lines, comments and docstrings do not
count."""


def code_lines(text: str) -> int:
    """Lines that hold code, by the tokens that stand on them."""
    layout = {
        tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
        tokenize.ENCODING, tokenize.ENDMARKER,
    }  # fmt: skip
    docstrings = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }  # fmt: skip
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in layout
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(lines - docstrings)


def test_code_lines_leave_out_what_is_no_code() -> None:
    assert code_lines('"""Said.\n\nMore."""\n\n# why\nx = (\n    1\n)\n') == 3


def test_the_core_is_a_core() -> None:
    core = ROOT / "core" / "ssmdiff"
    counted = {
        str(path.relative_to(core)): code_lines(path.read_text(encoding="utf-8"))
        for path in core.rglob("*.py")
        if path.relative_to(core).parts[0] != "testing"
    }
    assert sum(counted.values()) <= CORE_LINES, counted
