"""What our plugin names of ``tensorrt.plugin`` when it is imported, and nothing that it does.

NVIDIA's own package checks and runs the plugin in test_trt_real.py; over the stub it is registered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

QDP_REGISTRY: dict[str, dict[str, Any]] = {}


class TensorDesc: ...


class AutoTuneCombination: ...


class KernelLaunchParams: ...


class SymIntExprs: ...


def register(plugin_id: str, lazy_register: bool = False) -> Callable[..., Any]:
    if plugin_id in QDP_REGISTRY:
        raise ValueError(f"{plugin_id} is registered already")
    return _noted(QDP_REGISTRY.setdefault(plugin_id, {}), "register")


def autotune(plugin_id: str) -> Callable[..., Any]:
    return _noted(QDP_REGISTRY[plugin_id], "autotune")


def aot_impl(plugin_id: str) -> Callable[..., Any]:
    return _noted(QDP_REGISTRY[plugin_id], "aot_impl")


def _noted(plugin: dict[str, Any], what: str) -> Callable[..., Any]:
    def decorator(function: Callable[..., Any]) -> Callable[..., Any]:
        plugin[what] = function
        return function

    return decorator
