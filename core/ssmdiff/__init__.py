"""ssmdiff: a modular plugin ecosystem for state-space (Mamba) diffusion models.

A *scan* says in which *order* the tokens of a grid are visited; a *block* mixes tokens along that
order with a state space model; a *backbone* stacks blocks into a denoiser; a *noise scheduler*
turns a denoiser into images; a *kernel* makes the scan fast.

Most names are imported on first use, so that ``import ssmdiff`` stays light: it needs numpy alone,
so that an exported model is sampled where little else is installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Not on first use: importing the submodule would put the module where the function belongs. That
# module imports pluggy when the registry is first asked for.
from ssmdiff.registry.registry import create, registry

if TYPE_CHECKING:
    from ssmdiff.errors import SsmdiffError as SsmdiffError
    from ssmdiff.networks.interfaces import OrderTensors as OrderTensors
    from ssmdiff.ops import selective_scan as selective_scan
    from ssmdiff.ops import set_kernel as set_kernel
    from ssmdiff.ops import use_kernel as use_kernel
    from ssmdiff.orders.scan_order import OrderPlan as OrderPlan
    from ssmdiff.orders.scan_order import Scan as Scan
    from ssmdiff.orders.scan_order import ScanOrder as ScanOrder
    from ssmdiff.orders.scan_order import ScanSlot as ScanSlot
    from ssmdiff.registry.component import Component as Component
    from ssmdiff.registry.hookspecs import hookimpl as hookimpl
    from ssmdiff.runs.run import load_run as load_run

__version__ = "0.1.0"

_HOMES = {
    "Component": "ssmdiff.registry.component",
    "SsmdiffError": "ssmdiff.errors",
    "hookimpl": "ssmdiff.registry.hookspecs",
    "OrderTensors": "ssmdiff.networks.interfaces",
    "selective_scan": "ssmdiff.ops",
    "set_kernel": "ssmdiff.ops",
    "use_kernel": "ssmdiff.ops",
    "OrderPlan": "ssmdiff.orders.scan_order",
    "Scan": "ssmdiff.orders.scan_order",
    "ScanOrder": "ssmdiff.orders.scan_order",
    "ScanSlot": "ssmdiff.orders.scan_order",
    "load_run": "ssmdiff.runs.run",
}

__all__ = [*_HOMES, "__version__", "create", "registry"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ssmdiff' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
