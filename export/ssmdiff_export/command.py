"""``ssmdiff export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from ssmdiff import ConfigError, did_you_mean, registry
from ssmdiff_cli import flags


def export(
    run: Annotated[Path | None, typer.Argument(help="The --out of ssmdiff train.")] = None,
    to: Annotated[str, typer.Option(help="onnx, pt2, tensorrt or triton-server.")] = "onnx",
    out: Annotated[
        Path | None, typer.Option(help="The file to write, or the folder for triton-server.")
    ] = None,
    precision: Annotated[str, typer.Option(help="fp32, fp16 or bf16.")] = "fp32",
    body: Annotated[
        str | None,
        typer.Option(help="The scan where our operator is not installed: scan or chunked."),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(help="Fewest, usual and most images of a call, such as 1:8:64 (engines)."),
    ] = None,
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
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="option=value of the target; see: ssmdiff plugins info TARGET."),
    ] = None,
) -> None:
    """Write a trained model for other runtimes, and compare it with torch."""
    from ssmdiff_export.exporters import export as run_export

    if ort_library:
        typer.echo(f"library: {run_export.ort_library()}")
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
    options = _options(to, flags.assigned(set_), given)
    result = run_export(
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
    """The options of ``--set``, and above them those of flags that the target has.

    Raises:
        ConfigError: The target has no such option.
    """
    found = registry()
    if to not in found.names("exporter") or not sets | given:
        return {}  # a wrong target is told by the job
    known = found.options("exporter", to).keys() - {"name"}
    for option in sorted(given.keys() - known):
        able = [n for n in found.names("exporter") if option in found.options("exporter", n)]
        flag = f"--{option.replace('_', '-')}"
        raise ConfigError(f"{flag} is an option of {' and '.join(able)}, and the target is {to}")
    for option in sorted(sets.keys() - known):
        hint = did_you_mean(option, known)
        raise ConfigError(f"--set {option}: target {to} has no such option; {hint}")
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
