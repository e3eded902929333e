"""``ssmdiff doctor``."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Check this machine: versions, plugins, and each kernel against the reference."""
    from ssmdiff.doctor import examine
    from ssmdiff.errors import SsmdiffError

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
