"""Kind 29: completion, help with examples at the terminal's width, reprs, citations.

``python -m ssmdiff`` stands in tests/cli/test_plugin_commands.py, ``ssmdiff.train`` in
tests/train/test_job.py, ``py.typed`` in tests/core/test_wheel.py, the version of CITATION.cff in
tests/docs/test_release.py.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ssmdiff
from model_files import card, model, write
from ssmdiff_cli.citations import bibtex, collected
from ssmdiff_cli.commands import loaded
from ssmdiff_cli.main import app
from ssmdiff_export.model_file import open_onnx
from tiny_runs import SMALLEST, tiny_run
from typer.main import get_command
from typer.testing import CliRunner, Result

ROOT = Path(__file__).parents[2]


def invoke(*arguments: object, **environment: str) -> Result:
    texts = [str(argument) for argument in arguments]
    return CliRunner().invoke(app, texts, env=environment, prog_name="ssmdiff")


# Completion ------------------------------------------------------------------------------------

ASK = """
import io, json, os, sys, contextlib
import ssmdiff_cli.main
found = []
for words in json.loads(sys.argv[1]):
    os.environ["COMP_WORDS"], os.environ["COMP_CWORD"] = words, str(len((words + ".").split()) - 1)
    said, wrong = io.StringIO(), io.StringIO()
    sys.argv = ["ssmdiff"]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(wrong):
        try:
            ssmdiff_cli.main.main()
        except SystemExit:
            pass
    found.append([said.getvalue().split(), wrong.getvalue()])
