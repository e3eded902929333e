"""The stub of TensorRT on the path, in both versions, and a cache of the test's own."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from ssmdiff_export.tensorrt.cache import EngineCache
from trt_stub import STUB, HostDevice, forget_tensorrt

sys.path.insert(0, str(Path(__file__).parents[1]))  # the runs of export's tests


@pytest.fixture(params=["10.13.3.9", "11.1.0.9"])
def trt(request, monkeypatch):
    """The stub as ``tensorrt``, in both versions."""
    forget_tensorrt()
    monkeypatch.setenv("SSMDIFF_STUB_TENSORRT", request.param)
    monkeypatch.syspath_prepend(STUB)
    yield importlib.import_module("tensorrt")
    forget_tensorrt()


@pytest.fixture
def device() -> HostDevice:
    return HostDevice()


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "cache")
