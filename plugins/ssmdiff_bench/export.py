"""The ways of ``ssmdiff bench sample`` that run an exported file; their workers import no torch."""

from __future__ import annotations

import functools
import importlib.util
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssmdiff import SsmdiffError

from ssmdiff_bench.worker import Case, Job, Way

if TYPE_CHECKING:
    from ssmdiff import ScanBody

    from ssmdiff_bench.sample import Draw

GET = "try: pip install 'ssmdiff[onnx]'"


def export_ways(run: Path, checkpoint: str, draw: Draw, folder: Path) -> list[Way]:
    """ONNX Runtime plain, with chunks, with our op, and on a GPU; files go into ``folder``."""
    path, chunked = folder / "model.onnx", folder / "chunked.onnx"
    absent: str | None
    in_chunks: str | None
    missing = [m for m in ("onnx", "onnxscript", "onnxruntime") if not importlib.util.find_spec(m)]
    if missing:
        absent = in_chunks = f"the package {missing[0]} is not installed; {GET}"
    else:
        absent = _export(run, checkpoint, path, "scan")
        in_chunks = absent or _export(run, checkpoint, chunked, "chunked")
    library: Path | None = None
    without = absent
    if absent is None:
        try:
            from ssmdiff_export.ort_library.build import library as build

            library = build()
        except SsmdiffError as error:
            without = str(error)

    def way(
        name: str, provider: str, library: Path | None, absent: str | None, file: Path = path
    ) -> Way:
        return Way(name, functools.partial(_load, file, provider, library, draw), absent)

    return [
        way("onnx", "cpu", None, absent),
        way("onnx-chunked", "cpu", None, in_chunks, chunked),
        way("onnx-library", "cpu", library, without),
        way("onnx-cuda", "cuda", None, absent or _no_provider("CUDAExecutionProvider")),
        way("onnx-tensorrt", "tensorrt", None, absent or _no_provider("TensorrtExecutionProvider")),
        _engine_way(run, checkpoint, draw, folder / "model.engine"),
    ]


def _export(run: Path, checkpoint: str, path: Path, body: ScanBody) -> str | None:
    """Write the file, or say why it cannot be written."""
    from ssmdiff import load_run
    from ssmdiff_export.onnx_export import export_onnx

    try:
        # Not verified here: the benchmark tells how far its images are from torch's.
        export_onnx(load_run(run, checkpoint), path, body=body, verify=False)
    except SsmdiffError as error:
        return f"the run cannot be exported: {error}"
    return None


def _engine_way(run: Path, checkpoint: str, draw: Draw, path: Path) -> Way:
    """An engine for this machine's GPU, built here where TensorRT is; it has not been."""
    from ssmdiff import ExportRequest, create, load_run

    absent = None
    try:
        sizes = (1, min(draw.n, draw.batch_size), draw.batch_size)
        request = ExportRequest(load_run(run, checkpoint), path, batch=sizes, verify=False)
        create("exporter", "tensorrt").export(request)
    except SsmdiffError as error:
        absent = str(error)
    return Way("tensorrt", functools.partial(_load_engine, path, draw), absent)


def _load_engine(path: Path, draw: Draw, case: Case) -> Job:
    """In the worker: the engine behind torch's sampling loop."""
    import torch
    from ssmdiff_export.model_file import open_model

    start_s = time.perf_counter()
    model = open_model(path)
    return Job(
        lambda: model.sample(**draw.arguments()),
        device="cuda",
        synchronize=torch.cuda.synchronize,
        facts={"load_s": round(time.perf_counter() - start_s, 3)},
        output=lambda images: images.numpy(),
    )


def _no_provider(name: str) -> str | None:
    import onnxruntime

    if name in onnxruntime.get_available_providers():
        return None
    return (
        f"this ONNX Runtime has no {name}; try: pip install onnxruntime-gpu, on a machine with it"
    )


def _load(path: Path, provider: str, library: Path | None, draw: Draw, case: Case) -> Job:
    """In the worker: a session, and a call that draws from it."""
    from ssmdiff_export.runtime import OnnxSampler

    start_s = time.perf_counter()
    sampler: Any = OnnxSampler(path, provider=provider, library=library)
    return Job(
        lambda: sampler.sample(**draw.arguments()),
        device="cpu" if provider == "cpu" else "none",
        facts={"load_s": round(time.perf_counter() - start_s, 3)},
        output=lambda images: images,
    )
