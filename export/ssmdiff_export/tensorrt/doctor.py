"""``ssmdiff doctor --tensorrt``: does the whole path hold on this machine? A report to send.

Of each TensorRT that is installed, the one command makes tiny models, exports them, builds engines,
compares them with torch and times them. Where the engines of TensorRT for RTX cannot run, it builds
them all the same, and says how far it came.
"""

from __future__ import annotations

import contextlib
import json
import platform
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ssmdiff import (
    ExportError,
    ExportPrecision,
    Run,
    RunFolder,
    SsmdiffError,
    build_backbone,
    load_run,
    resolve,
    versions,
    write_atomically,
)

from ssmdiff_export.tensorrt.binding import PRODUCTS, Product, load_tensorrt
from ssmdiff_export.tensorrt.cache import EngineCache
from ssmdiff_export.tensorrt.device import Cuda, Device, Machine
from ssmdiff_export.tensorrt.exporter import (
    CAPABILITIES,
    Made,
    for_cards,
    here_if_it_fits,
    make_engine,
)
from ssmdiff_export.tensorrt.runtime import EngineDenoiser
from ssmdiff_export.tracing import GraphInputs
from ssmdiff_export.verify import Case, case_inputs, reference

FORMAT = 2
BATCH = (1, 4, 8)
# Both operators and every type of the kernel.
TRIALS: tuple[tuple[str, ExportPrecision], ...] = (
    ("euler", "fp32"),
    ("euler", "fp16"),
    ("zoh", "fp32"),
    ("zoh", "fp16"),
    ("zoh", "bf16"),
)


def examine_tensorrt(report: Path, device: Device | None = None) -> dict[str, Any]:
    """Try everything and write the report, also when something fails.

    Args:
        report: The JSON file to write.
        device: Of TensorRT; the first GPU by default.

    Returns:
        The report; ``ok`` is True if every trial built, and agreed with torch where it ran.

    Raises:
        ExportError: No TensorRT can build here; there is nothing to report.
        CheckpointError: The report cannot be written.
    """
    examined, absent = [], []
    for product in PRODUCTS.values():
        try:
            version = load_tensorrt(product).__version__
            place = _place(product, version, device)
        except ExportError as error:
            absent.append(str(error))
            continue
        examined.append(_examine(product, version, *place))
    if not examined:
        raise ExportError("\n".join(absent))
    document = {
        "format": FORMAT,
        "ok": all(trial["status"] != "failed" for e in examined for trial in e["trials"]),
        "python": platform.python_version(),
        "versions": versions(),
        "products": examined,
        "absent": absent,
    }
    write_atomically(report, (json.dumps(document, indent=2) + "\n").encode())
    return document


def _place(
    product: Product, version: str, device: Device | None
) -> tuple[Device | None, Machine, str]:
    """A device, the machine to build for, and why nothing runs here if so.

    Raises:
        ExportError: The product builds for a GPU, and there is none.
    """
    if not product.capabilities:
        device = device or Cuda()
        return device, device.machine(version, product.target), ""
    served = CAPABILITIES
    with contextlib.suppress(ExportError):  # why there is no GPU is asked again, and told
        here = Cuda().machine(version, product.target).capability
        served = here if here in product.capabilities else served
    machine = for_cards(version, served)
    fitting, elsewhere = here_if_it_fits(machine)
    return fitting, machine, elsewhere


def _examine(
    product: Product, version: str, device: Device | None, machine: Machine, elsewhere: str
) -> dict[str, Any]:
    trials = []
    with tempfile.TemporaryDirectory(prefix="ssmdiff-doctor-") as folder:
        # An empty cache of its own: the doctor builds, and leaves nothing behind.
        cache = EngineCache(Path(folder) / "cache")
        for discretization, precision in TRIALS:
            name = f"{discretization}-{precision}"
            place = Path(folder) / name
            place.mkdir()
            trial = _trial(place, device, machine, cache, discretization, precision)
            trials.append({"name": name} | trial)
    return {
        "product": product.target,
        "title": product.title,
        "version": version,
        "machine": vars(machine),
        "not_run": elsewhere or None,
        "trials": trials,
    }


def _trial(
    folder: Path,
    device: Device | None,
    machine: Machine,
    cache: EngineCache,
    discretization: str,
    precision: ExportPrecision,
) -> dict[str, Any]:
    try:
        run = tiny_run(folder / "run", discretization)
        if device is not None:
            run.to(device.torch_device)
        made = make_engine(
            run, folder, device, cache, precision=precision, batch=BATCH, machine=machine
        )
        if made.build is None or made.parity is None or made.parity.blank:
            raise ExportError("the engine was not built anew, or not compared with anything")
        return {
            "status": "built" if device is None else "ok",
            "build_s": round(made.build.build_s, 2),
            "layers": made.build.layers,
            "plugin_layers": made.build.plugin_layers,
            "engine_bytes": len(made.engine.plan),
            "parity": vars(made.parity),
            "parity_of": "the ONNX file" if device is None else "the engine",
            "log": list(made.build.log),
        } | (_ran(run, made, device) if device is not None else {})
    except SsmdiffError as error:
        return {"status": "failed", "error": str(error)}
    except Exception as error:  # TensorRT's own kinds: the report is for finding out
        return {
            "status": "failed",
            "error": f"{type(error).__name__}: {error}",
            "traceback": traceback.format_exc(),
        }


def _ran(run: Run, made: Made, device: Device) -> dict[str, Any]:
    """What is known of an engine that runs here."""
    assert made.denoiser is not None  # it has a device
    return {
        "device_memory_bytes": made.denoiser.device_memory_bytes,
        "milliseconds": _times(run, made.denoiser, device),
    }


def tiny_run(folder: Path, discretization: str, widths: tuple[int, ...] = (1, 2)) -> Run:
    """A run of an untrained model with random orders, N = 16, in as many resolutions as widths.

    Its weights are all drawn: a fresh model predicts 0 everywhere, and 0 proves nothing.
    """
    config = resolve(
        {
            "data": {"image_size": 16},
            "model": {
                "backbone": {
                    "name": "vmddpm",
                    "channels": 32,
                    "widths": list(widths),
                    "layers": 1,
                    "stem_stride": 1,
                },
                "block": {"name": "mss", "state": 16, "discretization": discretization},
                "scan": {"name": "regenerate"},
            },
        }
    )
    generator = torch.Generator().manual_seed(0)
    model = build_backbone(config, 1)
    for parameter in model.parameters():
        if not parameter.any():
            parameter.data.normal_(std=0.05, generator=generator)
    run = RunFolder(folder)
    run.create(config)
    state = {"channels": 1, "class_names": []}
    run.save_checkpoint(1, {"ema": model.state_dict()}, state)
    return load_run(folder)


def _times(run: Run, denoiser: EngineDenoiser, device: Device) -> dict[str, float]:
    """Milliseconds of one call at the usual batch size, from arrays to an array."""
    interface, case = GraphInputs.of(run), Case(0, 0, BATCH[1])
    arrays = case_inputs(run, interface, case)
    return {
        "engine": _median_ms(lambda: denoiser.run(arrays), device),
        "torch": _median_ms(lambda: reference(run, interface, case, arrays), device),
    }


def _median_ms(call: Callable[[], Any], device: Device, times: int = 20) -> float:
    measured_s = []
    for i in range(times + 3):
        start_s = time.perf_counter()
        call()
        device.synchronize()
        if i >= 3:  # the first calls warm up
            measured_s.append(time.perf_counter() - start_s)
    return round(sorted(measured_s)[times // 2] * 1000, 4)
