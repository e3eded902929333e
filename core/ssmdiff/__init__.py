"""ssmdiff: a modular plugin ecosystem for state-space (Mamba) diffusion models.

A *scan* says in which *order* the tokens of a grid are visited; a *block* mixes tokens along that
order with a state space model; a *backbone* stacks blocks into a denoiser; a *noise scheduler*
turns a denoiser into images; a *kernel* makes the scan fast.

The names of ``__init__.pyi``, :mod:`ssmdiff.nn` and :mod:`ssmdiff.testing` are the public surface:
the documentation names nothing deeper, and our own plugins use nothing else.

A name is imported when it is first asked for, so that ``import ssmdiff`` needs nothing but Python:
an exported model is sampled where numpy and ONNX Runtime alone are installed.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

# Not when it is first asked for: importing the package of that name would put the package where the
# function belongs. That module imports pluggy when the registry is first built.
from ssmdiff.registry.registry import create, registry  # noqa: F401  on the page

__version__ = "0.2.0"

_HOMES = {
    name.name: statement.module
    for statement in ast.parse(Path(__file__).with_suffix(".pyi").read_text("utf-8")).body
    if isinstance(statement, ast.ImportFrom) and statement.module
    for name in statement.names
}
"""The module that each public name lives in, read from the page that type checkers read."""

__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ssmdiff' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
