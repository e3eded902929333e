"""Row C5: `ssmdiff checkpoint verify` names each checkpoint of a run and what is wrong with it."""

import json

import pytest
import torch
from ssmdiff.runs import checkpoint
from ssmdiff_cli.main import app
from typer.testing import CliRunner

TENSORS = {"model": {"w": torch.arange(60.0)}, "ema": {"w": torch.arange(60.0)}}


@pytest.fixture
def run(tmp_path):
    for step in (1, 2, 3):
        checkpoint.save(tmp_path / "run" / "checkpoints", step, TENSORS, {"step": step})
    return tmp_path / "run"


def verify(path):
    done = CliRunner().invoke(app, ["checkpoint", "verify", str(path), "--json"])
    found = json.loads(done.stdout[: done.stdout.rindex("]") + 1]) if "]" in done.stdout else []
    return done, {one["path"].rpartition("/")[2]: one for one in found}


@pytest.mark.parametrize("which", ["run", "run/checkpoints", "run/checkpoints/step-00000002"])
def test_whole_ones_are_listed_with_exit_0(run, which):
    done, found = verify(run.parent / which)
    assert done.exit_code == 0, done.output
    assert len(found) == (1 if "step" in which else 3)
    assert found["step-00000002"]["ok"]
    assert "3 files, 120 values" in found["step-00000002"]["found"]


def cut(path):
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def flip(path):
    file = path / "ema.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 4
    file.write_bytes(data)


def swap(path):
    """A name of another step."""
    path.rename(path.with_name("step-00000009"))


def manifest(path, **changes):
    told = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(told | changes))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda p: (p / "manifest.json").unlink(), "cannot read"),
        (lambda p: (p / "extra.txt").write_text(""), "not in the manifest ['extra.txt']"),
        (lambda p: (p / "ema.safetensors").unlink(), "missing ['ema.safetensors']"),
        (cut, "model.safetensors is damaged"),
        (flip, "ema.safetensors is damaged"),
        (swap, "its state is of step 2, and its name of 9"),
        (lambda p: p.rename(p.with_name("step-2")), "is not named step-NNNNNNNN"),
        (lambda p: (p / "manifest.json").write_text("[]"), "expected an object"),
        (lambda p: manifest(p, files={"model.safetensors": 7}), "no size and sha256"),
        (lambda p: manifest(p, files=[]), "has format"),
        (lambda p: manifest(p, format=2), "has format 2"),
    ],
)
def test_a_bad_one_is_named_with_what_is_wrong_and_exit_1(run, spoil, words):
    spoil(run / "checkpoints" / "step-00000002")
    done, found = verify(run)
    assert done.exit_code == 1
    assert "1 of 3 are not whole" in done.output
    bad = [one for one in found.values() if not one["ok"]]
    assert len(bad) == 1
    assert words in bad[0]["found"]
    assert found["step-00000001"]["ok"]
    assert found["step-00000003"]["ok"]


def test_weights_that_are_not_finite_are_bad(run):
    checkpoint.save(
        run / "checkpoints", 4, {"model": {"w": torch.tensor([1.0, float("inf")])}}, {"step": 4}
    )
    done, found = verify(run)
    assert done.exit_code == 1
    assert "'w' holds values that are not finite" in found["step-00000004"]["found"]


def test_a_file_that_is_a_folder_is_bad_and_no_traceback(run):
    path = run / "checkpoints" / "step-00000002" / "model.safetensors"
    path.unlink()
    path.mkdir()
    done, found = verify(run)
    assert done.exit_code == 1
    assert "Is a directory" in found["step-00000002"]["found"]


def test_none_at_all_is_exit_1(tmp_path):
    done, _ = verify(tmp_path)
    assert done.exit_code == 1
    assert "there is no checkpoint" in done.output
    done, _ = verify(tmp_path / "nowhere")
    assert done.exit_code == 1
    assert "there is no folder" in done.output


def test_in_words(run):
    flip(run / "checkpoints" / "step-00000003")
    done = CliRunner().invoke(app, ["checkpoint", "verify", str(run)])
    lines = done.stdout.splitlines()
    assert [line[:4].strip() for line in lines[:3]] == ["ok", "ok", "BAD"]
