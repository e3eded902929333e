"""``ssmdiff doctor --tensorrt``: does the whole path hold on this machine? A report to send.

TensorRT was not at hand when this package was written. The one command makes tiny models, exports
them, builds engines, compares them with torch and times them, and writes down what it saw.
"""

from __future__ import annotations

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

from ssmdiff_export.tensorrt.binding import load_tensorrt
from ssmdiff_export.tensorrt.cache import EngineCache
from ssmdiff_export.tensorrt.device import Cuda, Device
from ssmdiff_export.tensorrt.exporter import make_engine
from ssmdiff_export.tensorrt.runtime import EngineDenoiser
from ssmdiff_export.tracing import GraphInputs
from ssmdiff_export.verify import Case, case_inputs, reference

FORMAT = 1
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
        device: The first GPU by default.

    Returns:
        The report; ``ok`` is True if every trial built and agreed with torch.

    Raises:
        ExportError: TensorRT or a GPU is missing; there is nothing to report.
        CheckpointError: The report cannot be written.
    """
    trt = load_tensorrt()
    device = device or Cuda()
    machine = device.machine(trt.__version__)
    trials = []
    with tempfile.TemporaryDirectory(prefix="ssmdiff-doctor-") as folder:
        # An empty cache of its own: the doctor builds, and leaves nothing behind.
        cache = EngineCache(Path(folder) / "cache")
        for discretization, precision in TRIALS:
            name = f"{discretization}-{precision}"
            place = Path(folder) / name
            place.mkdir()
            trials.append({"name": name} | _trial(place, device, cache, discretization, precision))
    document = {
        "format": FORMAT,
        "ok": all(trial["status"] == "ok" for trial in trials),
        "machine": vars(machine),
        "python": platform.python_version(),
        "versions": versions(),
        "trials": trials,
    }
    write_atomically(report, (json.dumps(document, indent=2) + "\n").encode())
    return document


def _trial(
    folder: Path,
    device: Device,
    cache: EngineCache,
    discretization: str,
    precision: ExportPrecision,
) -> dict[str, Any]:
    try:
        run = tiny_run(folder / "run", discretization).to(device.torch_device)
        made = make_engine(run, folder, device, cache, precision=precision, batch=BATCH)
        if made.build is None or made.parity is None or made.parity.blank:
            raise ExportError("the engine was not built anew, or not compared with anything")
        return {
            "status": "ok",
            "build_s": round(made.build.build_s, 2),
            "layers": made.build.layers,
            "plugin_layers": made.build.plugin_layers,
            "engine_bytes": len(made.engine.plan),
            "device_memory_bytes": made.denoiser.device_memory_bytes,
            "parity": vars(made.parity),
            "milliseconds": _times(run, made.denoiser, device),
            "log": list(made.build.log),
        }
    except SsmdiffError as error:
        return {"status": "failed", "error": str(error)}
    except Exception as error:  # TensorRT's own kinds: the report is for finding out
        return {
            "status": "failed",
            "error": f"{type(error).__name__}: {error}",
            "traceback": traceback.format_exc(),
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
    model = build_backbone(config, 1, 0)
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
