"""A trained model as a torch.export archive: PyTorch runs it without the code of the model.

The scan stays the operator ``ssmdiff::selective_scan``, which ``import ssmdiff.ops`` registers
with its kernels.

An archive is torch's format and can hold code: pickles, and Python that torch runs when it loads.
So ``ssmdiff sample`` opens those alone that this user wrote on this machine, known by their sha256
as engines are. A model to pass on is an ONNX file.
"""

from __future__ import annotations

import hashlib
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ssmdiff import ExportError, ExportPrecision, Run, set_kernel
from torch import Tensor

from ssmdiff_export.model_file import FileModel
from ssmdiff_export.runtime.card import METADATA, ModelCard
from ssmdiff_export.tensorrt.cache import default_folder, private_folder
from ssmdiff_export.tracing import GraphInputs, card, first_line, quiet, trace
from ssmdiff_export.verify import (
    Arrays,
    Comparison,
    Predict,
    compare,
    comparison_text,
    draft_folder,
    publish,
    refuse_to_replace,
    stages,
)


@dataclass(frozen=True)
class Pt2Report:
    """What was written, and how it compares with torch."""

    path: Path
    parity: Comparison | None
    export_s: float
    unknown: str = ""
    """Why ``ssmdiff sample`` will not open it; empty if it will."""

    @property
    def lines(self) -> tuple[str, ...]:
        """For a person."""
        megabytes = self.path.stat().st_size / 1e6
        lines = (
            f"archive: {self.path} ({megabytes:.1f} MB, {self.export_s:.0f} s)",
            comparison_text(self.parity),
        )
        return (*lines, f"ssmdiff sample will not open it: {self.unknown}")[
            : 2 + bool(self.unknown)
        ]


def export_pt2(
    run: Run,
    path: Path,
    *,
    precision: ExportPrecision = "fp32",
    verify: bool = True,
    progress: bool = False,
    overwrite: bool = False,
) -> Pt2Report:
    """Write a run's model as a ``.pt2`` archive, load it again and compare it with torch.

    The archive is called as ``(x, timesteps, context or None, [random orders])``; see
    :class:`ssmdiff_export.tracing.ExportedModule`. The model card is its extra file ``ssmdiff``.

    Raises:
        ConfigError: The file is there already.
        ExportError: The model cannot be exported, or the archive does not agree with torch;
            nothing is left behind.
    """
    refuse_to_replace(path, overwrite)
    start_s = time.perf_counter()
    with stages(progress) as stage, draft_folder(path) as folder:
        stage("tracing the model")
        interface = GraphInputs.of(run)
        program = trace(run, interface, precision)
        draft = folder / path.name

        def write(parity: Comparison | None) -> None:
            document = card(run, interface, precision, "scan", parity).to_json()
            with quiet():
                torch.export.save(program, draft, extra_files={METADATA: document})

        stage("writing")
        write(None)
        parity = None
        if verify:
            predict = pt2_predict(draft, interface)
            parity = compare(run, predict, precision, path.name, stage)
            write(parity)
        publish(folder, path, with_data=False)
    return Pt2Report(path, parity, time.perf_counter() - start_s, _remember(path))


def open_pt2(path: Path, kernel: str = "auto") -> FileModel:
    """An archive that this user wrote on this machine, ready to sample.

    Args:
        path: Written by ``ssmdiff export RUN --to pt2``.
        kernel: ``auto``, or a kernel by name.

    Raises:
        ExportError: It cannot be read or loaded, is no archive of ours, or was not written here.
    """
    digest = _sha256(path)
    if not (_known_archives() / digest).is_file():
        raise ExportError(
            f"{path} (sha256 {digest[:12]}...) is a torch.export archive that was not written by "
            "this user on this machine, or was changed since. torch runs code that such a file "
            "holds, so it is not opened on trust. Sample from an ONNX file instead: ssmdiff export "
            "RUN --to onnx --out FILE.onnx; or load it yourself: torch.export.load, after "
            "import ssmdiff.ops"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            (entry,) = [n for n in archive.namelist() if n.endswith(f"/extra/{METADATA}")]
            card = ModelCard.from_json(archive.read(entry).decode())
    except (OSError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
        raise ExportError(f"{path} has no model card of ssmdiff: {error}") from error
    set_kernel(kernel)
    module = _load(path)
    orders = [slot.order for slot in card.slots if slot.order is not None]

    @torch.inference_mode()
    def predict(inputs: Mapping[str, Tensor]) -> Tensor:
        prediction: Tensor = module(
            inputs["x"], inputs["timesteps"], inputs.get("context"), [inputs[n] for n in orders]
        )
        return prediction

    return FileModel(card, predict, {"file": path.name, "file_sha256": digest, "provider": "torch"})


def _remember(path: Path) -> str:
    """Note the archive as this user's own; why that could not be done, or nothing."""
    try:
        (private_folder(_known_archives()) / _sha256(path)).touch()
    except (ExportError, OSError) as error:
        return str(error)
    return ""


def _known_archives() -> Path:
    return default_folder().with_name("pt2")


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ExportError(f"cannot read {path}: {error.strerror or error}") from error


def _load(path: Path) -> Any:
    try:
        with quiet():
            return torch.export.load(path).module()
    except Exception as error:  # whatever the loader meets
        raise ExportError(f"torch cannot load {path.name}: {first_line(error)}") from error


def pt2_predict(path: Path, interface: GraphInputs) -> Predict:
    """The archive, loaded from its file.

    Raises:
        ExportError: torch cannot load it.
    """
    module = _load(path)

    @torch.inference_mode()
    def predict(inputs: Arrays) -> np.ndarray:
        tensors = {name: torch.tensor(array) for name, array in inputs.items()}
        orders = [tensors[name] for name in interface.order_inputs.values()]
        result: np.ndarray = module(
            tensors["x"], tensors["timesteps"], tensors.get("context"), orders
        ).numpy()
        return result

    return predict
