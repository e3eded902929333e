"""``ssmdiff scans``."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from ssmdiff.errors import PluginError
from ssmdiff.registry import registry

app = typer.Typer(help="Scan orderings.", no_args_is_help=True)


@app.callback()
def scans() -> None:
    """Scan orderings."""


@app.command("list")
def list_scans(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Every scan: its directions on an image, fixed or random, and who ships it."""
    rows = []
    for entry in registry().all("scan"):
        name = entry.component.name
        row: dict[str, object] = {
            "name": name,
            "summary": entry.component.summary,
            "from": entry.plugin.source,
        }
        try:
            scan = registry().create("scan", name)
            row |= {"directions": scan.directions(2), "stochastic": scan.stochastic}
        except PluginError as error:
            row |= {"error": str(error)}
        rows.append(row)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    typer.echo(f"{'name':<16} {'K':>2}  {'draws':<7} {'from':<22} summary")
    for row in rows:
        draws = "random" if row.get("stochastic") else "fixed"
        directions = row.get("directions", "?")
        typer.echo(
            f"{row['name']:<16} {directions!s:>2}  {draws:<7} {row['from']:<22} {row['summary']}"
        )
        if "error" in row:
            typer.echo(f"    BROKEN: {row['error']}")
