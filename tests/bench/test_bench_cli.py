"""`ssmdiff bench` as a person meets it, with tiny sizes."""

from __future__ import annotations

import json

import pytest
from ssmdiff_cli.main import app
from typer.testing import CliRunner


def invoke(*arguments):
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


@pytest.mark.slow
def test_scan_prints_a_table_and_writes_a_record_and_a_plot(tmp_path):
    result = invoke(
        "scan", "--tokens", "8,16", "--channels", 4, "--states", 2, "--repeats", 2, "--only",
        "numba,mamba-ssm-reference", "--json", tmp_path / "a.json", "--plot", tmp_path / "a.png",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "forward, 8 tokens" in result.output
    assert "x inputs)" in result.output
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["bench"] == "scan"
    assert record["settings"]["channels"] == 4
    assert {"processor", "threads", "torch", "date"} <= record["machine"].keys()
    assert len(record["rows"]) == 8
    assert all(row["status"] == "ok" and row["difference"] < 1e-5 for row in record["rows"])
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_step_tells_parameters_and_growth(tmp_path):
    result = invoke(
        "step", "--pixels", "16,32", "--channels", 8, "--repeats", 1, "--only", "vmddpm",
        "--json", tmp_path / "a.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "time grows as pixels to the power of" in result.output
    record = json.loads((tmp_path / "a.json").read_text())
    assert [row["size"] for row in record["rows"]] == [256, 1024]
    assert record["rows"][0]["parameters"] > 1000
    assert record["growth"].keys() == {"vmddpm"}


def train(folder):
    made = CliRunner().invoke(
        app,
        ["train", "--out", str(folder), "--steps", "1", "--batch-size", "2",
         "--set", "model.backbone.channels=8", "--set", "model.backbone.widths=[1,2]",
         "--set", "train.bound_images=0", "--set", "sample.count=1", "--set", "sample.steps=1"],
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    return folder


@pytest.mark.slow
def test_sample_compares_torch_with_itself(tmp_path):
    run = train(tmp_path / "run")
    result = invoke(
        "sample", run, "--n", 2, "--steps", 2, "--repeats", 1, "--only", "torch",
        "--json", tmp_path / "a.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (row,) = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert row["images_per_s"] == pytest.approx(2e3 / row["time_ms"]["median"], rel=1e-3)
    assert row["difference"] == 0
    assert row["process_mib"] > 50


@pytest.mark.slow
def test_sample_compares_files_with_torch(tmp_path):
    ways = ["torch", "onnx", "onnx-chunked", "onnx-library"]
    result = invoke(
        "sample", train(tmp_path / "run"), "--n", 2, "--steps", 2, "--repeats", 1,
        "--only", ",".join(ways), "--json", tmp_path / "a.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert [row["way"] for row in rows] == ways
    assert all(row["difference"] < 1e-5 for row in rows)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["scan", "--tokens", "many"], "expected whole numbers such as 256,1024"),
        (["scan", "--order", "rastr"], "did you mean 'raster'?"),
        (["scan", "--dtype", "float8"], "--dtype 'float8'"),
        (["scan", "--only", "nunba"], "did you mean 'numba'?"),
        (["scan", "--only", "mamba-ssm"], "mamba-ssm was asked for and is not here"),
        (["scan", "--json", "."], "is a folder"),
        (["step", "--preset", "tny"], "did you mean 'tiny'?"),
        (["step", "--pixels", "20"], "nearest"),
        (["step", "--channels", "7"], "multiple of 2"),
    ],
)
def test_wrong_options_are_told_before_anything_runs(arguments, sentence):
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert sentence in " ".join(result.output.split())


def test_a_run_that_is_not_there():
    result = invoke("sample", "nowhere")
    assert result.exit_code == 1
    assert "there is no run folder nowhere" in result.output


@pytest.mark.parametrize("name", ["scan", "step", "sample"])
def test_help_needs_no_torch(name, python):
    done = python(
        f"""
        import sys
        from typer.testing import CliRunner
        from ssmdiff_cli.main import app
        result = CliRunner().invoke(app, ["bench", "{name}", "--help"])
        assert "--json" in result.output, result.output
        print([m for m in ("torch", "numba") if m in sys.modules])
        """
    )
    assert done.stdout.strip() == "[]", done.stderr
