"""``ssmdiff plugins``."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from ssmdiff.registry import registry

app = typer.Typer(help="The plugins of this environment.", no_args_is_help=True)


@app.callback()
def plugins() -> None:
    """The plugins of this environment."""


@app.command("list")
def list_plugins(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Every plugin with its distribution, state, load time and what it offers."""
    found = registry()
    if as_json:
        rows = [
            {
                "plugin": plugin.name,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "status": "broken" if plugin.error else "ok",
                "error": plugin.error,
                "load_s": round(plugin.load_s, 4),
                "components": [
                    {"kind": kind, "name": component.name, "summary": component.summary}
                    for kind, component in plugin.components
                ],
            }
            for plugin in found.plugins
        ]
        typer.echo(json.dumps({"plugins": rows, "conflicts": found.conflicts()}, indent=2))
        return
    for plugin in found.plugins:
        status = "BROKEN" if plugin.error else "ok"
        typer.echo(f"{plugin.name}  ({plugin.source})  {status}  {plugin.load_s * 1000:.0f} ms")
        if plugin.error:
            typer.echo(f"    {plugin.error}")
        for kind, component in plugin.components:
            typer.echo(f"    {kind:<10} {component.name:<14} {component.summary}")
    for conflict in found.conflicts():
        typer.echo(f"CONFLICT  {conflict}")
