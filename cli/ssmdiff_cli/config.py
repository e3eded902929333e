"""``ssmdiff config``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ssmdiff_cli import flags

app = typer.Typer(help="Configurations.", no_args_is_help=True)


@app.callback()
def config() -> None:
    """Configurations."""


@app.command("show")
def show(
    preset: flags.Preset = None,
    config: flags.ConfigFile = None,
    set_: flags.Assignments = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """The resolved configuration, every option with its value; what train would use."""
    from ssmdiff.runs.config import resolve_flags

    resolved = resolve_flags(preset, config, sets=set_)
    if as_json:
        typer.echo(json.dumps(resolved.to_dict(), indent=2))
    else:
        typer.echo(resolved.to_toml().rstrip())
