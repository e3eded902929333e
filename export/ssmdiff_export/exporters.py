"""The job ``export``, and its targets that are whole files: ``onnx`` and ``pt2``.

``ssmdiff.job("export")`` is :data:`export`. What exports is imported when it is called.
"""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from pydantic import AfterValidator
from ssmdiff import (
    ConfigError,
    ExportPrecision,
    ExportRequest,
    ExportResult,
    did_you_mean,
    exporter_of_suffix,
    registry,
)

from ssmdiff_export.runtime.card import METADATA, ScanBody

if TYPE_CHECKING:
    from ssmdiff import Exporter, Run

    from ssmdiff_export.model_file import FileModel
    from ssmdiff_export.runtime import OnnxSampler


class Export:
    """Called, it exports; and it has what other jobs need of exported files."""

    def __call__(
        self,
        run: Run | str | Path,
        out: str | Path,
        to: str = "onnx",
        *,
        checkpoint: str = "latest",
        precision: ExportPrecision = "fp32",
        verify: bool = True,
        progress: bool = False,
        overwrite: bool = False,
        **options: Any,
    ) -> ExportResult:
        """Write a trained model for a target.

        Args:
            run: A run, or the ``--out`` of ``ssmdiff train``.
            out: The file to write, or the folder for ``triton-server``.
            to: The target: an exporter by name.
            checkpoint: Of a run given by its folder.
            precision: Of weights and activations.
            verify: Compare the file with torch; above tolerance nothing is left behind.
            progress: Show what is done.
            overwrite: Replace what is there.
            **options: Of the exporter; see ``ssmdiff plugins info TARGET``.

        Raises:
            ConfigError: There is no such target or option, ``out`` is there already, or its suffix
                is that of another target.
            CheckpointError: There is no such run.
            ExportError: The model cannot be exported, or does not agree with torch.
        """
        path = Path(out)
        exporter = self._exporter(to, path, precision, options)
        if path.is_file() and not overwrite:
            raise ConfigError(f"{path} is there already; choose another --out, or give --overwrite")
        from ssmdiff import load_run  # with it comes torch

        trained = load_run(run, checkpoint) if isinstance(run, str | Path) else run
        request = ExportRequest(trained, path, precision, verify, progress, overwrite)
        result = exporter.export(request)
        if exporter.suffixes and path.suffix not in exporter.suffixes:
            usual = " or ".join(exporter.suffixes)
            note = f"{path} holds {to}, whose files are usually named with {usual}"
            return ExportResult(result.files, (*result.lines, note))
        return result

    def _exporter(self, to: str, out: Path, precision: str, options: dict[str, Any]) -> Exporter:
        known = registry().names("exporter")
        if to not in known:
            raise ConfigError(f"--to {to}: there is no such target; {did_you_mean(to, known)}")
        if precision not in get_args(ExportPrecision):
            expected = ", ".join(get_args(ExportPrecision))
            raise ConfigError(f"--precision {precision!r}: expected {expected}")
        if "name" in options:
            raise ConfigError(f"a target has no option 'name'; it is chosen by --to, here {to}")
        exporter: Exporter = registry().create("exporter", {"name": to, **options})
        if out.suffix not in exporter.suffixes:
            owner = exporter_of_suffix(out.suffix)
            if owner is not None:
                raise ConfigError(
                    f"--out {out}: files of target {owner} are named so, and the target is {to}. "
                    f"Choose another name, or give --to {owner}"
                )
        return exporter

    def ort_library(self) -> Path:
        """Our operator for ONNX Runtime as a shared library, compiled where it is not yet.

        Raises:
            ExportError: There is no compiler, or it fails.
        """
        from ssmdiff_export.ort_library.build import library

        return library()

    def onnx_sampler(
        self, path: str | Path, provider: str = "cpu", library: Path | None = None
    ) -> OnnxSampler:
        """An ONNX file behind a sampling loop that imports no torch."""
        from ssmdiff_export.runtime import OnnxSampler

        return OnnxSampler(path, provider=provider, library=library)

    def examine_tensorrt(self, report: Path) -> dict[str, Any]:
        """See :func:`ssmdiff_export.tensorrt.doctor.examine_tensorrt`."""
        from ssmdiff_export.tensorrt.doctor import examine_tensorrt

        return examine_tensorrt(report)


export = Export()

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
        body: How the scan is computed where our operator is not installed.
        check_tensorrt: Hold every node against the operators that TensorRT's parser documents.
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
        )
        lines = list(report.lines)
        if self.check_tensorrt:
            from ssmdiff_export.parser_rules import check_parser_rules, rules

            check_parser_rules(request.out)
            lines.append(f"every node is documented by the parser of TensorRT {rules().tensorrt}")
        return ExportResult(report.files, tuple(lines))

    def recognises(self, path: Path) -> bool:
        """Whether it begins as a model of ONNX: its version, then who made it."""
        head = _head(path, 3)
        # Fields 1, a number below 128, and 2: ir_version and producer_name.
        return len(head) == 3 and head[0] == 0x08 and head[1] < 0x80 and head[2] == 0x12

    def open(self, path: Path, provider: str = "cpu", ort_library: Path | None = None) -> FileModel:
        """See :func:`ssmdiff_export.model_file.open_onnx`."""
        from ssmdiff_export.model_file import open_onnx

        return open_onnx(path, provider, ort_library)


class Pt2Exporter:
    """Writes one torch.export archive."""

    suffixes = (".pt2",)

    def export(self, request: ExportRequest) -> ExportResult:
        """See :func:`ssmdiff_export.pt2.export_pt2`."""
        from ssmdiff_export.pt2 import export_pt2

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
        except (OSError, ValueError, zipfile.BadZipFile):
            return False

    def open(self, path: Path, kernel: str = "auto") -> FileModel:
        """See :func:`ssmdiff_export.pt2.open_pt2`."""
        from ssmdiff_export.pt2 import open_pt2

        return open_pt2(path, kernel)


def need_onnx() -> None:
    """Check that what an ONNX file is made with is installed.

    Raises:
        ConfigError: It is not.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"export to ONNX needs {package}, which is not installed. "
                "Try: pip install 'ssmdiff[onnx]'"
            )


def _head(path: Path, size: int) -> bytes:
    """The first bytes of a regular file; none of anything else."""
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(size)
    except (OSError, ValueError):
        return b""
