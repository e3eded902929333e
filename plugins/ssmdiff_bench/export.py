"""The ways of ``ssmdiff bench sample`` that run an exported file; their workers import no torch."""

from __future__ import annotations

import functools
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssmdiff import SsmdiffError, create, job

from ssmdiff_bench.worker import Case, Job, Way

if TYPE_CHECKING:
    from ssmdiff_bench.sample import Draw


def export_ways(
    run: Path, checkpoint: str, draw: Draw, folder: Path, progress: bool = False
) -> list[Way]:
    """ONNX Runtime plain, with chunks, with our op, and on a GPU; files go into ``folder``."""
    path, chunked = folder / "model.onnx", folder / "chunked.onnx"
    if progress:
        print("exporting the run", file=sys.stderr)
    absent = _export(run, checkpoint, path)
    in_chunks = absent or _export(run, checkpoint, chunked, body="chunked")
    library: Path | None = None
    without = absent
    if absent is None:
        try:
            library = job("export").ort_library()
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


def _export(run: Path, checkpoint: str, path: Path, to: str = "onnx", **options: Any) -> str | None:
    """Write the file, or say why it cannot be written."""
    try:
        # Not verified here: the benchmark tells how far its images are from torch's.
        job("export")(run, path, to, checkpoint=checkpoint, verify=False, **options)
    except SsmdiffError as error:
        return f"the run cannot be exported: {error}"
    return None


def _engine_way(run: Path, checkpoint: str, draw: Draw, path: Path) -> Way:
    """An engine for this machine's GPU, built here where TensorRT is; it has not been."""
    sizes = [1, min(draw.n, draw.batch_size), draw.batch_size]
    absent = _export(run, checkpoint, path, "tensorrt", batch=sizes)
    return Way("tensorrt", functools.partial(_load_engine, path, draw), absent)


def _load_engine(path: Path, draw: Draw, case: Case) -> Job:
    """In the worker: the engine behind torch's sampling loop."""
    import torch

    start_s = time.perf_counter()
    model = create("exporter", "tensorrt").open(path)
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
    start_s = time.perf_counter()
    sampler = job("export").onnx_sampler(path, provider, library)
    return Job(
        lambda: sampler.sample(**draw.arguments()),
        device="cpu" if provider == "cpu" else "none",
        facts={"load_s": round(time.perf_counter() - start_s, 3)},
        output=lambda images: images,
    )
