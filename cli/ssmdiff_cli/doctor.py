"""``ssmdiff doctor``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

REPORT = Path("ssmdiff-tensorrt.json")


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    tensorrt: Annotated[
        bool,
        typer.Option(
            "--tensorrt",
            help=f"Build tiny engines, compare and time them; writes {REPORT} to send.",
        ),
    ] = False,
) -> None:
    """Check this machine: versions, plugins, and each kernel against the reference."""
    if tensorrt:
        _tensorrt(as_json)
        return
    from ssmdiff.errors import SsmdiffError

    from ssmdiff_cli.doctor_report import examine

    report = examine()
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        for name, version in report["versions"].items():
            typer.echo(f"{name:<12} {version}")
        typer.echo(f"{'device':<12} {report['device']}, {report['threads']} threads")
        typer.echo("\nkernels, against the float64 reference")
        for row in report["kernels"]:
            typer.echo(f"  {row['name']:<12} {row['status']:<12} {row['detail']}")
        typer.echo("\nplugins")
        for row in report["plugins"]:
            typer.echo(f"  {row['name']:<12} {row['status']:<12} {row['detail']}")
        for conflict in report["conflicts"]:
            typer.echo(f"  CONFLICT {conflict}")
    if not report["ok"]:
        raise SsmdiffError("something is wrong; see the lines marked wrong or broken")


def _tensorrt(as_json: bool) -> None:
    from ssmdiff.errors import SsmdiffError
    from ssmdiff.runs.jobs import job

    report = job("export").examine_tensorrt(REPORT)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        for product in report["products"]:
            _product(product)
        for reason in report["absent"]:
            typer.echo(f"\n{reason}")
    typer.echo(f"report: {REPORT.resolve()}", err=True)
    if not report["ok"]:
        raise SsmdiffError(f"TensorRT does not work here as it should; please send {REPORT}")


def _product(product: dict[str, Any]) -> None:
    """One TensorRT and its engines, for a person."""
    for name, value in product["machine"].items():
        typer.echo(f"{name:<12} {value}")
    typer.echo(f"\nengines of tiny models by {product['title']}, against torch")
    for trial in product["trials"]:
        typer.echo(f"  {trial['name']:<12} {trial['status']:<12} {_detail(trial)}")
    if product["not_run"]:
        typer.echo(f"  built and not run here: {product['not_run']}")


def _detail(trial: dict[str, Any]) -> str:
    if trial["status"] == "failed":
        return str(trial["error"]).splitlines()[0]
    agrees = f"largest relative error of {trial['parity_of']} {trial['parity']['max_rel']:.1e}; "
    ms = trial.get("milliseconds")
    if ms is not None:
        agrees += f"{ms['engine']:.2f} ms, torch {ms['torch']:.2f} ms; "
    size = f"{trial['engine_bytes'] / 1e6:.1f} MB, {trial['layers']} layers"
    return f"{agrees}{size}, built in {trial['build_s']:.0f} s"
