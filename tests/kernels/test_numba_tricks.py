"""The diffs of `benchmarks/numba_tricks.py` follow the sources that they leave a trick out of."""

from __future__ import annotations

import ast
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOM = ROOT / "plugins" / "ssmdiff_kernels" / "numba_scan"
DIFFS = sorted((ROOT / "benchmarks" / "numba_tricks").glob("*.diff"))


@pytest.mark.parametrize("diff", DIFFS, ids=lambda path: path.stem)
def test_a_trick_can_be_left_out(diff: Path, tmp_path: Path) -> None:
    for source in ROOM.glob("*.py"):
        shutil.copy(source, tmp_path)
    command = ["git", "apply", str(diff)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    changed = [
        p.name for p in ROOM.glob("*.py") if (tmp_path / p.name).read_text() != p.read_text()
    ]
    assert changed, "the diff changes nothing"
    for name in changed:
        ast.parse((tmp_path / name).read_text())


def test_the_page_names_every_trick() -> None:
    page = (ROOM / "README.md").read_text(encoding="utf-8")
    assert [path.stem for path in DIFFS if f"`{path.stem}`" not in page] == []