print(json.dumps([found, "torch" in sys.modules]))
"""


@pytest.fixture(scope="module")
def completed() -> dict[str, list[str]]:
    """What bash is told for each line, in one process, which imports no torch for it."""
    lines = [
        "ssmdiff ",
        "ssmdiff sa",
        "ssmdiff train --prec",
        "ssmdiff train --scan hil",
        "ssmdiff train --steps 3 --block ",
        "ssmdiff train --backbone ",
        "ssmdiff train --preset ",
        "ssmdiff sample runs/a --scheduler d",
        "ssmdiff export a --to t",
        "ssmdiff scans ",
        "ssmdiff scans show zig",
        "ssmdiff plugins info phan",
        "ssmdiff plugins check e",
        "ssmdiff cite regen",
        "ssmdiff nothing-of-that-name --x ",
        "ssmdiff bench st",
    ]
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(lines)],
        capture_output=True,
        text=True,
        env={**os.environ, "_SSMDIFF_COMPLETE": "complete_bash"},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found, torch_imported = json.loads(done.stdout)
    assert not torch_imported
    assert [wrong for _, wrong in found] == [""] * len(lines)
    return {line: sorted(said) for line, (said, _) in zip(lines, found, strict=True)}


@pytest.mark.parametrize(
    ("line", "kind", "begins"),
    [
        ("ssmdiff ", "command", ""),
        ("ssmdiff sa", "command", "sa"),
        ("ssmdiff train --scan hil", "scan", "hil"),
        ("ssmdiff train --steps 3 --block ", "block", ""),
        ("ssmdiff train --backbone ", "backbone", ""),
        ("ssmdiff sample runs/a --scheduler d", "scheduler", "d"),
        ("ssmdiff export a --to t", "exporter", "t"),
        ("ssmdiff scans show zig", "scan", "zig"),
        ("ssmdiff plugins info phan", "dataset", "phan"),
        ("ssmdiff plugins check e", "scheduler", "e"),
        ("ssmdiff cite regen", "scan", "regen"),
    ],
)
def test_names_are_completed_from_the_registry(completed, line: str, kind: str, begins: str):
    names = [n for n in ssmdiff.registry().names(kind) if n.startswith(begins)]
    assert names, "the line asks for nothing"
    assert set(names) <= set(completed[line])
    assert all(word.startswith(begins) for word in completed[line])


def test_flags_presets_and_sub_commands_are_completed(completed):
    assert completed["ssmdiff train --prec"] == ["--precision"]
    gans = ("dcgan", "sagan", "unetgan")
    papers = [f"paper-{name}" for name in ("128", "acdc", "brats2018", "chestxray14", *gans)]
    tiny = ["tiny", *(f"tiny-{name}" for name in (*gans, "flow"))]
    small = ["small", "small-flow"]
    assert completed["ssmdiff train --preset "] == sorted([*papers, *small, *tiny])
    assert completed["ssmdiff scans "] == ["check", "list", "show"]
    assert completed["ssmdiff bench st"] == ["step"]
    assert completed["ssmdiff nothing-of-that-name --x "] == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_given_its_script(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typer.completion._get_shell_name", lambda: shell)
    told = invoke("--show-completion")
    assert told.exit_code == 0, told.output
    assert f"_SSMDIFF_COMPLETE=complete_{shell}" in told.output


def test_the_script_of_bash_asks_the_command(tmp_path: Path, completed) -> None:
    """In a shell of its own, by the function that the script defines."""
    (tmp_path / "ssmdiff").write_text(f'#!/bin/sh\nexec {sys.executable} -m ssmdiff "$@"\n')
    (tmp_path / "ssmdiff").chmod(0o755)
    script = subprocess.run(
        [sys.executable, "-c",
         "from typer._completion_shared import get_completion_script as s;"
         "print(s(prog_name='ssmdiff', complete_var='_SSMDIFF_COMPLETE', shell='bash'))"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    ask = "COMP_WORDS=(ssmdiff scans sh); COMP_CWORD=2; _ssmdiff_completion ssmdiff"
    done = subprocess.run(
        ["bash", "--norc", "-c", f"{script}\n{ask}; echo ${{COMPREPLY[@]}}"],
        capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.stdout.split() == ["show"], done.stderr


# Help ------------------------------------------------------------------------------------------


def walked(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    inner = getattr(command, "commands", {})
    yield path, command
    for name, sub in inner.items():
        yield from walked(sub, (*path, name))


def commands() -> list[tuple[tuple[str, ...], Any]]:
    names = [e.component.name for e in ssmdiff.registry().all("command") if e.plugin.built_in]
    return [found for name in names for found in walked(loaded(name), (name,))]


COMMANDS = commands()


@pytest.mark.parametrize("path", [path for path, _ in COMMANDS], ids=" ".join)
def test_every_command_shows_examples_that_it_accepts(path: tuple[str, ...]) -> None:
    shown = invoke(*path, "--help", COLUMNS="200").output
    head, _, tail = shown.partition("\n  Examples:\n")
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    assert head, shown
    assert lines
    by_path = dict(COMMANDS)
    for line in lines:
        words = shlex.split(line)
        assert words[: len(path) + 1] == ["ssmdiff", *path]
        called = next(p for n in range(len(words), 0, -1) if (p := tuple(words[1:n])) in by_path)
        # Parsed, not run: an unknown flag or a value of another type is an error here.
        by_path[called].make_context(" ".join(called), words[1 + len(called) :])


def test_the_first_help_has_examples_too() -> None:
    assert "\n  Examples:\n    ssmdiff train\n" in invoke("--help").output


@pytest.mark.parametrize("columns", [60, 80, 132, 200])
@pytest.mark.parametrize("path", [("train",), ("plugins",), ()], ids=str)
def test_help_is_as_wide_as_the_terminal(
    path: tuple[str, ...], columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As wide as its longest line where there is room, and else nearly as wide as the terminal.
    longest, widest = widest_line(path, 900, monkeypatch), widest_line(path, columns, monkeypatch)
    assert min(longest, columns - 24) <= widest <= columns - 2
    assert longest > 80


def widest_line(path: tuple[str, ...], columns: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Of the help but its examples; not by CliRunner, which makes every terminal 80 wide."""
    monkeypatch.setenv("COLUMNS", str(columns))
    context = get_command(app).make_context("ssmdiff", [*path, "--help"], resilient_parsing=True)
    for name in path:
        command = context.command.resolve_command(context, [name])[1]
        context = command.make_context(name, [], parent=context, resilient_parsing=True)
    text = context.get_help().partition("\n  Examples:\n")[0]
    return max(map(len, text.splitlines()))


def test_an_example_of_another_command_is_refused() -> None:
    with pytest.raises(ssmdiff.ContractError, match="'ssmdiff other x' does not begin with"):
        ssmdiff.Command("mine", "a.b:c", "x", examples=("ssmdiff mine", "ssmdiff other x"))


# Reprs -----------------------------------------------------------------------------------------


def test_a_run_and_its_folder_say_what_they_are(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "heads", backbone=SMALLEST, scan={"name": "hilbert"})
    count = sum(p.numel() for p in run.model.parameters())
    parts = f"backbone isotropic, block {run.config.model.block['name']}, scan hilbert"
    assert repr(run) == (
        f"<Run {tmp_path / 'heads'}, step-00000001: {parts}, {count:,} parameters on cpu, "
        "images 1 x 8 x 8>"
    )
    assert repr(run.folder) == f"<RunFolder {tmp_path / 'heads'}: {parts}, step-00000001>"


