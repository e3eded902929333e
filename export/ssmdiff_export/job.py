"""The job ``export``: a trained model as a file for another runtime.

``ssmdiff.job("export")`` is :data:`export`. What exports is imported when it is called.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ssmdiff import (
    ConfigError,
    ExportPrecision,
    ExportRequest,
    ExportResult,
    did_you_mean,
    exporter_of_suffix,
    load_run,
    registry,
)

if TYPE_CHECKING:
    from ssmdiff import Exporter, Run

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
