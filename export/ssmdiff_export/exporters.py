"""The exporters of whole files: ``onnx`` and ``pt2``."""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator
from ssmdiff import ConfigError, ExportRequest, ExportResult

from ssmdiff_export.names import METADATA, ScanBody

if TYPE_CHECKING:
    from ssmdiff_export.model_file import FileModel

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
