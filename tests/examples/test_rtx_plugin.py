"""The plug-in shell of ``examples/``: it parses and builds on a machine without a card."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from ssmdiff_export.function import scan_function
from ssmdiff_export.runtime.card import EULER

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "examples" / "rtx-plugin" / "scan_shell.py"
sys.path.insert(0, str(ROOT / "tests" / "export" / "tensorrt"))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_shell_parses_and_builds(tmp_path, precision):
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("TensorRT for RTX is not installed: pip install 'ssmdiff[tensorrt-rtx]'")
    import small_model

    model = small_model.write(tmp_path / "model.onnx", precision)
    out = tmp_path / "model.rtx"
    done = subprocess.run(
        [sys.executable, PROGRAM, model, out, "8.9"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert f"{out}: 1 plugin layers" in done.stdout
    assert out.stat().st_size > 100_000


def test_the_shell_names_the_nodes_of_our_files():
    source = PROGRAM.read_text(encoding="utf-8")
    assert f'"{EULER}", "SelectiveScanZoh"' in source
    attributes = {a.name for a in scan_function(EULER).attribute_proto}
    assert {"plugin_namespace", "plugin_version"} <= attributes
