"""Sampling that was stopped, refused or killed: the same command goes on, nothing is in its way."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from ssmdiff import load_run
from ssmdiff_cli.main import app
from ssmdiff_cli.sample_folder import SampleFolder, SampleRequest, Share
from tiny_runs import tiny_run
from typer.testing import CliRunner


def invoke(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    tiny_run(folder)
    return folder


def test_what_a_killed_process_left_is_in_nobodys_way(run, tmp_path):
    """The temporary files of images, of the record and of the grid, before there is a record."""
    out, whole = tmp_path / "out", tmp_path / "whole"
    out.mkdir()
    for name in ("000001.png", "samples.json", "grid.png"):
        (out / f".tmp-{name}-4711").write_bytes(b"half")
    for folder in (out, whole):
        done = invoke("sample", run, "--n", 4, "--steps", 2, "--out", folder)
        assert done.exit_code == 0, done.output
    assert files(out) == files(whole)


@pytest.mark.parametrize("there", [False, True])
def test_a_refused_sample_leaves_what_was_there(run, tmp_path, there):
    """A network that diverges: no folder, no record; with --overwrite the old images stay."""
    out = tmp_path / "a" / "b"
    if there:
        assert invoke("sample", run, "--n", 2, "--steps", 2, "--out", out).exit_code == 0
    before = files(out) if there else {}
    broken = load_run(run)
    with torch.no_grad():
        next(iter(broken.model.parameters())).fill_(float("nan"))
    with pytest.raises(Exception, match="not finite"):
        SampleFolder(out).fill(broken, SampleRequest(seed=3, steps=2), Share(range(2)), True)
    if there:
        assert files(out) == before
    else:
        assert not (tmp_path / "a").exists()


def test_a_folder_that_cannot_be_written_is_told_before_the_first_image(run, tmp_path):
    (tmp_path / "file").write_text("")
    done = invoke("sample", run, "--n", 1, "--steps", 2, "--out", tmp_path / "file" / "out")
    assert done.exit_code == 1
    assert f"{tmp_path / 'file'} is a file" in done.output


def test_the_folders_of_two_runs_do_not_collide(run, tmp_path, monkeypatch):
    """Two runs of one name and different weights, and the same run again, which goes on."""
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "elsewhere" / "run"
    tiny_run(other, scan={"name": "hilbert"})
    for source in (run, other, run):
        done = invoke("sample", source, "--n", 2, "--steps", 2)
        assert done.exit_code == 0, done.output
    made = sorted((tmp_path / "samples").iterdir())
    assert [path.name.rpartition("-")[0] for path in made] == ["run", "run"]
    assert made[0].name != made[1].name
    assert all((path / "000001.png").exists() for path in made)


@pytest.mark.parametrize(
    ("table", "classes", "words"),
    [
        ({"name": "ddim"}, (), "drawn before ssmdiff 0.2, whose ddim took other steps"),
        ({"name": "ddpm", "variance": "fixed_large"}, (), "fixed_large left noise in the image"),
        ({"name": "dpmpp"}, ("disc", "ring"), "which drew the first class alone"),
        ({"name": "dpmpp"}, (), ""),
    ],
)
def test_images_of_before_0_2_are_gone_on_with_where_they_would_be_the_same(
    tmp_path, table, classes, words
):
    folder = tmp_path / "run"
    trained = tiny_run(folder, classes)
    old = json.loads(json.dumps(trained.origin()))
    scheduler = dict(trained.sampling(table).scheduler)
    scheduler.pop("eta", None)
    old |= {"seed": 0, "steps": 4, "scheduler": scheduler, "label": None, "format": "png"}
    out = tmp_path / "out"
    out.mkdir()
    (out / "samples.json").write_text(json.dumps(old))
    (out / "grid.png").write_bytes(b"old")

    def fill():
        request = SampleRequest(scheduler=table, steps=4)  # as a configuration names it
        SampleFolder(out).fill(load_run(folder), request, Share(range(1), 1))

    if not words:
        fill()
        assert json.loads((out / "samples.json").read_text())["made_by"].startswith("ssmdiff 0.2")
        return
    with pytest.raises(Exception, match=words):
        fill()
    assert (out / "grid.png").read_bytes() == b"old"


@pytest.mark.night
def test_the_same_command_goes_on_after_25_kills(run, tmp_path):
    """At random moments; what was whole before a kill is there, unchanged, after it."""
    out, whole = tmp_path / "out", tmp_path / "whole"
    command = ["sample", str(run), "--n", "400", "--steps", "2", "--batch-size", "8", "--out"]
    assert invoke(*command, whole).exit_code == 0
    moments = random.Random(0)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    kept: dict[str, bytes] = {}
    for _ in range(25):
        job = subprocess.Popen(
            [sys.executable, "-m", "ssmdiff", *command, str(out)],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        _until_it_draws(job, out, len(kept))
        time.sleep(moments.uniform(0, 0.1))
        job.send_signal(signal.SIGKILL)
        job.wait()
        there = {k: v for k, v in files(out).items() if k[0].isdigit()} if out.exists() else {}
        assert {k: there.get(k) for k in kept} == kept
        assert there.items() <= files(whole).items()
        kept = there
    done = invoke(*command, out)
    assert done.exit_code == 0, done.output
    assert files(out) == files(whole)


def _until_it_draws(job, out, before):
    """A moment after imports, at which an image was just written, or the process has ended."""
    end_s = time.monotonic() + 60
    while job.poll() is None and time.monotonic() < end_s:
        if len(list(out.glob("[0-9]*.png"))) > before:
            return
        time.sleep(0.002)


@pytest.mark.night
def test_export_goes_on_after_25_kills(run, tmp_path):
    """The file is there whole or not at all, and the same command writes it."""
    out, whole = tmp_path / "model.onnx", tmp_path / "whole.onnx"
    assert invoke("export", run, "--out", whole).exit_code == 0
    moments = random.Random(1)
    for _ in range(25):
        job = subprocess.Popen(
            [sys.executable, "-m", "ssmdiff", "export", str(run), "--out", str(out),
             "--overwrite"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(moments.uniform(0.5, 12))
        job.send_signal(signal.SIGKILL)
        job.wait()
        if out.exists():
            done = invoke("sample", out, "--n", 1, "--steps", 2, "--out", tmp_path / "drawn")
            assert done.exit_code == 0, done.output
    done = invoke("export", run, "--out", out, "--overwrite")
    assert done.exit_code == 0, done.output
    images = [tmp_path / "a", tmp_path / "b"]
    for file, folder in zip((out, whole), images, strict=True):
        done = invoke("sample", file, "--n", 2, "--steps", 2, "--out", folder)
        assert done.exit_code == 0, done.output
    assert (images[0] / "000001.png").read_bytes() == (images[1] / "000001.png").read_bytes()
