"""The job ``export``, and its command ``ssmdiff export``.

``ssmdiff.job("export")`` is :data:`job`. What exports is imported when it is called.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from ssmdiff import (
    ConfigError,
    ExportPrecision,
    ExportRequest,
    ExportResult,
    did_you_mean,
    exporter_of_suffix,
    registry,
)

if TYPE_CHECKING:
    from ssmdiff import Exporter, Run

    from ssmdiff_export.runtime import OnnxSampler


def export(
    run: Annotated[Path | None, typer.Argument(help="The --out of ssmdiff train.")] = None,
    to: Annotated[
        str,
        typer.Option(
            help="onnx, pt2, tensorrt, tensorrt-rtx or triton-server.",
            autocompletion=lambda: registry().names("exporter"),
        ),
    ] = "onnx",
    out: Annotated[
        Path | None, typer.Option(help="The file to write, or the folder for triton-server.")
    ] = None,
    precision: Annotated[str, typer.Option(help="fp32, fp16 or bf16.")] = "fp32",
    body: Annotated[
        str | None,
        typer.Option(help="The scan: scan, chunked or linear-attention."),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(help="Fewest, usual and most images of a call, such as 1:8:64 (engines)."),
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="latest, best, or step-NNNNNNNN.")] = "latest",
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Compare the file with torch.")
    ] = True,
    check_tensorrt: Annotated[
        bool,
        typer.Option("--check-tensorrt", help="Have the TensorRT that is here build an ONNX file."),
    ] = False,
    ort_library: Annotated[
        bool,
        typer.Option("--ort-library", help="Compile our operator for ONNX Runtime; needs no run."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="option=value of the target; see: ssmdiff plugins info TARGET."),
    ] = None,
) -> None:
    """Write a trained model for other runtimes, and compare it with torch."""
    if ort_library:
        typer.echo(f"library: {job.ort_library()}")
        if run is None:
            return
    if run is None:
        raise ConfigError("which run? Expected the --out of ssmdiff train: ssmdiff export runs/a")
    if out is None:
        raise ConfigError("--out is missing: the file to write, such as --out model.onnx")
    shorthands = {
        "body": body,
        "batch": None if batch is None else _batch(batch),
        "check_tensorrt": check_tensorrt or None,
    }
    given = {name: value for name, value in shorthands.items() if value is not None}
    from ssmdiff import assignments

    options = _options(to, assignments(set_ or ()), given)
    result = job(
        run,
        out,
        to,
        checkpoint=checkpoint,
        precision=precision,  # type: ignore[arg-type]  # checked there
        verify=verify,
        progress=True,
        overwrite=overwrite,
        **options,
    )
    for line in result.lines:
        typer.echo(line)


def _options(to: str, sets: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The options of ``--set``, and those of flags that the target has.

    Raises:
        ConfigError: The target has no such option, or a flag and a ``--set`` contradict each other.
    """
    found = registry()
    if to not in found.names("exporter") or not sets | given:
        return {}  # a wrong target is told by the job
    known = found.options("exporter", to).keys() - {"name"}
    for option in sorted(given.keys() - known):
        able = [n for n in found.names("exporter") if option in found.options("exporter", n)]
        flag = f"--{option.replace('_', '-')}"
        *most, last = able
        able_text = f"{', '.join(most)} and {last}" if most else last
        raise ConfigError(f"{flag} is an option of {able_text}, and the target is {to}")
    for option in sorted(sets.keys() - known):
        hint = did_you_mean(option, known)
        raise ConfigError(f"--set {option}: target {to} has no such option; {hint}")
    for option in sorted(
        option for option in sets if given.get(option, sets[option]) != sets[option]
    ):
        raise ConfigError(
            f"{option} is {given[option]!r} by its flag and {sets[option]!r} by --set; give one"
        )
    return sets | given


def _batch(text: str) -> list[int]:
    """``1:8:64`` as numbers.

    Raises:
        ConfigError: They are not three, or not in order.
    """
    parts = text.split(":")
    sizes = [int(part) if part.isascii() and part.isdigit() else 0 for part in parts]
    if len(sizes) != 3 or not 0 < sizes[0] <= sizes[1] <= sizes[2]:
        raise ConfigError(
            f"--batch {text!r}: expected the fewest, the usual and the most images of a call, such "
            "as 1:8:64"
        )
    return sizes


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
                usual = " or ".join(exporter.suffixes)
                name = f"a name that ends with {usual}" if usual else "another name"
                raise ConfigError(
                    f"--out {out}: files of target {owner} are named so, and the target is {to}. "
                    f"Choose {name}, or give --to {owner}"
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


job = Export()
