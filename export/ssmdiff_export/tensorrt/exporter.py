"""``ssmdiff export RUN --to tensorrt`` and ``--to tensorrt-rtx``: an engine, compared with torch.

``tensorrt`` builds for this machine's GPU. ``tensorrt-rtx`` builds for cards by their capability,
with one here or without; what cannot run here is compared as far as its ONNX file.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator, Field
from ssmdiff import ConfigError, ExportError, ExportPrecision, ExportRequest, ExportResult, Run

from ssmdiff_export.generators import refuse_generator
from ssmdiff_export.model_file import BATCH, BatchSizes, FileModel, need_onnx
from ssmdiff_export.runtime.card import METADATA, ModelCard
from ssmdiff_export.tensorrt.binding import PRODUCTS, RTX, TENSORRT, load_tensorrt
from ssmdiff_export.tensorrt.builder import Batch, Build, build_engine
from ssmdiff_export.tensorrt.cache import Engine, EngineCache, EngineKey, default_folder
from ssmdiff_export.tensorrt.device import ANY, Cuda, Device, Machine
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

GIBIBYTE = 1 << 30
Gibibytes = Annotated[float, Field(gt=0, le=1024)]


def _capabilities(value: Any) -> Any:
    """``8.6,12.0``, ``8.6`` (a number to TOML) or a list of either, as text in order."""
    values = value if isinstance(value, list | tuple) else [value]
    asked = {part.strip() for v in values for part in str(v).split(",")}
    if not asked <= set(RTX.capabilities):
        raise ValueError(
            f"{RTX.title} builds for cards of capability {', '.join(RTX.capabilities)}; "
            f"got {', '.join(sorted(asked - set(RTX.capabilities)))}"
        )
    return ",".join(sorted(asked, key=RTX.capabilities.index))


Capabilities = Annotated[str, BeforeValidator(_capabilities)]
"""The type of an option: capabilities of cards, with commas between them."""
CAPABILITIES = "8.6,8.9,12.0"
"""GeForce RTX 30, 40 and 50, and the workstation cards of their generations."""


@dataclass(frozen=True)
class Made:
    """An engine, how it was come by, and how it compares."""

    engine: Engine
    denoiser: EngineDenoiser | None
    """None: it does not run on this machine."""
    build: Build | None
    """None: it was in the cache."""
    parity: Comparison | None


class TensorRTExporter:
    """Writes an engine for this machine's GPU, and notes in the user's engine cache that it was
    built here.

    Args:
        batch: Fewest, usual and most images of a call; the engine is tuned for the usual.
        workspace_gb: Memory in GiB that TensorRT may use for temporary tensors.
    """

    product = TENSORRT
    suffixes = TENSORRT.suffixes

    def __init__(self, batch: BatchSizes = BATCH, workspace_gb: Gibibytes = 4.0) -> None:
        self.batch = batch
        self.workspace_bytes = int(workspace_gb * GIBIBYTE)

    def export(self, request: ExportRequest) -> ExportResult:
        """Build, or take from the cache, compare with torch, write.

        Raises:
            ConfigError: The file is there already, or has another suffix.
            ExportError: What it needs is missing, the model cannot be built, or the engine does not
                agree with torch; nothing is written.
        """
        refuse_to_replace(request.out, request.overwrite)
        if request.out.suffix not in self.suffixes:
            raise ConfigError(
                f"--out {request.out}: an engine's name ends with {' or '.join(self.suffixes)}"
            )
        need_onnx()
        refuse_generator(request.run, "tensorrt")
        version = load_tensorrt(self.product).__version__
        device, machine, elsewhere = self._place(version)
        cache = EngineCache()
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
                machine=machine,
            )
            (folder / request.out.name).write_bytes(made.engine.plan)
            files = publish(folder, request.out, with_data=False)
        return ExportResult(files, tuple(describe(made, request.out, cache, elsewhere)))

    def _place(self, version: str) -> tuple[Device | None, Machine, str]:
        """Where the engine is tried, for which machine it is built, and why not here if so."""
        device = Cuda()
        return device, device.machine(version), ""

    def recognises(self, path: Path) -> bool:
        """Whether it is an engine that this user built on this machine: others are native code of
        a stranger, and nothing in them is to be believed."""
        if not path.is_file() or not default_folder().is_dir():
            return False
        try:
            return EngineCache().knows(path) == self.product
        except ExportError:
            return False

    def open(self, path: Path) -> FileModel:
        """An engine behind torch's sampling loop; see :func:`~.runtime.load_engine`."""
        engine = load_engine(path, product=self.product)
        card = ModelCard.from_json(json.dumps(engine.card))
        device = torch.device(engine.device.torch_device)
        return FileModel(card, engine, {"file": path.name, "provider": "engine"}, device)


