"""``ssmdiff plugins``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from ssmdiff.errors import ConfigError, did_you_mean
from ssmdiff.registry.component import KINDS
from ssmdiff.registry.plugin import Plugin, Registered
from ssmdiff.registry.registry import registry

from ssmdiff_cli.check import check_plugin
from ssmdiff_cli.flags import names_of

app = typer.Typer(help="The plugins of this environment.", no_args_is_help=True)
app.command("check")(check_plugin)

AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


@app.callback()
def plugins() -> None:
    """The plugins of this environment."""


@app.command("list")
def list_plugins(as_json: AsJson = False) -> None:
    """Every plugin with its distribution, state, load time and what it offers."""
    found = registry()
    if as_json:
        rows = [_row(plugin) for plugin in found.plugins]
        typer.echo(json.dumps({"plugins": rows, "conflicts": found.conflicts()}, indent=2))
        return
    for plugin in found.plugins:
        typer.echo(_headline(plugin))
        for kind, component in plugin.components:
            typer.echo(f"    {kind:<10} {component.name:<14} {component.summary}")
    for conflict in found.conflicts():
        typer.echo(f"CONFLICT  {conflict}")


def _headline(plugin: Plugin) -> str:
    status = "BROKEN" if plugin.error else "ok"
    slow = ", slow to load" if plugin.slow else ""
    line = f"{plugin.name}  ({plugin.source})  {status}  {plugin.load_s * 1000:.0f} ms{slow}"
    return f"{line}\n    {plugin.error}" if plugin.error else line


def _row(plugin: Plugin) -> dict[str, Any]:
    return {
        "plugin": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "module": plugin.module,
        "status": "broken" if plugin.error else "ok",
        "error": plugin.error,
        "load_s": round(plugin.load_s, 4),
        "slow": plugin.slow,
        "components": [
            {"kind": kind, "name": component.name, "summary": component.summary}
            for kind, component in plugin.components
        ],
    }


@app.command("info")
def info(
    name: Annotated[
        str,
        typer.Argument(
            help="A plugin, a distribution or a component.", autocompletion=names_of(*KINDS)
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Where something comes from: distribution, module, components, their options, citations."""
    from ssmdiff_cli.describe import describe_component

    chosen = [
        (plugin, [describe_component(e) for e in entries]) for plugin, entries in _chosen(name)
    ]
    if as_json:
        rows = [{**_row(plugin), "components": described} for plugin, described in chosen]
        typer.echo(json.dumps(rows, indent=2))
        return
    for plugin, described in chosen:
        typer.echo(_headline(plugin))
        typer.echo(f"    module {plugin.module}")
        for row in described:
            _print_row(row)


def _chosen(name: str) -> list[tuple[Plugin, list[Registered]]]:
    """The plugins that are meant, each with the components that are meant.

    Raises:
        ConfigError: There is nothing of that name.
        PluginError: A component of that name is in conflict.
    """
    found = registry()
    entries = [found.find(kind, name) for kind in KINDS if name in found.names(kind)]
    if entries:
        return [(entry.plugin, [entry]) for entry in entries]
    plugins = [p for p in found.plugins if name in (p.distribution, p.name)]
    if plugins:
        return [(p, [entry for entry in found.all() if entry.plugin is p]) for p in plugins]
    known = {p.distribution for p in found.plugins} | {p.name for p in found.plugins}
    known |= {entry.component.name for entry in found.all()}
    near = did_you_mean(name, known)
    hint = near if near.startswith("did") else "see: ssmdiff plugins list"
    raise ConfigError(f"there is no plugin, distribution or component named {name!r}; {hint}")


def _print_row(row: dict[str, Any]) -> None:
    typer.echo(f"    {row['kind']:<10} {row['name']:<14} {row['summary']}")
    typer.echo(f"        from {row['factory']}")
    for option, about in row.get("options", {}).items():
        default = "required" if about["required"] else f"default {json.dumps(about['default'])}"
        typer.echo(f"        {option}: {about['type']}, {default}")
    if row["cite"]:
        typer.echo(f"        cite {row['cite'].splitlines()[0]}")
    if "error" in row:
        typer.echo(f"        BROKEN {row['error']}")


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="Of the component, such as my-scan.")],
    kind: Annotated[str, typer.Option(help=f"One of {', '.join(KINDS)}.")] = "scan",
    out: Annotated[
        Path | None, typer.Option(help="Where the package goes; ./ssmdiff-NAME by default.")
    ] = None,
) -> None:
    """Write a package with a component of your own: it installs, and passes its tests."""
    from ssmdiff_cli.authoring import write_package

    folder = write_package(name, kind, out)
    typer.echo(f"written: {folder}")
    # pip takes a bare word for a name in the index.
    path = folder if folder.is_absolute() else f"./{folder}"
    typer.echo(f"next: pip install -e '{path}[test]'")
    typer.echo(f"then: ssmdiff plugins check {name}    or: pytest {folder}")
