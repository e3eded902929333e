"""Every command that is shown has the configuration that it says, key by key, untrained."""

from __future__ import annotations

import itertools
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import shown
from ssmdiff_cli.authoring import USES
from ssmdiff_cli.main import app
from ssmdiff_train import process
from typer.testing import CliRunner

EXAMPLE = shown.ROOT / "examples" / "ssmdiff-moore"
SHOWN = [page for page in shown.PAGES if page.name != "CHANGELOG.md"]  # which is history
PAGES = {page.name: shown.commands(page) for page in SHOWN}
PAGES["examples"] = shown.commands(EXAMPLE / "README.md")
PAGES["plugins new"] = [
    line.replace("$name", f"my-{kind}") for kind, line in USES.items() if " train " in line
]
LINES = {name: lines for name, lines in PAGES.items() if lines}
KINDS = {"--method": "method", "--gan": "gan", "--scan": "scan", "--block": "block",
         "--backbone": "backbone", "--kernel": "kernel", "--data": "dataset"}  # fmt: skip


@pytest.fixture
def asked(tmp_path, monkeypatch) -> list[Any]:
    """The configurations that reach training; a run is left behind that a later line resumes."""
    found: list[Any] = []

    def train_nothing(config, folder, resume, *_: object) -> None:
        found.append(config)
        folder.make_folders()
        folder.write_config(config)

    monkeypatch.setattr(process, "run_training", train_nothing)
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    for store in ("mine", "acdc"):
        Path("stores", store).mkdir(parents=True)
        Path("stores", store, "store.json").write_text("{}")
    return found


@pytest.fixture
def strangers(install, fresh_registry, monkeypatch):
    """Installs what a page assumes: the example as it is, any other name as a stub of its kind."""

    def provide(line: str) -> None:
        from ssmdiff.registry import component
        from ssmdiff.registry.registry import registry

        words = shlex.split(line)
        named = [(KINDS[w], v) for w, v in itertools.pairwise(words) if w in KINDS]
        if loss := shown.said(line).get("method.loss.name"):
            named.append(("loss", loss))
        for table in shown.said(line).get("train.callbacks", []):
            named.append(("callback", table if isinstance(table, str) else table["name"]))
        for kind, name in named:
            if name in registry().names(kind) or (kind == "dataset" and Path(name).exists()):
                continue
            if name == "moore":
                monkeypatch.syspath_prepend(EXAMPLE)
                code = "from ssmdiff_moore import ssmdiff_scans\n"
            else:
                code = f"""
import ssmdiff
class Part:
    def __init__(self, every: int = 1): ...
@ssmdiff.hookimpl
def {component.KINDS[kind].hook}():
    yield ssmdiff.Component({name!r}, Part, "as the page assumes it")
"""
            install(f"ssmdiff-of-{name}", code)
            registry.cache_clear()

    return provide


@pytest.mark.parametrize("page", LINES)
def test_a_shown_command_has_the_configuration_that_it_says(page, asked, strangers) -> None:
    for line in LINES[page]:
        strangers(line)
        result = CliRunner().invoke(app, shlex.split(line)[1:])
        assert result.exit_code == 0, f"{line}\n{result.output}"
        if " config show" in line:
            config = tomllib.loads(result.output)
        else:
            config = asked.pop().model_dump(mode="json")
        assert not shown.differing(line, config), line


def test_lines_are_found_wherever_they_are_shown() -> None:
    """Console blocks, plain blocks, indented ones, code in a sentence."""
    found = {line for lines in LINES.values() for line in lines}
    assert {
        "ssmdiff train --out runs/mine --steps 40 --resume",
        "ssmdiff train --set 'train.callbacks=[{name=\"my-callback\", every=10}]'",
        "ssmdiff train --scan moore --set model.scan.start=0.5",
        "ssmdiff train --block running-mean",
        "ssmdiff config show --preset paper-128",
    } <= found
    assert len(found) >= 25


def test_what_a_line_says_is_read_from_its_words() -> None:
    """The reader itself, on a line whose meaning is written out here."""
    line = ("ssmdiff train --preset small --scan hilbert --set model.scan.paths=8 --data a/b "
            "--image-size 8x16 --steps 5 --set seed=3 --compile --block conv")  # fmt: skip
    told = shown.said(line)
    wanted = {
        "model.scan.name": "hilbert", "model.scan.paths": 8, "data.dataset.name": "folder",
        "data.dataset.path": "a/b", "data.image_size": [8, 16], "train.steps": 5, "seed": 3,
        "train.compile": True, "model.block.name": "conv", "model.backbone.channels": 48,
        "train.batch_size": 32,
    }  # fmt: skip
    assert {key: told[key] for key in wanted} == wanted
    assert shown.differing(line, {"seed": 3})["model.scan.paths"] == (8, None)
