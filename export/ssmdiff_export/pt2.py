"""A trained model as a torch.export archive: PyTorch runs it without the code of the model.

The scan stays the operator ``ssmdiff::selective_scan``, which ``import ssmdiff.ops`` registers
with its kernels.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ssmdiff import ExportError, ExportPrecision, Run

from ssmdiff_export.files import keep, refuse_to_replace, workplace
from ssmdiff_export.graph import Interface, first_line, quiet, trace
from ssmdiff_export.names import METADATA
from ssmdiff_export.onnx_card import card
from ssmdiff_export.progress import stages
from ssmdiff_export.verify import Arrays, Comparison, Predict, compare, told


@dataclass(frozen=True)
class Pt2Report:
    """What was written, and how it compares with torch."""

    path: Path
    parity: Comparison | None
    export_s: float

    @property
    def lines(self) -> tuple[str, ...]:
        """For a person."""
        megabytes = self.path.stat().st_size / 1e6
        return (
            f"archive: {self.path} ({megabytes:.1f} MB, {self.export_s:.0f} s)",
            told(self.parity),
        )


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
    :class:`ssmdiff_export.graph.Graph`. The model card is its extra file ``ssmdiff``.

    Raises:
        ConfigError: The file is there already.
        ExportError: The model cannot be exported, or the archive does not agree with torch;
            nothing is left behind.
    """
    refuse_to_replace(path, overwrite)
    start_s = time.perf_counter()
    with stages(progress) as stage, workplace(path) as folder:
        stage("tracing the model")
        interface = Interface.of(run)
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
        keep(folder, path, with_data=False)
    return Pt2Report(path, parity, time.perf_counter() - start_s)


def pt2_predict(path: Path, interface: Interface) -> Predict:
    """The archive, loaded from its file.

    Raises:
        ExportError: torch cannot load it.
    """
    try:
        with quiet():
            module: Any = torch.export.load(path).module()
    except Exception as error:  # whatever the loader meets
        raise ExportError(f"torch cannot load {path.name}: {first_line(error)}") from error

    @torch.inference_mode()
    def predict(inputs: Arrays) -> np.ndarray:
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        orders = [tensors[name] for name in interface.order_inputs.values()]
        result: np.ndarray = module(
            tensors["x"], tensors["timesteps"], tensors.get("context"), orders
        ).numpy()
        return result

    return predict
