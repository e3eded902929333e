"""A model in one file: the targets ``onnx`` and ``pt2``, which write it, and what they open.

An opened file is a model on torch tensors, so that every noise scheduler of the registry draws from
it. Where torch is not installed, :class:`ssmdiff_export.runtime.OnnxSampler` draws the same images.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator
from ssmdiff import (
    ConfigError,
    ExportRequest,
    ExportResult,
    NoiseScheduler,
    SamplingSettings,
    TorchDenoiser,
    create_scheduler,
    refuse_other_process,
    registry,
)
from torch import Tensor

from ssmdiff_export.runtime.card import METADATA, ModelCard, ScanBody
from ssmdiff_export.runtime.sampler import CardModel, OnnxSampler

Predict = Callable[[Mapping[str, Tensor]], Tensor]
"""The graph's inputs by name to the prediction."""


class FileModel(CardModel[Tensor]):
    """A trained model in a file; draws as :class:`ssmdiff.Run` does.

    Args:
        card: What the file says about itself.
        predict: Calls the network.
        origin: What the file is, for the record beside the images.
        device: Where its tensors live; the CPU by default.
    """

    def __init__(
        self,
        card: ModelCard,
        predict: Predict,
        origin: Mapping[str, Any],
        device: torch.device | None = None,
    ) -> None:
        self.card, self.predict, self.device = card, predict, device
        self._origin = dict(origin)

    def origin(self) -> dict[str, Any]:
        """The file and its agreement with torch, as JSON."""
        return {**self._origin, **super().origin()}

    def sampling(
        self,
        scheduler: str | Mapping[str, Any] | None = None,
        steps: int | None = None,
        seed: int = 0,
        label: int | str | None = None,
    ) -> SamplingSettings:
        """What was asked for, over the model's own; any scheduler of the registry, all its options.

        Raises:
            ConfigError: There is no such scheduler, it is of another process, or it has no such
                option.
        """
        asked = super().sampling(scheduler, steps, seed, label)
        if self.card.latent is not None:
            return asked
        refuse_other_process(asked.scheduler["name"], self.card.walk.of)
        table = registry().options("scheduler", asked.scheduler)
        return dataclasses.replace(asked, scheduler=table)

    def new_scheduler(self, table: Mapping[str, Any]) -> NoiseScheduler:
        """A noise scheduler over the process that was trained."""
        if self.card.latent is not None:
            return super().new_scheduler(table)
        return create_scheduler(table, self.card.walk.of, **self.card.walk.wired())

    def joined(self, batches: Sequence[Tensor]) -> Tensor:
        """On the CPU."""
        return torch.cat([images.cpu() for images in batches])

    def denoiser(self) -> TorchDenoiser:
        """The network of the file."""
        names = [slot.order for slot in self.card.slots if slot.order is not None]

        def denoise(
            x: Tensor, timesteps: Tensor, orders: Sequence[Tensor], labels: Tensor | None = None
        ) -> Tensor:
            inputs = {"x": x}
            if self.card.latent is None:
                inputs["timesteps"] = timesteps
            if labels is not None:
                inputs["context"] = labels
            inputs |= dict(zip(names, orders, strict=True))
            return self.predict(inputs)

        return TorchDenoiser(denoise, self.device)


def open_onnx(path: Path, provider: str = "cpu", library: Path | None = None) -> FileModel:
    """An ONNX file of ours, ready to sample.

    Args:
        path: Written by ``ssmdiff export``.
        provider: Of ONNX Runtime: ``cpu``, ``cuda`` or ``tensorrt``.
        library: Our operator as a shared library for ONNX Runtime.

    Raises:
        ConfigError: What the file needs is not installed here.
        ExportError: The file is damaged, foreign, or not one that may be opened.
    """
    sampler = OnnxSampler(path, provider, library)

    def predict(inputs: Mapping[str, Tensor]) -> Tensor:
        return torch.from_numpy(sampler.run({k: v.numpy() for k, v in inputs.items()}))

    origin = {
        "file": path.name,
        "file_sha256": sampler.report.sha256(),
        "provider": provider,
        "library": library is not None,
    }
    return FileModel(sampler.card, predict, origin)


