"""Our operators for ONNX Runtime, compiled once, and each instruction set that they are for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ssmdiff.errors import ExportError
from ssmdiff_export.ort_library import build

ISAS = ("avx512", "avx2", "baseline")


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The library, compiled into a cache that all processes of a test run share."""
    shared = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        shared = shared.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(shared / "ort-library"))
        try:
            build.find_compiler()
        except ExportError as error:
            pytest.skip(str(error))
        (shared / "ort-library").mkdir(exist_ok=True)
        return str(build.library())


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest, library: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each instruction set that this machine has, forced."""
    flags = Path("/proc/cpuinfo")
    needed = {"avx512": "avx512f", "avx2": "avx2", "baseline": ""}[request.param]
    if needed and not (flags.is_file() and f" {needed} " in flags.read_text()):
        pytest.skip(f"no {request.param} here")
    monkeypatch.setenv("SSMDIFF_SCAN_ISA", request.param)
    return str(request.param)
