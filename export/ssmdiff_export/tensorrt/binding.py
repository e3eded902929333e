"""Import of the ``tensorrt`` package, and a logger that keeps what it says."""

from __future__ import annotations

import importlib
from typing import Any

from ssmdiff import ExportError

OLDEST = (10, 13)
INSTALL = (
    "TensorRT {needed} with its Python package is needed, on Linux with an NVIDIA GPU: "
    "pip install tensorrt (docs/tensorrt.md)"
)


def load_tensorrt() -> Any:
    """The module ``tensorrt``.

    Raises:
        ExportError: It is missing, broken or too old.
    """
    needed = INSTALL.format(needed=f"{OLDEST[0]}.{OLDEST[1]} or newer")
    try:
        trt = importlib.import_module("tensorrt")
        version = getattr(trt, "__version__", None)
        if version is None:  # a folder of that name in the working directory imports as well
            raise ImportError(f"{list(getattr(trt, '__path__', []))} is another 'tensorrt'")
    except ImportError as error:
        raise ExportError(f"TensorRT is not installed ({error}). {needed}") from error
    if version_tuple(version) < OLDEST:
        raise ExportError(f"TensorRT {version} is too old. {needed}")
    return trt


def version_tuple(version: str) -> tuple[int, int]:
    """Major and minor version."""
    major, minor, *_ = version.split(".")
    return int(major), int(minor)


def make_logger(trt: Any) -> Any:
    """A ``trt.ILogger`` whose ``lines`` are the warnings and errors so far, at most the last 200.

    TensorRT reports by its logger and returns None: without these lines a failure has no reason.
    """

    class Logger(trt.ILogger):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            severities = (
                trt.ILogger.Severity.INTERNAL_ERROR,
                trt.ILogger.Severity.ERROR,
                trt.ILogger.Severity.WARNING,
            )
            if severity in severities:
                self.lines.append(f"{severity.name.lower()}: {msg}")
                del self.lines[:-200]

    return Logger()


def logged(logger: Any) -> str:
    """The end of the log, one line each, to be put behind a message."""
    lines = logger.lines[-20:]
    return "\n".join(["; TensorRT says:", *lines]) if lines else "; TensorRT says nothing more"
