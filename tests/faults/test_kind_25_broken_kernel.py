"""Kind 25: a package that is installed and does not work is no kernel."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("how", ["import", "no-compiler"])
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
