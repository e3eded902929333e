"""``ssmdiff export RUN --to tensorrt``: an engine for this machine, compared with torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from ssmdiff import ConfigError, ExportError, ExportPrecision, ExportRequest, ExportResult, Run

from ssmdiff_export.model_file import BATCH, BatchSizes, FileModel, need_onnx
from ssmdiff_export.runtime.card import METADATA, ModelCard
from ssmdiff_export.tensorrt.binding import load_tensorrt
from ssmdiff_export.tensorrt.builder import Batch, Build, build_engine
from ssmdiff_export.tensorrt.cache import Engine, EngineCache, EngineKey, default_folder
from ssmdiff_export.tensorrt.device import Cuda, Device
from ssmdiff_export.tensorrt.runtime import EngineDenoiser, load_engine
from ssmdiff_export.verify import (
    CASES,
    Case,
    Comparison,
    compare,
    comparison_text,
    draft_folder,
    publish,
    refuse_to_replace,
)

SUFFIXES = (".engine", ".plan")
GIBIBYTE = 1 << 30
Gibibytes = Annotated[float, Field(gt=0, le=1024)]


@dataclass(frozen=True)
class Made:
    """An engine, how it was come by, and how it compares."""

    engine: Engine
    denoiser: EngineDenoiser
    build: Build | None
    """None: it was in the cache."""
    parity: Comparison | None


class TensorRTExporter:
    """Writes an engine, and tells the user's engine cache that it was built here.

    Args:
        batch: Fewest, usual and most images of a call; the engine is tuned for the usual.
        workspace_gb: Memory in GiB that TensorRT may use for temporary tensors.
    """

    suffixes = SUFFIXES

    def __init__(self, batch: BatchSizes = BATCH, workspace_gb: Gibibytes = 4.0) -> None:
        self.batch = batch
        self.workspace_bytes = int(workspace_gb * GIBIBYTE)

    def export(self, request: ExportRequest) -> ExportResult:
        """Build, or take from the cache, compare with torch, write.

        Raises:
            ConfigError: The file is there already, or has another suffix.
            ExportError: TensorRT or a GPU is missing, the model cannot be built, or the engine
                does not agree with torch; nothing is written.
        """
        refuse_to_replace(request.out, request.overwrite)
        if request.out.suffix not in SUFFIXES:
            raise ConfigError(
                f"--out {request.out}: an engine's name ends with {' or '.join(SUFFIXES)}"
            )
        need_onnx()
        load_tensorrt()
        device, cache = Cuda(), EngineCache()
        with draft_folder(request.out) as folder:
            made = make_engine(
                request.run,
                folder,
                device,
                cache,
                precision=request.precision,
                batch=self.batch,
                workspace_bytes=self.workspace_bytes,
                verify=request.verify,
                progress=request.progress,
            )
            (folder / request.out.name).write_bytes(made.engine.plan)
            files = publish(folder, request.out, with_data=False)
        return ExportResult(files, tuple(describe(made, request.out, cache)))

    def recognises(self, path: Path) -> bool:
        """Whether it is an engine that this user built on this machine: others are native code of
        a stranger, and nothing in them is to be believed."""
        if not path.is_file() or not default_folder().is_dir():
            return False
        try:
            return EngineCache().knows(path)
        except ExportError:
            return False

    def open(self, path: Path) -> FileModel:
        """An engine behind torch's sampling loop; see :func:`~.runtime.load_engine`."""
        engine = load_engine(path)
        card = ModelCard.from_json(json.dumps(engine.card))
        device = torch.device(engine.device.torch_device)
        return FileModel(card, engine, {"file": path.name, "provider": "engine"}, device)


def make_engine(
    run: Run,
    folder: Path,
    device: Device,
    cache: EngineCache,
    *,
    precision: ExportPrecision,
    batch: Batch,
    workspace_bytes: int = 4 * GIBIBYTE,
    verify: bool = True,
    progress: bool = False,
) -> Made:
    """The engine of a model, by way of an ONNX file in ``folder``; kept in the cache.

    Raises:
        ExportError: The model cannot be built, or the engine does not agree with torch; it is not
            kept then.
    """
    from ssmdiff_export.onnx_export import export_onnx
    from ssmdiff_export.parser_rules import check_parser_rules

    model = folder / "model.onnx"
    export_onnx(run, model, precision=precision, verify=verify, progress=progress)
    check_parser_rules(model)
    trt = load_tensorrt()
    machine = device.machine(trt.__version__)
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    key = EngineKey(digest, precision, batch, workspace_bytes, machine)
    engine, build = cache.get(key), None
    if engine is None:
        build = build_engine(
            model,
            batch,
            precision=precision,
            workspace_bytes=workspace_bytes,
            timing_cache=cache.timing_cache(machine),
            progress=progress,
        )
        engine = cache.put(key, build.plan, model_card(model))
    try:
        denoiser = EngineDenoiser(engine, device)
        parity = None
        if verify:
            parity = compare(run, denoiser.run, precision, "the engine", cases=_cases(batch))
    except ExportError:
        cache.remove(key)
        raise
    return Made(engine, denoiser, build, parity)


def model_card(model: Path) -> dict[str, Any]:
    """The card in the metadata of an ONNX file of ours.

    Raises:
        ExportError: It has none.
    """
    import onnx

    properties = onnx.load(model, load_external_data=False).metadata_props
    found = {entry.key: entry.value for entry in properties}
    if METADATA not in found:
        raise ExportError(f"{model} has no model card; expected a file of ssmdiff export")
    card: dict[str, Any] = json.loads(found[METADATA])
    return card


def describe(made: Made, out: Path, cache: EngineCache) -> list[str]:
    """What was made, for a person."""
    build = made.build
    how = "taken from the cache"
    if build is not None:
        how = f"built in {build.build_s:.0f} s, {build.plugin_layers} scans by the plugin"
    fewest, usual, most = made.denoiser.batch
    return [
        f"engine: {out} ({len(made.engine.plan) / 1e6:.1f} MB, {how})",
        f"batches of {fewest} to {most} images, tuned for {usual}",
        comparison_text(made.parity),
        f"it runs on this machine alone; {cache.folder} vouches for it",
    ]


def _cases(batch: Batch) -> tuple[Case, ...]:
    """The usual comparisons, at batch sizes that the engine takes."""
    fewest, _, most = batch
    return tuple(
        Case(case.seed, case.order_seed, min(max(case.batch, fewest), most)) for case in CASES
    )
