"""Exporters as components: options that arrive, flags that are refused, files told by content."""

from __future__ import annotations

import json
from importlib.metadata import entry_points

import numpy as np
import pytest
import ssmdiff
from ssmdiff.errors import ConfigError, ExportError
from ssmdiff.registry.registry import Registry
from ssmdiff_cli.main import app
from ssmdiff_export import model_file
from ssmdiff_export.onnx_export import OnnxReport
from tiny_runs import SMALLEST, tiny_run
from typer.testing import CliRunner

STRANGER = """
    import json
    from pathlib import Path
    import ssmdiff

    class Exporter:
        suffixes = (".note",)

        def __init__(self, ink: str = "black", batch: tuple[int, int, int] = (1, 2, 3)):
            self.ink, self.batch = ink, batch

        def export(self, request):
            told = {"ink": self.ink, "batch": self.batch, "precision": request.precision,
                    "verify": request.verify, "checkpoint": request.run.checkpoint.path.name,
                    "run": str(request.run.folder.path)}
            request.out.write_text("NOTE" + json.dumps(told))
            return ssmdiff.ExportResult((request.out,), ("noted",))

        def recognises(self, path):
            return path.is_file() and path.read_bytes()[:4] == b"NOTE"

        def open(self, path, kernel="auto"):
            run = json.loads(path.read_text()[4:])["run"]
            ssmdiff.set_kernel(kernel)
            return ssmdiff.load_run(run)

    @ssmdiff.hookimpl
    def ssmdiff_exporters():
        yield ssmdiff.Component("note", Exporter, "a note")
"""


