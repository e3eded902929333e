"""``ssmdiff data``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from json import dumps
from pathlib import Path
from typing import Annotated, Any

import typer
from ssmdiff import ConfigError, assignments
from ssmdiff_cli import flags

_readers = flags.names_of("reader")
app = typer.Typer(no_args_is_help=True, help="Look at images, and prepare them for training.")


@app.callback()
def data() -> None:
    """Look at images, and prepare them for training."""


@app.command()
def show(
    path: Annotated[
        Path,
        typer.Argument(help="A folder of images, volumes or series, a file, a store; phantom."),
    ],
    sample: Annotated[int, typer.Option(min=1, help="Images whose values are looked at.")] = 200,
    all_: Annotated[bool, typer.Option("--all", help="Look at the values of all.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample.")] = 0,
    group: Annotated[
        str | None, typer.Option(help="A regular expression: the patient in a file's name.")
    ] = None,
    reader: Annotated[
        list[str] | None,
        typer.Option(help="A reader by name; all by default.", autocompletion=_readers),
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Write a contact sheet to this PNG, under the windows.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="A record for programs.")] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE: look at it as training would, with this option."),
    ] = None,
) -> None:
    """Say what a folder holds before anything is trained: what is read, left out, looks wrong.

    Names of all files, values of a sample. No patient is named. Of a store, a data set by its name
    and with --set: what can be told of an image, and masks beside images in the contact sheet.
    """
    from rich.console import Console

    from ssmdiff_data.job import write_sheet
    from ssmdiff_data.showing import find, sheet_of
    from ssmdiff_data.showing_data import data_at, lines_of, record_of, sheet_of_data, suggestions
    from ssmdiff_data.telling import lines, record

    if sheet is not None and sheet.suffix.lower() != ".png":
        raise ConfigError(f"--sheet {sheet}: expected a PNG, such as sheet.png")
    number = None if all_ else sample
    if (dataset := data_at(path, assignments(set_ or []))) is not None:
        known = record_of(str(path), dataset, number, seed)
        if sheet is not None:
            write_sheet(sheet, *sheet_of_data(dataset))
        for line in [dumps(known, indent=2)] if json else lines_of(known):
            typer.echo(line)
        return
    found = find(path, sample=number, seed=seed, group=group, readers=reader or (), bars=_bars)
    told = record(found)
    if sheet is not None and found.looks:
        write_sheet(sheet, *sheet_of(found))
    if json:
        typer.echo(dumps(told, indent=2))
        return
    for line in lines(found, told):
        typer.echo(line)
    if Console().is_terminal:
        _preview(sheet_of(found)[0])
    for line in suggestions(found):
        typer.echo(f"  {line}")
    for warning in told["warnings"]:
        typer.echo(f"warning: {warning}")
    if sheet is None:
        typer.echo("contact sheet: --sheet sheet.png")
    typer.echo(f"next: ssmdiff data prepare {path} --out STORE")


def _preview(pictures: Sequence[Any]) -> None:
    """A row of small pictures as half blocks, for a terminal."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    shown = pictures[: max(1, console.width // 26)]
    levels = [((p[0, ::4, ::4] + 1) * 127.5).byte().tolist() for p in shown]  # 24 x 24
    for y in range(0, 24, 2):
        row = Text()
        for picture in levels:
            for top, below in zip(picture[y], picture[y + 1], strict=True):
                row.append("▀", f"rgb({top},{top},{top}) on rgb({below},{below},{below})")
            row.append("  ")
        console.print(row, no_wrap=True)


@app.command()
def prepare(
    path: Annotated[Path, typer.Argument(help="The folder of images, volumes or series.")],
    out: Annotated[Path, typer.Option(help="The store that is made, a new folder.")],
    as_: Annotated[
        str | None, typer.Option("--as", help="A published data set whose folder it is: acdc, ...")
    ] = None,
    axis: Annotated[
        str | None, typer.Option(help="axial (the default), coronal or sagittal, of volumes.")
    ] = None,
    slices: Annotated[
        str | None,
        typer.Option(help="all, content:0.15, label, label:1,2 or position:0.2,0.8."),
    ] = None,
    values: Annotated[
        str | None,
        typer.Option(help="percentile:0.1,99.9, window:CENTRE,WIDTH or range:BLACK,WHITE."),
    ] = None,
    image_size: flags.ImageSize = None,
    resize: Annotated[str | None, typer.Option(help="pad (the default), center, stretch.")] = None,
    channels: Annotated[int | None, typer.Option(help="1 or 3.")] = None,
    bits: Annotated[int | None, typer.Option(help="8 or 16, of a stored value.")] = None,
    labels: Annotated[
        str | None, typer.Option(help="folders: the class is the first folder's name.")
    ] = None,
    mask: Annotated[
        str | None, typer.Option(help="What a mask's name has more than its image's: _seg.")
    ] = None,
    table: Annotated[
        str | None, typer.Option(help="A CSV of what is known of each file; names come first.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Its columns that are kept: age,sex:label,findings:labels.")
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="A regular expression: the patient in a file's name.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Shares of the patients: val=0.1,test=0.1.")
    ] = None,
    split_list: Annotated[
        list[str] | None,
        typer.Option(help="SPLIT=FILE: patients or files of a split, a name a line."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the shares.")] = None,
    salt_file: Annotated[
        Path | None,
        typer.Option(
            help="Salt of the patients' hashes, made if it is not there; else none is kept."
        ),
    ] = None,
    on_bad: Annotated[
        str | None, typer.Option(help="error (the default) or leave-out, of damaged files.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, max=64, help="Processes that read.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the store.")] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE, an option of --as.")
    ] = None,
) -> None:
    """Make a store of a folder, to train from: ssmdiff train --data STORE.

    Killed at any moment, the same command goes on. What identifies a patient stays out of it.
    """
    from ssmdiff_data.prepare import prepare as run
    from ssmdiff_data.prepare import published_dataset
    from ssmdiff_data.recipe import make_recipe
    from ssmdiff_data.splitting import read_list

    given: dict[str, Any] = {
        "axis": axis,
        "slices": slices,
        "values": values,
        "image_size": flags.image_size(image_size),
        "resize": resize,
        "channels": channels,
        "bits": bits,
        "labels": labels,
        "mask": mask,
        "table": table,
        "columns": columns,
        "group": group,
        "shares": split,
        "lists": {name: read_list(file) for name, file in _lists(split_list)} or None,
        "seed": seed,
        "on_bad": on_bad,
    }
    chosen = {key: value for key, value in given.items() if value is not None}
    options = assignments(set_ or [])
    if options and as_ is None:
        raise ConfigError("--set gives options of a published data set; name it by --as")
    defaults = dict(published_dataset(as_).RECIPE) if as_ else {}
    made = run(
        path,
        out,
        make_recipe(**{**defaults, **chosen}),
        published=as_,
        options=options,
        salt_file=salt_file,
        workers=workers,
        overwrite=overwrite,
        say=typer.echo,
        bars=_bars,
    )
    for line in made.lines:
        typer.echo(line)
    typer.echo(f"next: ssmdiff train --data {out}")


def _lists(given: list[str] | None) -> Iterator[tuple[str, Path]]:
    for text in given or []:
        name, equals, file = text.partition("=")
        if not (equals and name.isidentifier() and file):
            raise ConfigError(f"--split-list {text!r}: expected SPLIT=FILE, such as test=test.txt")
        yield name, Path(file)


@contextmanager
def _bars(what: str, total: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total or None)
        yield lambda count: bar.advance(task, count)
