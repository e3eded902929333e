"""``ssmdiff reproduce``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from ssmdiff import ConfigError, assignments

if TYPE_CHECKING:
    from ssmdiff_reproduce.counts import Reproduction
    from ssmdiff_reproduce.plan import Planned


def reproduce(
    paper: Annotated[str, typer.Argument(help="vm-ddpm.")],
    table: Annotated[
        str, typer.Option(help="Of the paper: 1, 2, figure-2, or 5, which computes III to V.")
    ],
    scale: Annotated[
        str | None,
        typer.Option(help="paper: the full thing, on a GPU; cpu: synthetic heads at 32 x 32."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Of all runs and tables; reproduced/PAPER-SCALE by default.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="A data set of the scale, NAME or NAME=STORE; those alone."),
    ] = None,
    systems: Annotated[
        str | None, typer.Option(help="Rows of the table, such as cross,vm-ddpm; all by default.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many, from 0.")] = None,
    images_seen: Annotated[
        int | None, typer.Option(min=1, help="Images that each run is trained on.")
    ] = None,
    n: Annotated[
        int | None, typer.Option("--n", "--count", min=2, help="Images judged of each system.")
    ] = None,
    reference: Annotated[
        int | None, typer.Option(min=2, help="Reference images at most, evenly spread.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Sampling steps of every system, for its own.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="path.to.key=value, for every run that has such a key."),
    ] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(help="NAME.option=value of a feature network or a metric."),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print plan and cost, and stop.")] = False,
    cost: Annotated[
        bool, typer.Option("--cost/--no-cost", help="Time a few steps of each network first.")
    ] = True,
    write: Annotated[
        str | None,
        typer.Option(help="slurm or commands: write what computes each task, and stop."),
    ] = None,
    task: Annotated[
        int | None, typer.Option(min=0, help="Only this task of the plan, and no table.")
    ] = None,
    pilot: Annotated[
        str | None,
        typer.Option(help="Budgets such as 12000,24000: how far seeds of the base lie apart."),
    ] = None,
    show_real: Annotated[
        bool, typer.Option("--show-real", help="Show real images in figure 2.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Tables and figures of a paper, computed anew beside what it prints.

    Goes on where it was stopped. On several devices or hosts that see one folder: torchrun
    --nproc-per-node N -m ssmdiff reproduce ...
    """
    from ssmdiff_reproduce import job

    asked: dict[str, Any] = {
        "data": _stores(data),
        "systems": [name.strip() for name in systems.split(",")] if systems else (),
        "seeds": seeds,
        "images_seen": images_seen,
        "n": n,
        "reference": reference,
        "steps": steps,
        "sets": set_ or (),
        "judged": _options(judge),
    }
    if table == "5":
        _refuse_flags(scale, out, pilot, write, task, *asked.values())
        _print_counts(job.reproduce(paper, 5), as_json)
        return
    import ssmdiff

    if pilot is not None:
        ssmdiff.job("train").keep_freed_memory()
        from ssmdiff_reproduce.pilot import run_pilot

        budgets = [text.strip().replace("_", "") for text in pilot.split(",")]
        if not all(text.isdecimal() for text in budgets):
            raise ConfigError(f"--pilot {pilot}: expected numbers of images such as 12000,24000")
        typer.echo(run_pilot(paper, table, scale, out, list(map(int, budgets)), asked, _say))
        return
    planned = job.plan(paper, table, scale, out, **asked)
    if write is not None:
        from ssmdiff_reproduce.writing import write_commands

        for path in write_commands(planned, write, _arguments(paper, table, scale, planned, asked)):
            typer.echo(path)
        return
    ssmdiff.job("train").keep_freed_memory()
    _tell(planned, cost and task is None)
    if plan:
        return
    found = job.run(planned, task, show_real, True, _say)
    if found is None:
        return
    _print(found, planned, as_json)


def _say(text: str) -> None:
    from ssmdiff_reproduce.forms import now

    typer.echo(f"{now()} {text}", err=True)


def _tell(planned: Planned, timed: bool) -> None:
    """The plan, with its cost if it was timed; on the first process alone."""
    from ssmdiff_reproduce.sharing import alone
    from ssmdiff_reproduce.telling import lines_of

    with alone() as share:
        if share.rank == 0:
            for line in lines_of(planned, timed, share.world, _say):
                typer.echo(line, err=True)


def _print(found: Any, planned: Planned, as_json: bool) -> None:
    """The table and where it is; exit code 1 if a cell failed."""
    if planned.table.startswith("figure"):
        for path in found.paths.values():
            typer.echo(path)
        missing = found.missing
    else:
        from ssmdiff_reproduce.forms import notes, table

        if as_json:
            typer.echo(found.to_json(), nl=False)
        else:
            typer.echo(table(found, "text"), nl=False)
            for note in notes(found):
                typer.echo(note)
            typer.echo(f"page: {planned.out / f'table-{planned.table}.html'}")
        missing = found.failed
    if missing:
        raise typer.Exit(1)


def _stores(texts: list[str] | None) -> dict[str, str] | None:
    if texts is None:
        return None
    pairs = (text.partition("=") for text in texts)
    return {name.strip(): path.strip() for name, _, path in pairs}


def _options(texts: list[str] | None) -> dict[str, dict[str, Any]]:
    found = assignments(texts or ())
    for name, table in found.items():
        if not isinstance(table, dict):
            raise ConfigError(f"--judge {name}={table}: expected NAME.option=value")
    return found


def _refuse_flags(*given: Any) -> None:
    if any(value is not None and value != () and value != {} for value in given):
        raise ConfigError("--table 5 is computed from the paper's counts; it takes --json alone")


def _arguments(
    paper: str, table: str, scale: str | None, planned: Planned, asked: dict[str, Any]
) -> list[str]:
    """The command again, with absolute paths: a queue starts it somewhere else."""
    words = [paper, "--table", table, "--scale", str(scale), "--out", str(planned.out.resolve())]
    for name, path in (asked["data"] or {}).items():
        words += ["--data", f"{name}={Path(path).resolve()}" if path else name]
    words += ["--systems", ",".join(asked["systems"])] if asked["systems"] else []
    for key in ("seeds", "images_seen", "n", "reference", "steps"):
        flag = "--count" if key == "n" else f"--{key.replace('_', '-')}"
        words += [flag, str(asked[key])] if asked[key] is not None else []
    for text in asked["sets"]:
        words += ["--set", text]
    for name, options in asked["judged"].items():
        for option, value in options.items():
            words += ["--judge", f"{name}.{option}={json.dumps(value)}"]
    return [*words, "--no-cost"]


def _print_counts(found: Reproduction, as_json: bool) -> None:
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
