"""Fixtures that several folders of tests share."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

# Before torch is imported, and inherited by what tests start: shapes are tiny, and the suite itself
# takes every core. Tests of threads set their number themselves.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings
from ssmdiff.registry.registry import registry

settings.register_profile("ssmdiff", deadline=None, derandomize=True)
settings.load_profile("ssmdiff")

Install = Callable[..., Path]
Python = Callable[..., subprocess.CompletedProcess[str]]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test of the core that borrows a plugin's component is skipped where there is none."""
    for package in (p for marker in item.iter_markers("needs_plugin") for p in marker.args):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"borrows a component of {package}, which is not installed")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Fake an installed distribution: ``install("ssmdiff-spiral", code)``, found as a real one is.

    Writes a module of one file and a ``.dist-info`` folder beside it into a folder on sys.path,
    which it returns. The entry point is named as the module.
    """
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def write(
        name: str, code: str, version: str = "1.0", point: str = "", metadata: bool = True
    ) -> Path:
        module = name.replace("-", "_")
        (site / f"{module}.py").write_text(textwrap.dedent(code), encoding="utf-8")
        info = site / f"{module}-{version}.dist-info"
        info.mkdir()
        if metadata:
            text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            (info / "METADATA").write_text(text, encoding="utf-8")
        entry = f"[ssmdiff]\n{point or module} = {module}\n"
        (info / "entry_points.txt").write_text(entry, encoding="utf-8")
        (info / "RECORD").write_text(f"{module}.py,,\n{info.name}/METADATA,,\n", encoding="utf-8")
        importlib.invalidate_caches()
        return site

    before = set(sys.modules)
    yield write
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(site)):
            del sys.modules[name]
    importlib.invalidate_caches()


@pytest.fixture(scope="session")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Options of ``inception``: a TorchScript file of random weights with the real one's interface.

    Its ``layers`` take (B, 3, 299, 299), -1 to 1, and give (B, 2048, 1, 1).
    """
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                nn.Conv2d(3, 8, 13, stride=13), nn.Tanh(), nn.Conv2d(8, 2048, 23, groups=8)
            )

        def forward(self, img: torch.Tensor, return_features: bool = False) -> torch.Tensor:
            raise RuntimeError("the resize inside of the file is not the one that was asked for")

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network()
    path = tmp_path_factory.mktemp("inception") / "inception.pt"
    torch.jit.script(network).save(str(path))
    return {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


@pytest.fixture
def fresh_registry() -> Iterator[None]:
    """The registry of the process is built anew in this test, and once more after it."""
    registry.cache_clear()
    yield
    registry.cache_clear()


@pytest.fixture
def python() -> Python:
    """Run code in a new interpreter; ``python(code, NAME=value)`` sets variables as well."""

    def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
            timeout=120,
            check=False,
        )

    return run
