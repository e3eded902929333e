"""``ssmdiff reproduce``."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def reproduce(
    paper: Annotated[str, typer.Argument(help="vm-ddpm.")],
    table: Annotated[int, typer.Option(help="Of the paper: 5, which computes III to V.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Figures of a paper, computed anew beside what it prints."""
    from ssmdiff_reproduce.job import reproduce as compute

    found = compute(paper, table)
    if as_json:
        typer.echo(json.dumps(found.fields(), indent=2))
        return
    typer.echo(f"{'table':<6} {'of':<9} {'figure':<38} {'paper':>8}  {'here':>9}")
    for line in found.lines:
        printed = (
            "" if line.printed is None else f"{line.printed:.{5 if line.table == 'V' else 3}f}"
        )
        here = "-" if line.computed is None else f"{line.computed:.5f}"
        differs = "  differs" if line.agrees is False else ""
        typer.echo(
            f"{line.table:<6} {line.of:<9} {line.figure:<38} {printed:>8}  {here:>9}{differs}"
        )
    for note in found.notes:
        typer.echo(note)
