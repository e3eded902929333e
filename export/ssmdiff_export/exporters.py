"""The exporters of whole files: ``onnx`` and ``pt2``."""

from __future__ import annotations

import importlib.util

from ssmdiff import ConfigError, ExportRequest, ExportResult


class OnnxExporter:
    """Writes one ONNX file, and a file of weights beside it above 1 GB."""

    def export(self, request: ExportRequest) -> ExportResult:
        """See :func:`ssmdiff_export.onnx_export.export_onnx`."""
        need_onnx()
        from ssmdiff_export.onnx_export import export_onnx

        report = export_onnx(
            request.run,
            request.out,
            precision=request.precision,
            body=request.body,
            verify=request.verify,
            progress=request.progress,
            overwrite=request.overwrite,
        )
        return ExportResult(report.files, report.lines)


class Pt2Exporter:
    """Writes one torch.export archive."""

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