def invoke(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def said(result):
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run(tmp_path_factory.mktemp("made") / "run", block="conv", backbone=SMALLEST)


@pytest.fixture
def note(install, fresh_registry):
    install("ssmdiff-note", STRANGER)


@pytest.fixture
def noted(monkeypatch):
    """What reaches the writer of ONNX files, which writes nothing."""
    calls = []

    def export_onnx(run, path, **options):
        calls.append(options)
        path.write_bytes(b"\x08\x0a\x12\x07ssmdiff")
        return OnnxReport((path,), 1, 1, None, 0.0)

    monkeypatch.setattr("ssmdiff_export.onnx_export.export_onnx", export_onnx)
    monkeypatch.setattr(model_file, "need_onnx", lambda: None)
    return calls


def test_options_of_a_strangers_target_arrive(note, run, tmp_path):
    out = tmp_path / "a.note"
    result = invoke("export", run.folder.path, "--to", "note", "--out", out, "--set", "ink=blue",
                    "--batch", "2:4:8", "--no-verify", "--precision", "bf16")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.output == "noted\n"
    assert json.loads(out.read_text()[4:]) == {
        "ink": "blue", "batch": [2, 4, 8], "precision": "bf16", "verify": False,
        "checkpoint": "step-00000001", "run": str(run.folder.path),
    }  # fmt: skip


def test_a_strangers_file_is_sampled_whatever_its_name(note, run, tmp_path):
    ssmdiff.job("export")(run, tmp_path / "a.note", "note")
    (tmp_path / "a.note").rename(tmp_path / "b.onnx")
    drawn = invoke("sample", tmp_path / "b.onnx", "--n", 1, "--steps", 2, "--format", "npy",
                   "--out", tmp_path / "o", "--kernel", "torch")  # fmt: skip
    assert drawn.exit_code == 0, drawn.output
    expected = run.sample(1, steps=2).numpy()[0]
    np.testing.assert_allclose(np.load(tmp_path / "o" / "000000.npy"), expected, atol=1e-5)
    refused = invoke("sample", tmp_path / "b.onnx", "--ort-library", "x", "--out", tmp_path / "p")
    assert "--ort-library is of a file of onnx, and a file of note was given" in said(refused)
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("arguments", "arrives"),
    [
        ([], {"body": "scan"}),
        (["--body", "chunked"], {"body": "chunked"}),
        (["--set", "body=chunked"], {"body": "chunked"}),
        (["--set", "body=scan", "--body", "scan"], {"body": "scan"}),
        (["--precision", "fp16", "--overwrite"], {"precision": "fp16", "overwrite": True}),
    ],
)
def test_options_and_their_flags_reach_the_exporter(noted, run, tmp_path, arguments, arrives):
    result = invoke("export", run.folder.path, "--out", tmp_path / "m.onnx", *arguments)
    assert result.exit_code == 0, result.output
    (options,) = noted
    assert arrives.items() <= options.items()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--to", "pt2", "--body", "chunked"],
         "--body is an option of onnx and triton-server, and the target is pt2"),
        (["--batch", "1:2:4"],
         "--batch is an option of tensorrt, tensorrt-rtx and triton-server, and the target is on"),
        (["--to", "pt2", "--check-tensorrt"],
         "--check-tensorrt is an option of onnx, and the target is pt2"),
        (["--body", "chuncked"], "option 'body': got 'chuncked'"),
        (["--to", "tensorrt", "--batch", "4:2:8"], "--batch '4:2:8': expected the fewest"),
        (["--to", "tensorrt-rtx", "--set", "capability=8.6,9.0"],
         "builds for cards of capability 8.0, 8.6, 8.9, 12.0, 12.1; got 9.0"),
        (["--to", "tensorrt", "--set", "capability=8.6"],
         "--set capability: target tensorrt has no such option"),
        (["--out", "m.rtx"], "files of target tensorrt-rtx are named so"),
        (["--set", "bdy=chunked"], "target onnx has no such option; did you mean 'body'?"),
        (["--set", "name=pt2"], "--set name: the component is named by the command itself"),
        (["--set", "body=chunked", "--body", "scan"], "'scan' by its flag and 'chunked' by --set"),
        (["--set", "precision=fp16"], "--set precision: target onnx has no such option"),
        (["--precision", "fp8"], "--precision 'fp8': expected fp32, fp16, bf16"),
        (["--to", "onix"], "--to onix: there is no such target; did you mean 'onnx'?"),
        (["--out", "m.pt2"], "files of target pt2 are named so, and the target is onnx"),
        (["--out", "m.plan"], "Choose a name that ends with .onnx, or give --to tensorrt"),
        (["--to", "triton-server", "--out", "m.onnx"], "files of target onnx are named so"),
    ],
)  # fmt: skip
def test_what_a_target_ignores_is_refused(noted, run, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    result = invoke("export", run.folder.path, "--out", "m.bin", *arguments)
    assert result.exit_code == 2, result.output
    assert sentence in said(result)
    assert list(tmp_path.iterdir()) == []
    assert not noted


def test_a_name_that_nobody_owns_is_told(noted, run, tmp_path):
    result = invoke("export", run.folder.path, "--out", tmp_path / "m.pth")
    assert result.exit_code == 0, result.output
    assert "m.pth holds onnx, whose files are usually named with .onnx" in said(result)
    assert ssmdiff.exporter_of(tmp_path / "m.pth")[0] == "onnx", "told by its content"


@pytest.mark.parametrize("call", ["name", "option"])
def test_the_job_refuses_what_the_command_refuses(run, tmp_path, call):
    options = {"name": "pt2"} if call == "name" else {"bdy": "chunked"}
    with pytest.raises(ConfigError, match=r"no option 'name'|did you mean 'body'"):
        ssmdiff.job("export")(run, tmp_path / "m.onnx", **options)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_gives_the_images_of_its_run_and_no_others(run, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    archive = tmp_path / "heads.pt2"
    made = invoke("export", run.folder.path, "--to", "pt2", "--out", archive, "--no-verify")
    assert made.exit_code == 0, made.output
    assert "will not open" not in made.output
    renamed = archive.rename(tmp_path / "heads.bin")
    drawn = invoke("sample", renamed, "--n", 2, "--steps", 2, "--format", "npy",
                   "--out", tmp_path / "o")  # fmt: skip
    assert drawn.exit_code == 0, drawn.output
    expected = run.sample(2, steps=2).numpy()
    for i in range(2):
        image = np.load(tmp_path / "o" / f"{i:06d}.npy")
        np.testing.assert_allclose(image, expected[i], atol=1e-5)

    # A stranger's, or one that was changed: torch would run what it holds.
    monkeypatch.setattr("torch.export.load", lambda *_: pytest.fail("it was opened"))
    renamed.write_bytes(renamed.read_bytes() + b"\0")
    with pytest.raises(ExportError, match="was not written by this user on this machine"):
        model_file.Pt2Exporter().open(renamed)


def test_an_archive_that_cannot_be_remembered_says_so(run, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache" / "ssmdiff").mkdir(parents=True)
    (tmp_path / "cache" / "ssmdiff" / "pt2").touch()
    result = ssmdiff.job("export")(run, tmp_path / "m.pt2", "pt2", verify=False)
    assert result.files == (tmp_path / "m.pt2",)
    assert "ssmdiff sample will not open it: cannot make" in result.lines[-1]


def test_a_run_is_opened_where_training_is_not_installed(run, monkeypatch):
    found = Registry([p for p in entry_points(group="ssmdiff") if p.name != "train"])
    monkeypatch.setattr("ssmdiff.runs.sections.registry", lambda: found)
    with pytest.raises(ConfigError, match="no callback named 'tensorboard'"):
        ssmdiff.resolve({})
    assert ssmdiff.load_run(run.folder.path).sample(1, steps=1).shape == (1, 1, 8, 8)


@pytest.mark.parametrize("content", [b"", b"\x08", b"PK\3\4", b"PK\3\4" + bytes(99), b"\x80\4."])
def test_what_nobody_wrote_is_recognised_by_nobody(tmp_path, content):
    file = tmp_path / "m"
    file.write_bytes(content)
    assert ssmdiff.exporter_of(file) is None
    assert ssmdiff.exporter_of(tmp_path) is None
    assert ssmdiff.exporter_of(tmp_path / "none") is None
    result = invoke("sample", file, "--out", tmp_path / "o")
    assert result.exit_code == 1
    assert f"{file} is refused: it is no file that ssmdiff writes" in said(result)
    named = file.rename(tmp_path / "m.onnx")
    assert ssmdiff.exporter_of(named)[0] == "onnx", "who can say what is wrong with it"
