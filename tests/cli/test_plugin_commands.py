"""Commands come from plugins: listed without being imported, found, missing, broken, in conflict.

And jobs: what a command is to Python, and to another job.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import ssmdiff
from ssmdiff.errors import (
    ConfigError,
    PluginBrokenError,
    PluginConflictError,
    PluginNotFoundError,
)
from ssmdiff.registry.registry import Registry
from ssmdiff.runs import jobs
from ssmdiff_cli.main import app
from typer.testing import CliRunner

pytestmark = pytest.mark.usefixtures("fresh_registry")

COUNT = """
    import ssmdiff

    @ssmdiff.hookimpl
    def ssmdiff_commands():
        yield ssmdiff.Command(
            "count", "ssmdiff_count_inner:count", "counts images", job="ssmdiff_count_inner:total"
        )
"""
COUNT_INNER = """
from pathlib import Path
from ssmdiff_cli import flags

def total(folder, scale=1):
    return scale * len(list(Path(folder).glob("*.png")))

def count(folder: Path, seed: flags.Seed = None):
    "Count them."
    (folder / "count.txt").write_text(f"{total(folder)} {seed}")
"""
REPORT = """
    import typer
    import ssmdiff

    app = typer.Typer()

    @app.callback()
    def report():
        "Reports."

    @app.command("twice")
    def twice(folder: str):
        print(ssmdiff.job("count")(folder, scale=2))

    @ssmdiff.hookimpl
    def ssmdiff_commands():
        yield ssmdiff.Command("report", app, "reports")
