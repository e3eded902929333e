"""What a run was made with: versions, and the distribution behind each component."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ssmdiff.runs.config import Config
from ssmdiff.registry.registry import registry

PACKAGES = ("ssmdiff", "torch", "numpy", "accelerate", "diffusers", "numba", "triton")


def versions() -> dict[str, str]:
    """Python, the platform and the packages that decide the numbers, where they are installed."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def providers(config: Config) -> dict[str, str]:
    """Dotted path of each component -> ``name: distribution version``."""
    return {
        path: f"{table['name']}: {registry().find(kind, table['name']).plugin.source}"
        for path, (kind, table) in config.components().items()
    }


def provenance(config: Config) -> dict[str, Any]:
    """The table that goes into ``config.toml`` and into every checkpoint."""
    return {"versions": versions(), "components": providers(config)}
