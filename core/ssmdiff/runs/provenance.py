"""What a run was made with: versions, and the distribution behind each component."""

from __future__ import annotations

import platform
import re
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

from ssmdiff.registry.registry import registry
from ssmdiff.runs.sections import Config

_DISTRIBUTION = "ssmdiff"
_NAME = re.compile(r"[\w.-]+")


def versions() -> dict[str, str]:
    """Python, the platform, and what ssmdiff and its extras require, where it is installed."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in (_DISTRIBUTION, *_required()):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _required() -> list[str]:
    """The distributions that our metadata name, ours aside."""
    try:
        lines = requires(_DISTRIBUTION) or []
    except PackageNotFoundError:  # run from a source tree that was never installed
        return []
    names = {match.group() for line in lines if (match := _NAME.match(line))}
    return sorted(names - {_DISTRIBUTION})


def providers(config: Config) -> dict[str, str]:
    """Dotted path of each component -> ``name: distribution version``."""
    return {
        path: f"{table['name']}: {registry().find(kind, table['name']).plugin.source}"
        for path, (kind, table) in config.components().items()
    }


def provenance(config: Config) -> dict[str, Any]:
    """The table that goes into ``config.toml`` and into every checkpoint."""
    return {"versions": versions(), "components": providers(config)}