"""


def invoke(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def count(install):
    site = install("ssmdiff-count", COUNT)
    (site / "ssmdiff_count_inner.py").write_text(COUNT_INNER)
    return site


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.txt"):
        (folder / name).touch()
    return folder


def test_a_strangers_command_is_listed_with_its_summary_and_not_imported(count):
    result = invoke("--help")
    assert result.exit_code == 0, result.output
    assert "count" in result.output
    assert "counts images" in result.output
    assert "ssmdiff_count_inner" not in sys.modules
    assert "command    count" in invoke("plugins", "list").output
    assert "ssmdiff_count_inner" not in sys.modules


def test_a_strangers_command_runs_with_the_shared_flags(count, images):
    result = invoke("count", images, "--seed", 3)
    assert result.exit_code == 0, result.output
    assert (images / "count.txt").read_text() == "2 3"


def test_a_strangers_job_is_reached_from_python_and_by_another_job(count, install, images):
    install("ssmdiff-report", REPORT)
    assert ssmdiff.job("count")(images) == 2
    result = invoke("report", "twice", images)
    assert result.exit_code == 0, result.output
    assert result.output == "4\n"


def test_a_command_without_a_job_says_so(install):
    install("ssmdiff-report", REPORT)
    with pytest.raises(ConfigError, match=r"'report' \(ssmdiff-report 1.0\) has no job"):
        ssmdiff.job("report")


def test_a_command_is_run_and_not_built(count):
    with pytest.raises(ConfigError, match="is run and not built; see: ssmdiff count --help"):
        ssmdiff.create("command", "count")


def test_an_unknown_command_says_where_commands_come_from():
    result = invoke("trian")
    assert result.exit_code == 2
    text = " ".join(result.output.split())
    assert "there is no command named 'trian'; did you mean 'train'?" in text
    assert "commands come from plugins" in text


def test_an_unknown_job_has_the_nearest():
    with pytest.raises(ConfigError, match="no command named 'exprot'; did you mean 'export'"):
        ssmdiff.job("exprot")


@pytest.mark.parametrize(
    ("inner", "sentence"),
    [
        ("import absent_package", "needs the Python package 'absent_package'"),
        ("raise ValueError('out of order')", "ValueError: out of order"),
        ("total = 3", "has no attribute 'count'"),
        ("count = 3", "is a int; expected a function or a typer.Typer"),
        ("def count(x: 'Nowhere'): ...", "Typer cannot read its parameters"),
    ],
)
def test_a_broken_command_says_what_is_broken(count, inner, sentence):
    (count / "ssmdiff_count_inner.py").write_text(inner)
    result = invoke("count", ".")
    assert result.exit_code == 3
    text = " ".join(result.output.split())
    assert "command 'count' (ssmdiff-count 1.0)" in text
    assert sentence in text
    assert invoke("--help").exit_code == 0, "the others go on"


def test_a_broken_job_says_what_is_broken(count):
    (count / "ssmdiff_count_inner.py").write_text("raise ValueError('out of order')")
    with pytest.raises(PluginBrokenError, match=r"'count'.*'ssmdiff_count_inner:total'.*out of"):
        ssmdiff.job("count")


def test_a_command_of_a_plugin_that_does_not_load_names_the_plugin(install):
    install("ssmdiff-count", "raise RuntimeError('no luck')")
    result = invoke("count")
    assert result.exit_code == 3
    text = " ".join(result.output.split())
    assert "'ssmdiff_count' (ssmdiff-count 1.0) failed to load: RuntimeError: no luck" in text


@pytest.mark.parametrize("name", ["count", "train", "plugins"])
def test_a_name_of_two_distributions_is_a_conflict_when_called(count, install, name):
    install("ssmdiff-other", COUNT.replace('"count"', f'"{name}"'))
    called = invoke(name)
    assert called.exit_code == 3
    first = "ssmdiff-count 1.0" if name == "count" else f"ssmdiff {ssmdiff.__version__}"
    assert f"command '{name}' is offered by {first} and ssmdiff-other 1.0" in called.output
    with pytest.raises(PluginConflictError):
        ssmdiff.job(name)
    assert "in conflict" in invoke("--help").output
    assert invoke("cite", "raster").exit_code == 0, "the others go on"


def without(monkeypatch, *names):
    """The registry of an installation that lacks some of our plugins."""
    from importlib.metadata import entry_points

    points = [p for p in entry_points(group="ssmdiff") if p.name not in names]
    found = Registry(points)
    for module in ("ssmdiff.runs.jobs", "ssmdiff_cli.commands"):
        monkeypatch.setattr(f"{module}.registry", lambda: found)


def test_a_job_of_ours_that_is_missing_says_what_to_install(monkeypatch):
    without(monkeypatch, "train")
    result = invoke("train", "--steps", 1)
    assert result.exit_code == 3
    text = " ".join(result.output.split())
    assert "commands come from plugins; 'train' is a job of the distribution ssmdiff" in text
    assert "'ssmdiff[train]'" in text
    with pytest.raises(PluginNotFoundError, match=r"'ssmdiff\[train\]'"):
        ssmdiff.train("tiny")
    assert "\n  train " not in invoke("--help").output


def test_every_job_of_ours_is_there_and_imports_nothing_heavy(python):
    done = python(f"""
        import sys, ssmdiff
        for name in {sorted(jobs.EXTRAS)}:
            found = ssmdiff.job(name)
            public = [getattr(found, part) for part in dir(found) if not part.startswith("_")]
            assert callable(found) or any(callable(part) for part in public)
            heavy = {{"accelerate", "matplotlib", "onnx", "diffusers"}} & set(sys.modules)
            print(sorted(heavy))
    """)
    assert done.stdout.split() == ["[]"] * len(jobs.EXTRAS), done.stderr


def test_an_allow_list_that_names_nobody_is_told_in_a_sentence():
    done = subprocess.run(
        [sys.executable, "-m", "ssmdiff", "--help"],
        capture_output=True,
        text=True,
        env={**os.environ, "SSMDIFF_PLUGINS": "nobody"},
    )
    assert done.returncode == 3
    assert done.stderr.startswith("ssmdiff: SSMDIFF_PLUGINS names 'nobody'")


def test_python_m_ssmdiff_is_the_console_script(python):
    done = python("""
        import runpy, sys
        import importlib.metadata as metadata
        from types import SimpleNamespace

        ours = SimpleNamespace(name="ssmdiff")
        point = SimpleNamespace(dist=ours, load=lambda: lambda: print("x"))
        metadata.entry_points = lambda **asked: [point] if asked == {
            "group": "console_scripts", "name": "ssmdiff"} else []
        runpy.run_module("ssmdiff", run_name="__main__")
        metadata.entry_points = lambda **asked: []
        try:
            runpy.run_module("ssmdiff", run_name="__main__")
        except SystemExit as error:
            print(error)
        print([name for name in sys.modules if name.startswith("ssmdiff_")])
    """)
    assert done.stdout.splitlines() == [
        "x",
        "ssmdiff: the command line is not installed here. Try: pip install ssmdiff",
        "[]",
    ], done.stderr


def test_a_package_that_a_running_command_lacks_is_told_with_its_extra(monkeypatch, tmp_path):
    for loaded in [name for name in sys.modules if name.startswith("ssmdiff_train.")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    result = CliRunner().invoke(app, ["train", "--steps", "1", "--out", str(tmp_path / "run")])
    assert result.exit_code == 3, result.output
    assert "command 'train'" in result.output
    assert "pip install 'ssmdiff[train]'" in result.output
    assert not (tmp_path / "run").exists()