class RtxExporter(TensorRTExporter):
    """Writes an engine of TensorRT for RTX, which needs no GPU here.

    Args:
        batch: Fewest, usual and most images of a call; the engine is tuned for the usual.
        workspace_gb: Memory in GiB that the engine may use for temporary tensors.
        capability: Of the cards that it is for, such as ``8.6,8.9,12.0``.
    """

    product = RTX
    suffixes = RTX.suffixes

    def __init__(
        self,
        batch: BatchSizes = BATCH,
        workspace_gb: Gibibytes = 4.0,
        capability: Capabilities = CAPABILITIES,
    ) -> None:
        super().__init__(batch, workspace_gb)
        self.capability = capability

    def _place(self, version: str) -> tuple[Device | None, Machine, str]:
        machine = for_cards(version, self.capability)
        device, elsewhere = here_if_it_fits(machine)
        return device, machine, elsewhere


def for_cards(version: str, capability: str) -> Machine:
    """What an engine of TensorRT for RTX is bound to."""
    return Machine(version, ANY, capability, ANY, RTX.target)


def here_if_it_fits(machine: Machine) -> tuple[Device | None, str]:
    """This machine's GPU if an engine for ``machine`` runs on it, or None and why not."""
    try:
        device = Cuda()
        different = machine.differences(device.machine(machine.tensorrt, machine.product))
    except ExportError as error:
        return None, str(error)
    return (None, "; ".join(different)) if different else (device, "")


def make_engine(
    run: Run,
    folder: Path,
    device: Device | None,
    cache: EngineCache,
    *,
    precision: ExportPrecision,
    batch: Batch,
    workspace_bytes: int = 4 * GIBIBYTE,
    verify: bool = True,
    progress: bool = False,
    machine: Machine | None = None,
) -> Made:
    """The engine of a model, by way of an ONNX file in ``folder``; kept in the cache.

    Args:
        run: The model.
        folder: For the ONNX file.
        device: Where the engine is compared with torch; None where it cannot run here.
        cache: Which vouches for it from then on.
        precision: Of weights and activations.
        batch: Fewest, usual and most images of a call.
        workspace_bytes: For temporary tensors.
        verify: Compare the file with torch, and the engine where it runs.
        progress: Show what is done.
        machine: What the engine is for; the device's by default.

    Raises:
        ExportError: The model cannot be built, or the engine does not agree with torch; it is not
            kept then.
    """
    from ssmdiff_export.onnx_export import export_onnx

    model = folder / "model.onnx"
    report = export_onnx(run, model, precision=precision, verify=verify, progress=progress)
    if machine is None:
        if device is None:
            raise ExportError("an engine is built for a device or for a machine; got neither")
        machine = device.machine(load_tensorrt().__version__)
    product = PRODUCTS[machine.product]
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    key = EngineKey(digest, precision, batch, workspace_bytes, machine)
    engine, build = cache.get(key), None
    if engine is None:
        build = build_engine(
            model,
            batch,
            precision=precision,
            workspace_bytes=workspace_bytes,
            # What is told its cards times nothing.
            timing_cache=None if product.capabilities else cache.timing_cache(machine),
            progress=progress,
            product=product,
            capabilities=tuple(machine.capability.split(",")) if product.capabilities else (),
        )
        engine = cache.put(key, build.plan, model_card(model))
    if device is None:
        return Made(engine, None, build, report.parity)
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


def describe(made: Made, out: Path, cache: EngineCache, elsewhere: str = "") -> list[str]:
    """What was made, for a person.

    Args:
        made: The engine.
        out: Its file.
        cache: Which vouches for it.
        elsewhere: Why it does not run here.
    """
    build, machine = made.build, made.engine.machine
    how = "taken from the cache"
    if build is not None:
        by = f"{build.plugin_layers} scans by the plugin"
        how = f"built in {build.build_s:.0f} s, {by if made.engine.product.plugin else 'no plugin'}"
    fewest, usual, most = made.engine.batch
    lines = [
        f"engine: {out} ({len(made.engine.plan) / 1e6:.1f} MB, {how})",
        f"batches of {fewest} to {most} images, tuned for {usual}",
        comparison_text(made.parity),
    ]
    if made.denoiser is None:
        lines[-1] = f"the ONNX file it was built from {lines[-1]}"
        lines.append(f"the engine itself was not run: {elsewhere}")
    if machine.gpu == ANY:
        lines.append(
            f"it runs on cards of capability {machine.capability} with {made.engine.product.title} "
            f"{machine.tensorrt}; {cache.folder} vouches for it"
        )
    else:
        lines.append(f"it runs on this machine alone; {cache.folder} vouches for it")
    return lines


def _cases(batch: Batch) -> tuple[Case, ...]:
    """The usual comparisons, at batch sizes that the engine takes."""
    fewest, _, most = batch
    return tuple(
        Case(case.seed, case.order_seed, min(max(case.batch, fewest), most)) for case in CASES
    )
