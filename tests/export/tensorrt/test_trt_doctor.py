"""``ssmdiff doctor --tensorrt``, as far as the stub goes, and where TensorRT is missing."""

from __future__ import annotations

import functools
import json
import sys

import pytest
from ssmdiff.errors import ExportError
from ssmdiff_cli import doctor as command
from ssmdiff_cli.main import main
from ssmdiff_export.tensorrt import device as device_module
from ssmdiff_export.tensorrt import doctor, nvrtc
from ssmdiff_export.tensorrt.binding import RTX


@pytest.fixture(autouse=True)
def _no_rtx(monkeypatch):
    """As where TensorRT for RTX is not installed; test_rtx.py has the other half."""
    for name in RTX.modules:
        monkeypatch.setitem(sys.modules, name, None)


def run_command(*arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ssmdiff", *arguments])
        try:
            code = main()
        except SystemExit as exit_:
            code = exit_.code
    return int(code or 0)


def test_the_command_says_that_tensorrt_is_missing(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert run_command("doctor", "--tensorrt") == 1
    said = capsys.readouterr().err
    assert "TensorRT is not installed" in said
    assert "TensorRT for RTX is not installed" in said
    assert "pip install 'ssmdiff[tensorrt-rtx]'" in said
    assert list(tmp_path.iterdir()) == []


def test_without_a_gpu_the_command_says_so(trt, monkeypatch, tmp_path):
    monkeypatch.setattr(device_module.torch.cuda, "is_available", lambda: False)
    with pytest.raises(ExportError, match="needs an NVIDIA GPU"):
        doctor.examine_tensorrt(tmp_path / "report.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("trt", ["10.13.3.9"], indirect=True)
def test_the_command_builds_compares_times_and_writes_a_report(
    trt, device, monkeypatch, tmp_path, capsys
):
    try:
        nvrtc.library()
    except ExportError:
        pytest.skip("NVRTC is not installed (pip install nvidia-cuda-nvrtc)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "Cuda", lambda: device)
    monkeypatch.setattr(doctor, "TRIALS", (("zoh", "fp16"),))
    smaller = functools.partial(doctor.tiny_run, widths=(1,))
    monkeypatch.setattr(doctor, "tiny_run", smaller)
    assert run_command("doctor", "--tensorrt") == 0, capsys.readouterr()
    shown = capsys.readouterr()
    assert "Stub GPU" in shown.out
    assert "zoh-fp16     ok" in shown.out
    report = json.loads((tmp_path / command.REPORT).read_text())
    (product,) = report["products"]
    (trial,) = product["trials"]
    assert report["ok"]
    assert product["machine"]["tensorrt"] == trt.__version__
    assert product["not_run"] is None
    assert trial["plugin_layers"] > 0
    assert trial["parity"]["max_rel"] <= trial["parity"]["tolerance"]
    assert trial["milliseconds"]["engine"] > 0
    assert [p.name for p in tmp_path.iterdir()] == [command.REPORT.name]


def test_what_fails_stands_in_the_report(trt, device, monkeypatch, tmp_path):
    def broken(*_, **__):
        raise RuntimeError("an engine of another colour")

    monkeypatch.setattr(doctor, "make_engine", broken)
    monkeypatch.setattr(doctor, "TRIALS", (("euler", "fp32"),))
    report = doctor.examine_tensorrt(tmp_path / "report.json", device)
    assert not report["ok"]
    (product,) = json.loads((tmp_path / "report.json").read_text())["products"]
    (trial,) = product["trials"]
    assert trial["error"] == "RuntimeError: an engine of another colour"
    assert "in broken" in trial["traceback"]