Sizes = tuple[int, int, int]


def _in_order(sizes: Sizes) -> Sizes:
    if not 0 < sizes[0] <= sizes[1] <= sizes[2]:
        raise ValueError("expected the fewest, usual and most images of a call, such as [1, 8, 64]")
    return sizes


BatchSizes = Annotated[Sizes, AfterValidator(_in_order)]
"""The type of an option: fewest, usual and most images of a call of the network."""
BATCH: Sizes = (1, 8, 64)


class OnnxExporter:
    """Writes one ONNX file, and a file of weights beside it above 1 GB.

    Args:
        body: How the scan is computed where our operator is not installed; ``linear-attention``
            puts an operator of ONNX's opset 27 in the place of ours.
        check_tensorrt: Build an engine with the TensorRT that is installed, and drop it; without
            one, hold every node against a table of what its parser takes.
    """

    suffixes = (".onnx",)

    def __init__(self, body: ScanBody = "scan", check_tensorrt: bool = False) -> None:
        self.body, self.check_tensorrt = body, check_tensorrt

    def export(self, request: ExportRequest) -> ExportResult:
        """See :func:`ssmdiff_export.onnx_export.export_onnx`."""
        need_onnx()
        from ssmdiff_export.onnx_export import export_onnx

        report = export_onnx(
            request.run,
            request.out,
            precision=request.precision,
            body=self.body,
            verify=request.verify,
            progress=request.progress,
            overwrite=request.overwrite,
            fuse=True,
        )
        lines = list(report.lines)
        if self.check_tensorrt:
            from ssmdiff_export.tensorrt.check import check_tensorrt

            lines.append(check_tensorrt(request.out, request.precision, request.progress))
        return ExportResult(report.files, tuple(lines))

    def recognises(self, path: Path) -> bool:
        """Whether it begins as a model of ONNX: its version, then who made it."""
        head = _head(path, 3)
        # Fields 1, a number below 128, and 2: ir_version and producer_name.
        return len(head) == 3 and head[0] == 0x08 and head[1] < 0x80 and head[2] == 0x12

    def open(self, path: Path, provider: str = "cpu", ort_library: Path | None = None) -> FileModel:
        """See :func:`open_onnx`."""
        return open_onnx(path, provider, ort_library)


class Pt2Exporter:
    """Writes one torch.export archive."""

    suffixes = (".pt2",)

    def export(self, request: ExportRequest) -> ExportResult:
        """See :func:`ssmdiff_export.pt2.export_pt2`."""
        from ssmdiff_export.generators import refuse_generator
        from ssmdiff_export.pt2 import export_pt2

        refuse_generator(request.run, "pt2")

        report = export_pt2(
            request.run,
            request.out,
            precision=request.precision,
            verify=request.verify,
            progress=request.progress,
            overwrite=request.overwrite,
        )
        return ExportResult((report.path,), report.lines)

    def recognises(self, path: Path) -> bool:
        """Whether it is an archive with a model card of ours."""
        if _head(path, 4) != b"PK\3\4":
            return False
        try:
            with zipfile.ZipFile(path) as archive:
                return any(name.endswith(f"/extra/{METADATA}") for name in archive.namelist())
        except (OSError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile):
            return False

    def open(self, path: Path, kernel: str = "auto") -> FileModel:
        """See :func:`ssmdiff_export.pt2.open_pt2`."""
        from ssmdiff_export.pt2 import open_pt2

        return open_pt2(path, kernel)


def need_onnx() -> None:
    """Check that what an ONNX file is made with is installed.

    Raises:
        ConfigError: It is not, or it does not work.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"export to ONNX needs {package}, which is not installed. "
                "Try: pip install 'ssmdiff[onnx]'"
            )
        try:
            importlib.import_module(package)
        except Exception as error:  # one built for another numpy, say
            raise ConfigError(
                f"export to ONNX needs {package}, which is installed and does not work "
                f"({type(error).__name__}: {error})"
            ) from error


def _head(path: Path, size: int) -> bytes:
    """The first bytes of a regular file; none of anything else."""
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(size)
    except (OSError, ValueError):
        return b""
