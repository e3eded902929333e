"""``ssmdiff export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from ssmdiff import ConfigError, did_you_mean, registry

if TYPE_CHECKING:
    from ssmdiff import Exporter


def export(
    run: Annotated[Path | None, typer.Argument(help="The --out of ssmdiff train.")] = None,
    to: Annotated[str, typer.Option(help="onnx, pt2, tensorrt or triton-server.")] = "onnx",
    out: Annotated[
        Path | None, typer.Option(help="The file to write, or the folder for triton-server.")
    ] = None,
    precision: Annotated[str, typer.Option(help="fp32, fp16 or bf16.")] = "fp32",
    body: Annotated[
        str, typer.Option(help="The scan where our operator is not installed: scan or chunked.")
    ] = "scan",
    batch: Annotated[
        str, typer.Option(help="Fewest, usual and most images of a call (engines).")
    ] = "1:8:64",
    checkpoint: Annotated[str, typer.Option(help="latest, or step-NNNNNNNN.")] = "latest",
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Compare the file with torch.")
    ] = True,
    check_tensorrt: Annotated[
        bool,
        typer.Option("--check-tensorrt", help="Hold an ONNX file against TensorRT's parser rules."),
    ] = False,
    ort_library: Annotated[
        bool,
        typer.Option("--ort-library", help="Compile our operator for ONNX Runtime; needs no run."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Write a trained model for other runtimes, and compare it with torch."""
    if ort_library:
        from ssmdiff_export.ort_library.build import library

        typer.echo(f"library: {library()}")
        if run is None:
            return
    if run is None:
        raise ConfigError("which run? Expected the --out of ssmdiff train: ssmdiff export runs/a")
    if to not in registry().names("exporter"):
        hint = did_you_mean(to, registry().names("exporter"))
        raise ConfigError(f"--to {to}: there is no such target; {hint}")
    if out is None:
        raise ConfigError("--out is missing: the file to write, such as --out model.onnx")
    if check_tensorrt and to != "onnx":
        raise ConfigError(f"--check-tensorrt is for ONNX files, and the target is {to}")
    if out.is_file() and not overwrite:
        raise ConfigError(f"{out} is there already; choose another --out, or give --overwrite")
    sizes = _batch(batch)

    from ssmdiff import ExportPrecision, ExportRequest, ScanBody, create, load_run

    precisions, bodies = get_args(ExportPrecision), get_args(ScanBody)
    request = ExportRequest(
        run=load_run(run, checkpoint),
        out=out,
        precision=_one_of("--precision", precision, precisions),  # type: ignore[arg-type]
        body=_one_of("--body", body, bodies),  # type: ignore[arg-type]
        batch=sizes,
        verify=verify,
        progress=True,
        overwrite=overwrite,
    )
    exporter: Exporter = create("exporter", to)
    for line in exporter.export(request).lines:
        typer.echo(line)
    if check_tensorrt:
        from ssmdiff_export.parser_rules import check_parser_rules, rules

        check_parser_rules(out)
        typer.echo(f"every node is documented by the parser of TensorRT {rules().tensorrt}")


def _one_of(option: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ConfigError(f"{option} {value!r}: expected {', '.join(known)}")
    return value


def _batch(text: str) -> tuple[int, int, int]:
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
    return sizes[0], sizes[1], sizes[2]