@pytest.mark.parametrize("content", [None, "", "model = 3", "[model]\nscan = 3", "\x00", "[mo"])
def test_the_repr_of_a_folder_never_fails(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.toml").write_text(content)
    folder = ssmdiff.RunFolder(tmp_path)
    assert repr(folder) == f"<RunFolder {tmp_path}: no run that can be read>"


def test_a_file_and_its_card_can_be_read(tmp_path: Path) -> None:
    known = dataclasses.replace(card(), class_names=("sick", "well"))
    opened = open_onnx(write(tmp_path / "heads.onnx", model(known)))
    line = "backbone vmddpm, block mss, scan regenerate, images 2 x 4 x 4"
    assert repr(opened) == f"<FileModel heads.onnx: {line}>"
    assert repr(opened.card) == f"<ModelCard {line}>"
    page = str(opened.card).splitlines()
    assert [text.split()[0] for text in page] == [
        "network", "images", "process", "sampling", "scans", "file", "classes",
    ]  # fmt: skip
    for told in ("1000 timesteps", "ddim, 4 steps", "1 calls, 1 of them", "step-00000010", "well"):
        assert told in str(opened.card)
    assert max(map(len, page)) < 120


# Citations -------------------------------------------------------------------------------------


def entries_of(text: str) -> list[tuple[str, str]]:
    """Keys and bodies of what was printed, by a reader of our own."""
    return re.findall(r"^@\w+\{([^,]*),\n(.*?)^\}", text, re.MULTILINE | re.DOTALL)


def test_ssmdiff_names_itself_as_its_citation_file_does() -> None:
    (found,) = entries_of(invoke("cite").output)
    cff = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    title = re.search(r'^title: "(.*)"$', cff, re.MULTILINE)
    assert title
    assert found[0] == "ssmdiff"
    assert f"title = {{{{{title[1]}}}}}" in found[1]
    assert f"version = {{{ssmdiff.__version__}}}" in found[1]


def test_everything_at_once_has_one_entry_a_work_and_one_key_an_entry() -> None:
    names = sorted({e.component.name for e in ssmdiff.registry().all() if e.kind.built})
    found = entries_of(invoke("cite", *names).output)
    keys = [key.lower() for key, _ in found]
    assert len(found) > 25
    assert len(set(keys)) == len(keys)
    for field in ("eprint", "title"):
        values = [v for _, body in found for v in re.findall(rf"^  {field} = (.*),$", body, re.M)]
        assert len(set(values)) == len(values), field


@pytest.mark.parametrize(
    ("references", "keys"),
    [
        # The same work as BibTeX and as a line; laid out anew; under another key.
        (["@misc{a,\n title = {T},\n  eprint = {2401.00001}\n}", "Roe, T, arXiv:2401.00001"], 1),
        (["@book{a,\n title={On X}, year=1999}", "@book{a,\n  title = {On X},\n  year=1999\n}"], 1),
        (["@misc{a,\n  title = {On X},\n}", "@misc{b,\n  title = {On {X}},\n}"], 1),
        (["@misc{a,\n  doi = {10.1000/AB},\n}", "Roe, Of it, doi:10.1000/ab"], 1),
        # Two works under one key, also where only the case tells them apart.
        (["@misc{a,\n  title = {One},\n}", "@misc{a,\n  title = {Two},\n}"], 2),
        (["@misc{Ab,\n  title = {One},\n}", "@misc{aB,\n  title = {Two},\n}"], 2),
        (["@misc{ssmdiff,\n  title = {Another},\n}"], 1),
        (["@misc{a,\n title={One},\n}\n@misc{a,\n title={Two},\n}\n\n@misc{c,\n title={C}}"], 3),
        (["@misc{a,\n title = {The {A}, of x}\n}", "@misc{a,\n title = {The {A}, of y}\n}"], 2),
        (["@misc{,\n  title = {One},\n}", "@misc{,\n  title = {Two},\n}"], 2),
    ],
)  # fmt: skip
def test_one_work_one_entry_and_one_key(references: list[str], keys: int) -> None:
    found = collected(references)
    assert len(found) == len({entry.key.lower() for entry in found}) == keys
    for entry in found:
        assert re.match(rf"@\w+\{{{entry.key},", entry.text), entry.text
        assert [again.key for again in bibtex(entry.text)] == [entry.key]
