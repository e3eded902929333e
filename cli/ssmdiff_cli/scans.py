"""``ssmdiff scans``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from ssmdiff.errors import ConfigError
from ssmdiff.orders.scan import size_text
from ssmdiff.registry.registry import registry

from ssmdiff_cli.check import check_scan
from ssmdiff_cli.flags import component, names_of

if TYPE_CHECKING:
    from ssmdiff.orders.scan import Grid, Scan

    from ssmdiff_cli.scan_pictures import Panel

app = typer.Typer(help="Scan orderings.", no_args_is_help=True)
app.command("check")(check_scan)

LAYERS = 8  # of a scan that varies by layer, drawn unless --layers says how many


@app.callback()
def scans() -> None:
    """Scan orderings."""


@app.command("list")
def list_scans(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Every scan: directions, grids, fixed or random, continuous, and |dt| between neighbours.

    |dt| is the time between the visits of two tokens that share a side, mean and maximum over a
    16 x 16 grid: in the first direction, and in the best of the K directions for each two tokens.
    """
    from ssmdiff_cli.scan_figures import table

    found = table(registry())
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    typer.echo(f"{'':<14} {'':>2} {'':<8} {'':<6} {'':<10} {'|dt| first':>10} {'best of K':>10}")
    typer.echo(
        f"{'name':<14} {'K':>2} {'grids':<8} {'draws':<6} {'continuous':<10} "
        f"{'mean':>6} {'max':>3} {'mean':>6} {'max':>3}  summary"
    )
    for row in found:
        if "error" in row:
            typer.echo(f"{row['name']:<14} BROKEN: {row['error']}")
            continue
        grids, draws = grids_in_words(row["axes"]), "random" if row["stochastic"] else "fixed"
        shipped = "" if row["from"].startswith("ssmdiff ") else f" ({row['from']})"
        typer.echo(
            f"{row['name']:<14} {row['directions']:>2} {grids:<8} {draws:<6} "
            f"{'yes' if row['continuous'] else '-':<10} "
            f"{_mean(row['mean_dt']):>6} {_whole(row['max_dt']):>3} "
            f"{_mean(row['best_mean_dt']):>6} {_whole(row['best_max_dt']):>3}  "
            f"{row['summary']}{shipped}"
        )


@app.command("show")
def show_scan(
    name: Annotated[
        str,
        typer.Argument(help="A scan; see: ssmdiff scans list.", autocompletion=names_of("scan")),
    ],
    grid: Annotated[str, typer.Option(help="Tokens, such as 16x16 (H x W) or 4x8x8.")] = "16x16",
    out: Annotated[
        Path | None, typer.Option(help="The PNG to write; NAME.png if neither this nor --ascii.")
    ] = None,
    as_ascii: Annotated[
        bool, typer.Option("--ascii", help="Draw in the terminal, in plain characters.")
    ] = False,
    direction: Annotated[
        int | None, typer.Option(help="One direction, from 0; all of them by default.")
    ] = None,
    layers: Annotated[
        int | None,
        typer.Option(help="S6 calls to draw; by default one, or all paths of a scan by layer."),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="option=value of the scan, such as base=hilbert."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The run's seed, of random scans.")] = 0,
) -> None:
    """Draw the path of a scan over a grid, its directions side by side."""
    from ssmdiff.runs.config import assignments

    from ssmdiff_cli.scan_pictures import draw

    spec = {**(component("scan", name) or {}), **assignments(sets or ())}
    scan: Scan = registry().create("scan", spec)
    tokens = grid_of(grid)
    panels = panels_of(scan, tokens, seed, layers, direction)
    if as_ascii:
        _type(panels)
    if out is None and as_ascii:
        return
    path = out or Path(f"{name}.png")
    if path.suffix.lower() != ".png":
        raise ConfigError(f"--out {path}: pictures are PNG files; expected a name ending in .png")
    path.parent.mkdir(parents=True, exist_ok=True)
    options = ", ".join(f"{key}={value}" for key, value in spec.items() if key != "name")
    size = size_text(tokens)
    draw(panels, path, f"{name}{f' ({options})' if options else ''}, {size}")
    typer.echo(f"{path}")


def grid_of(text: str) -> Grid:
    """``16x16`` or ``4x8x8`` as a grid; one number is a square.

    Raises:
        ConfigError: It is neither, or too large to be drawn.
    """
    from ssmdiff_cli.scan_pictures import check_size

    parts = text.lower().split("x")
    if not all(part.isdecimal() and int(part) > 0 for part in parts) or len(parts) > 3:
        raise ConfigError(f"--grid {text!r}: expected tokens such as 16x16, 1x64 or 4x8x8")
    grid = tuple(int(part) for part in parts)
    grid = grid * 2 if len(grid) == 1 else grid
    check_size(grid)
    return grid


def panels_of(
    scan: Scan,
    grid: Grid,
    seed: int = 0,
    layers: int | None = None,
    direction: int | None = None,
) -> list[Panel]:
    """What is drawn: every direction of every layer, or the one that was asked for."""
    from ssmdiff_cli.scan_figures import order_of_slot
    from ssmdiff_cli.scan_pictures import Panel

    if layers is not None and not 1 <= layers <= 64:
        raise ConfigError(f"--layers {layers}: expected 1 to 64")
    orders = [order_of_slot(scan, grid, seed)]
    varies = not scan.stochastic and any(scan.at(i) is not scan.at(0) for i in range(1, LAYERS))
    for slot in range(1, layers or (LAYERS if varies else 1)):
        orders.append(order_of_slot(scan, grid, seed, slot))
        if layers is None and (orders[-1].index.tobytes() == orders[0].index.tobytes()):
            orders.pop()
            break
    panels = []
    for layer, order in enumerate(orders):
        if direction is not None and not 0 <= direction < order.directions:
            raise ConfigError(
                f"--direction {direction}: the scan has {order.directions} on this grid, "
                f"0 to {order.directions - 1}"
            )
        for k in range(order.directions) if direction is None else (direction,):
            words = [f"layer {layer}"] * (len(orders) > 1)
            words += [f"direction {k}"] * (order.directions > 1)
            panels.append(Panel(", ".join(words), order, grid, k))
    return panels


def _type(panels: list[Panel]) -> None:
    """The panels in plain characters, and the times where a row of them fits a terminal."""
    from ssmdiff_cli.scan_pictures import ascii_path, ascii_times

    for panel in panels:
        if panel.title:
            typer.echo(panel.title)
        typer.echo(ascii_path(panel.order, panel.grid, panel.direction) + "\n")
        times = ascii_times(panel.order, panel.grid, panel.direction)
        if len(times.partition("\n")[0]) <= 80:
            typer.echo(times + "\n")


def grids_in_words(axes: list[int]) -> str:
    """``any``, or the numbers of axes such as ``2-D, 3-D``."""
    return "any" if axes == [1, 2, 3] else ", ".join(f"{n}-D" for n in axes)


def _mean(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _whole(value: int | None) -> str:
    return "-" if value is None else str(value)
