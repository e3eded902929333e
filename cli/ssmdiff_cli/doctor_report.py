"""Examines a machine: versions, plugins, and each kernel against the float64 reference."""

from __future__ import annotations

import functools
import time
from typing import Any

import torch
from ssmdiff.errors import KernelUnavailableError, SsmdiffError
from ssmdiff.ops import ScanInputs, TorchKernel, load_kernel
from ssmdiff.registry.registry import registry
from ssmdiff.runs.provenance import versions
from ssmdiff.testing.kernel_cases import (
    RESULTS,
    error_of,
    gradient_of_y,
    limit_of,
    make_inputs,
    results,
)


def examine() -> dict[str, Any]:
    """The report of ``ssmdiff doctor`` as plain values; ``ok`` is False if anything is wrong."""
    device = torch.device("cpu")
    if torch.accelerator.is_available():
        device = torch.accelerator.current_accelerator() or device
    name = torch.cuda.get_device_name() if device.type == "cuda" else str(device)
    kernels = [_examine_kernel(kernel, device) for kernel in registry().names("kernel")]
    plugins = [
        {
            "name": plugin.name,
            "status": "broken" if plugin.error else "ok",
            "detail": plugin.error or plugin.source,
        }
        for plugin in registry().plugins
    ]
    conflicts = registry().conflicts()
    wrong = [row for row in (*kernels, *plugins) if row["status"] in ("wrong", "broken")]
    return {
        "ok": not wrong and not conflicts,
        "versions": versions(),
        "device": name,
        "threads": torch.get_num_threads(),
        "kernels": kernels,
        "plugins": plugins,
        "conflicts": conflicts,
    }


def _examine_kernel(name: str, device: torch.device) -> dict[str, str]:
    try:
        return _row(name, device)
    except SsmdiffError as error:
        return {"name": name, "status": "broken", "detail": str(error)}
    except Exception as error:  # what it needs is installed and does not work
        detail = f"{type(error).__name__}: {error}".splitlines()[0]
        return {"name": name, "status": "broken", "detail": detail}


def _row(name: str, device: torch.device) -> dict[str, str]:
    kernel = load_kernel(name)
    reason = kernel.unavailable(device, torch.float32)
    if reason:
        return {"name": name, "status": "not here", "detail": reason}
    largest, where, refused, wrong = -1.0, "", "", False
    for inputs in _probes():
        grad_y = gradient_of_y(inputs)
        here = inputs.to(device)
        try:
            got = results(kernel, here, grad_y.to(device))
        except KernelUnavailableError as error:
            refused = f"; {error}"
            continue
        expected = results(TorchKernel(), inputs.to("cpu", torch.float64), grad_y.double())
        for result in RESULTS:
            g, e = got[result], expected[result]
            what = f"{'' if result == 'y' else 'd'}{result}, {inputs.discretization}"
            if g is None or e is None:
                return {"name": name, "status": "wrong", "detail": f"{what} is missing"}
            relative = error_of(result, g, e)
            wrong |= not relative <= limit_of(result, g.dtype)
            if not relative <= largest:
                largest, where = relative, what
    if not where:
        return {"name": name, "status": "not here", "detail": refused.removeprefix("; ")}
    return {
        "name": name,
        "status": "wrong" if wrong else "ok",
        "detail": f"largest relative error {largest:.1e} ({where}); "
        f"{_timing(kernel, device)}{refused}",
    }


def _probes() -> list[ScanInputs]:
    """Both discretisations with restarts, and the plain case that every kernel has; odd shapes."""
    made = functools.partial(make_inputs, (2, 35, 19, 3, 5))
    probes = made(), made(discretization="zoh"), made(restarts=False)
    return [inputs.to("cpu", torch.float32) for inputs in probes]


def _timing(kernel: Any, device: torch.device) -> str:
    """Forward time at a small common shape; the first call, which may compile, is not counted."""
    inputs = make_inputs((2, 256, 64, 4, 16), restarts=False).to(device, torch.float32)
    times_s = []
    for _ in range(4):
        start_s = time.perf_counter()
        kernel.forward(inputs)
        if device.type != "cpu":
            torch.accelerator.synchronize()
        times_s.append(time.perf_counter() - start_s)
    return f"forward {min(times_s[1:]) * 1000:.2f} ms at B=2, K=4, L=256, D=64, N=16"
