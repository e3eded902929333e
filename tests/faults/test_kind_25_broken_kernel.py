"""Kind 25: a package that is installed and does not work is no kernel."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from ssmdiff import ConfigError

OP = """
    import json, warnings, torch, ssmdiff
    from ssmdiff.ops import kernels_used, use_kernel

    def scan(length):
        u, A = torch.ones(1, length, 2), -torch.ones(1, 2, 1)
        one, order = torch.ones(1, 1, length, 1), torch.arange(length, dtype=torch.int32)[None]
        return ssmdiff.selective_scan(u, u[:, None], A, one, one, order)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        y = [scan(300) for _ in range(2)][0]
    try:
        with use_kernel("numba"):
            scan(6)
        refused = ""
    except ssmdiff.KernelUnavailableError as error:
        refused = str(error)
    from ssmdiff_cli.doctor_report import _examine_kernel
    row = _examine_kernel("numba", torch.device("cpu"))
    said = [str(w.message) for w in caught if "slow reference" in str(w.message)]
    print(json.dumps([kernels_used(), said, refused, row, float(y.sum())]))
"""


@pytest.mark.parametrize("how", ["import", pytest.param("no-compiler", marks=pytest.mark.slow)])
def test_numba_that_does_not_work(python, tmp_path: Path, how: str) -> None:
    """It refuses this NumPy when it is imported, or was told to compile nothing."""
    if how == "import":
        (tmp_path / "numba.py").write_text("raise ImportError('Numba needs NumPy 2.2 or less')\n")
        result = python(OP, PYTHONPATH=str(tmp_path))
        cause = "ImportError: Numba needs NumPy 2.2 or less"
    else:
        result = python(OP, NUMBA_DISABLE_JIT="1")
        cause = "Error: "
    assert result.returncode == 0, result.stderr
    used, said, refused, row, total = json.loads(result.stdout.splitlines()[-1])
    assert used == ["torch"]
    assert len(said) == 1
    assert "numba: it fails on one token: " in said[0]
    assert cause in said[0]
    assert "kernel 'numba' cannot run here: it fails on one token" in refused
    assert cause in refused
    assert row["status"] == "broken"
    assert cause in row["detail"]
    assert total > 0


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """``broken("package")``: it is found, and does not import."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(package: str) -> None:
        for name in [n for n in sys.modules if n == package or n.startswith(f"{package}.")]:
            monkeypatch.delitem(sys.modules, name)
        (tmp_path / f"{package}.py").write_text("raise ImportError('built for NumPy 1')\n")
        importlib.invalidate_caches()

    return install


def test_an_exporter_whose_package_does_not_import(broken) -> None:
    from ssmdiff_export.model_file import need_onnx

    need_onnx()
    broken("onnxscript")
    with pytest.raises(ConfigError, match=r"onnxscript, which is .* not work .*built for NumPy 1"):
        need_onnx()


def test_an_optional_kernel_of_a_block_that_does_not_import(broken) -> None:
    from ssmdiff_blocks.sequence import installed

    broken("causal_conv1d")
    with pytest.raises(ConfigError, match=r"causal_conv1d is installed and does not work .*NumPy"):
        installed("causal_conv1d", "causal_conv1d_fn")


def test_a_compiler_that_does_not_import(broken) -> None:
    from ssmdiff.networks.compiling import _refuse_without_compiler

    broken("triton")
    with pytest.raises(ConfigError, match=r"needs Triton \(ImportError: built for NumPy 1\)"):
        _refuse_without_compiler(torch.device("cuda"))
