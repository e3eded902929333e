"""``ssmdiff bench``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from ssmdiff import ConfigError

if TYPE_CHECKING:
    from ssmdiff_bench.record import Record

app = typer.Typer(help="Time and memory beside what others have, in one run.", no_args_is_help=True)

Json = Annotated[Path | None, typer.Option("--json", help="Write the record to this file.")]
Plot = Annotated[
    Path | None, typer.Option(help="Draw time and memory into this PNG; needs matplotlib.")
]
Repeats = Annotated[int, typer.Option(min=1, help="Timed calls of each way in each case.")]
Seconds = Annotated[
    float, typer.Option(min=0, help="Timed calls end when they took this long; one is made always.")
]
Limit = Annotated[
    float,
    typer.Option(min=0.1, help='Seconds for one call; a way that takes longer is "too slow".'),
]
Only = Annotated[
    str | None, typer.Option(help="Ways by name, such as numba,mamba.py; one that is absent fails.")
]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; a GPU where there is one.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the images.")]


@app.callback()
def bench() -> None:
    """Measure ways of doing the same thing in turn, each in a process of its own.

    Medians over the repetitions with their quartiles, ratios to the first way, and the memory that
    a call takes beyond what is there before it. What cannot run here is listed with the reason.
    """


@app.command("scan")
def scan(
    tokens: Annotated[str, typer.Option(help="Numbers of tokens L.")] = "256,1024,4096",
    batch: Annotated[int, typer.Option(min=1, help="B.")] = 1,
    channels: Annotated[int, typer.Option(min=1, help="D.")] = 192,
    directions: Annotated[int, typer.Option(min=1, help="K.")] = 4,
    states: Annotated[int, typer.Option(min=1, help="N.")] = 16,
    order: Annotated[str, typer.Option(help="raster or random.")] = "random",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    device: Device = None,
    only: Only = None,
    repeats: Repeats = 20,
    seconds: Seconds = 1.0,
    limit: Limit = 5.0,
    json: Json = None,
    plot: Plot = None,
) -> None:
    """The selective scan: our kernels and how others compute it, forward and with backward."""
    sizes = _numbers("--tokens", tokens)
    _check_files(json, plot)
    from ssmdiff_bench.job import bench

    record = bench.scan(
        sizes,
        batch=batch,
        channels=channels,
        directions=directions,
        states=states,
        order=order,
        dtype=dtype,
        device=device,
        only=_names(only),
        repeats=repeats,
        seconds=seconds,
        limit=limit,
        progress=True,
    )
    _tell(record, json, plot)


@app.command("step")
def step(
    pixels: Annotated[str, typer.Option(help="Sides of the square images.")] = "64,128",
    preset: Annotated[str, typer.Option(help="tiny, small or paper-128.")] = "tiny",
    channels: Annotated[
        int | None, typer.Option(min=2, help="Of our first level, even; else the preset's.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images of a step.")] = 1,
    precision: Annotated[str, typer.Option(help="fp32, or bf16 by autocast.")] = "fp32",
    device: Device = None,
    only: Only = None,
    repeats: Repeats = 5,
    seconds: Seconds = 5.0,
    limit: Limit = 30.0,
    json: Json = None,
    plot: Plot = None,
) -> None:
    """A training step: VM-DDPM's UNet, and MONAI's and diffusers' of as many parameters."""
    sides = _numbers("--pixels", pixels)
    _check_files(json, plot)
    from ssmdiff_bench.job import bench

    record = bench.step(
        sides,
        preset=preset,
        channels=channels,
        batch=batch,
        precision=precision,
        device=device,
        only=_names(only),
        repeats=repeats,
        seconds=seconds,
        limit=limit,
        progress=True,
    )
    _tell(record, json, plot)
    for way, exponent in record.extra["growth"].items():
        if exponent is not None:
            typer.echo(f"{way}: time grows as pixels to the power of {exponent:.2f}")


@app.command("sample")
def sample(
    run: Annotated[Path, typer.Argument(help="The --out of ssmdiff train.")],
    n: Annotated[int, typer.Option("--n", min=1, help="Images of one call.")] = 4,
    steps: Annotated[int, typer.Option(min=1, help="Sampling steps.")] = 10,
    seed: Seed = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Images drawn at once.")] = 16,
    label: Annotated[int | None, typer.Option(help="Class, for a conditional model.")] = None,
    checkpoint: Annotated[str, typer.Option(help="latest, best, or step-NNNNNNNN.")] = "latest",
    only: Only = None,
    repeats: Repeats = 5,
    seconds: Seconds = 10.0,
    limit: Limit = 120.0,
    json: Json = None,
    plot: Plot = None,
) -> None:
    """The same images by torch, torch.compile and ONNX Runtime, and on a GPU where there is one."""
    _check_files(json, plot)
    from ssmdiff_bench.job import bench

    record = bench.sample(
        run,
        n=n,
        steps=steps,
        seed=seed,
        batch_size=batch_size,
        label=label,
        checkpoint=checkpoint,
        only=_names(only),
        repeats=repeats,
        seconds=seconds,
        limit=limit,
        progress=True,
    )
    _tell(record, json, plot)


def _check_files(json: Path | None, plot: Path | None) -> None:
    """Refuse files that cannot be written, before anything is measured."""
    if plot:
        from ssmdiff_bench.plot import require_matplotlib

        require_matplotlib()
    for path in (json, plot):
        if path and path.is_dir():
            raise ConfigError(f"{path} is a folder; expected the name of a file")


def _tell(record: Record, json: Path | None, plot: Path | None) -> None:
    """Print the record, and write it where that was asked for."""
    from ssmdiff_bench.plot import write_plot
    from ssmdiff_bench.record import table

    shown = [f"{k} {value}" for k, value in record.settings.items() if isinstance(value, int | str)]
    typer.echo(f"{record.machine['processor']}, {record.machine['threads']} threads")
    typer.echo(", ".join(shown))
    for line in table(record):
        typer.echo(line)
    typer.echo("")
    if json:
        record.write(json)
        typer.echo(f"record: {json}")
    if plot:
        write_plot(record, plot)
        typer.echo(f"plot: {plot}")


def _numbers(option: str, text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ConfigError(f"{option} {text!r}: expected whole numbers such as 256,1024")
    return sorted({int(part) for part in parts})


def _names(only: str | None) -> list[str] | None:
    return None if only is None else only.split(",")
