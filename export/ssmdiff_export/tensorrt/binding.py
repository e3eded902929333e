"""The two TensorRTs: what differs between them and their versions, their import and their log.

TensorRT builds on the machine and for the GPU that will run the engine. TensorRT for RTX builds on
any machine, also one without a GPU or driver, for cards that are told to it by their capability.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ssmdiff import ExportError


@dataclass(frozen=True)
class Product:
    """One of NVIDIA's builders, and all that our code has to know of it in advance.

    Attributes:
        target: Of ``ssmdiff export --to``.
        title: How messages name it.
        modules: Its Python module goes by one of these names.
        oldest: Major and minor version that is taken.
        install: How to get it.
        suffixes: Of its engines' names.
        network_flags: From which version on a network is made with which flags.
        plugin: Whether it takes the scan as a plugin that is compiled ahead of time; otherwise it
            takes the function in the file.
        capabilities: Of the cards that can be told to it; none where it builds for the GPU here.
        specialised: Whether a context compiles kernels of its own for its shapes. That is asked to
            be over when the first call is, since a CUDA graph keeps the kernels it was made of.
    """

    target: str
    title: str
    modules: tuple[str, ...]
    oldest: tuple[int, int]
    install: str
    suffixes: tuple[str, ...]
    network_flags: tuple[tuple[tuple[int, int], tuple[str, ...]], ...]
    plugin: bool
    capabilities: tuple[str, ...] = ()
    specialised: bool = False

    def flags(self, version: str) -> tuple[str, ...]:
        """The names of a network's flags in a version."""
        here = version_tuple(version)
        return [names for since, names in self.network_flags if since <= here][-1]


TENSORRT = Product(
    target="tensorrt",
    title="TensorRT",
    modules=("tensorrt",),
    oldest=(10, 13),
    install="on Linux with an NVIDIA GPU: pip install tensorrt (docs/tensorrt.md)",
    suffixes=(".engine", ".plan"),
    network_flags=(
        ((10, 13), ("PREFER_AOT_PYTHON_PLUGINS", "STRONGLY_TYPED")),
        ((11, 0), ("PREFER_AOT_PYTHON_PLUGINS",)),  # from here on all networks are strongly typed
    ),
    plugin=True,
)
RTX = Product(
    target="tensorrt-rtx",
    title="TensorRT for RTX",
    modules=("tensorrt_rtx", "tensorrt_rtx_bindings"),
    oldest=(1, 7),
    install="with a GPU or without: pip install 'ssmdiff[tensorrt-rtx]' (docs/tensorrt.md)",
    suffixes=(".rtx",),
    network_flags=(((1, 7), ()),),  # all networks are strongly typed
    plugin=False,
    capabilities=("8.0", "8.6", "8.9", "12.0", "12.1"),  # 7.5 is one, and takes no loops
    specialised=True,
)
PRODUCTS = {product.target: product for product in (TENSORRT, RTX)}


def load_tensorrt(product: Product = TENSORRT) -> Any:
    """The module of a product.

    Raises:
        ExportError: It is missing, broken or too old.
    """
    oldest = ".".join(map(str, product.oldest))
    needed = f"{product.title} {oldest} or newer with its Python package is needed, "
    needed += product.install
    try:
        trt, version = _imported(product)
    except (ImportError, OSError) as error:
        raise ExportError(f"{product.title} is not installed ({error}). {needed}") from error
    if version_tuple(version) < product.oldest:
        raise ExportError(f"{product.title} {version} is too old. {needed}")
    return trt


def _imported(product: Product) -> tuple[Any, str]:
    """Module and version.

    Raises:
        ImportError: There is none, or another package goes by its name.
    """
    missing: list[ImportError] = []
    for name in product.modules:
        try:
            trt = importlib.import_module(name)
        except ModuleNotFoundError as error:
            missing.append(error)
            continue
        version = getattr(trt, "__version__", None)
        if version is None:  # a folder of that name in the working directory imports as well
            raise ImportError(f"{list(getattr(trt, '__path__', []))} is another {name!r}")
        return trt, version
    raise missing[0]


def version_tuple(version: str) -> tuple[int, int]:
    """Major and minor version."""
    major, minor, *_ = version.split(".")
    return int(major), int(minor)


_LOGGERS: dict[Any, Any] = {}
_NOISE = "the output tensors of this new instance will not be queryable"
"""The parser names nodes that have no name after their outputs, and so says this of every node of a
function that is called twice: a hundred times in a model of ours, in front of what went wrong."""


def make_logger(trt: Any) -> Any:
    """The ``trt.ILogger`` of a module, emptied: ``lines`` are the warnings and errors from now on.

    TensorRT reports by its logger and returns None: without these lines a failure has no reason. It
    takes the first logger of a process, and none after it; so there is one. It keeps 200 lines.
    """
    if trt not in _LOGGERS:
        _LOGGERS[trt] = _new_logger(trt)
    logger = _LOGGERS[trt]
    logger.lines.clear()
    return logger


def _new_logger(trt: Any) -> Any:
    severities = (
        trt.ILogger.Severity.INTERNAL_ERROR,
        trt.ILogger.Severity.ERROR,
        trt.ILogger.Severity.WARNING,
    )

    class Logger(trt.ILogger):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in severities and _NOISE not in msg:
                self.lines.append(f"{severity.name.lower()}: {msg}")
                del self.lines[:-200]

    return Logger()


def logged(logger: Any) -> str:
    """The end of the log, one line each, to be put behind a message."""
    lines = logger.lines[-20:]
    return "\n".join(["; TensorRT says:", *lines]) if lines else "; TensorRT says nothing more"


def made(make: Callable[[], Any], what: str, logger: Any) -> Any:
    """What a call of TensorRT makes.

    Raises:
        ExportError: It gives None, or pybind11's TypeError in its place.
    """
    try:
        result = make()
    except TypeError as error:
        raise ExportError(f"{what}: {error}{logged(logger)}") from error
    if result is None:
        raise ExportError(f"{what}{logged(logger)}")
    return result
