"""``ssmdiff bench``."""

from __future__ import annotations

import dataclasses
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from ssmdiff import ConfigError, did_you_mean

if TYPE_CHECKING:
    from ssmdiff_bench.compare import Effort
    from ssmdiff_bench.record import Record
    from ssmdiff_bench.worker import Case, Way

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
    _one_of("--order", order, ("raster", "random"))
    _one_of("--dtype", dtype, ("float32", "bfloat16", "float16"))
    from ssmdiff_bench import scan as bench_scan
    from ssmdiff_bench.compare import Effort

    shape = bench_scan.ScanShape(
        batch,
        channels,
        directions,
        states,
        order,  # type: ignore[arg-type]
        dtype,
        _device(device),
    )
    settings = dataclasses.asdict(shape)
    settings["difference"] = "of the output, relative to its largest value"
    effort = Effort(repeats, seconds, limit)
    with _record("scan", "tokens", settings, json, plot) as record:
        ways, cases = bench_scan.scan_ways(shape), bench_scan.cases(sizes)
        _measure(record, ways, cases, effort, only)


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
    _one_of("--precision", precision, ("fp32", "bf16"))
    from ssmdiff_bench import step as bench_step
    from ssmdiff_bench.compare import Effort

    shape = bench_step.StepShape(preset, channels, batch, precision, _device(device))
    for side in sides:
        bench_step.check(shape, side)
    effort = Effort(repeats, seconds, limit)
    with _record("step", "pixels", dataclasses.asdict(shape), json, plot) as record:
        ways, cases = bench_step.step_ways(shape), bench_step.cases(sides)
        _measure(record, ways, cases, effort, only)
        record.extra["growth"] = bench_step.growths(record)
        record.shown = bench_step.SHOWN
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
    checkpoint: Annotated[str, typer.Option(help="latest, or step-NNNNNNNN.")] = "latest",
    only: Only = None,
    repeats: Repeats = 5,
    seconds: Seconds = 10.0,
    limit: Limit = 120.0,
    json: Json = None,
    plot: Plot = None,
) -> None:
    """The same images by torch, torch.compile and ONNX Runtime, and on a GPU where there is one."""
    from ssmdiff import load_run

    from ssmdiff_bench import sample as bench_sample
    from ssmdiff_bench.compare import Effort
    from ssmdiff_bench.export import export_ways

    trained = load_run(run, checkpoint)  # refuse what is no run before anything is started
    draw = bench_sample.Draw(n, steps, seed, batch_size, label)
    image_size = trained.config.data.image_size
    settings = dataclasses.asdict(draw) | {
        "run": str(run),
        "checkpoint": trained.checkpoint.path.name,
        "image_size": list(image_size),
        "difference": "largest of a pixel, as a part of the range -1 to 1",
    }
    effort = Effort(repeats, seconds, limit)
    with (
        _record("sample", "pixels", settings, json, plot) as record,
        tempfile.TemporaryDirectory(prefix="ssmdiff-bench-") as folder,
    ):
        ways = bench_sample.torch_ways(run, checkpoint, draw)
        if only is None or set(only.split(",")) - {way.name for way in ways}:
            typer.echo("exporting the run", err=True)
            ways += export_ways(run, checkpoint, draw, Path(folder))
        cases = [{"series": bench_sample.SERIES, "size": math.prod(image_size)}]
        _measure(record, ways, cases, effort, only, bench_sample.SCALE)
        bench_sample.finish(record.rows, n)
        record.shown = bench_sample.SHOWN


@contextmanager
def _record(
    name: str, size: str, settings: dict[str, Any], json: Path | None, plot: Path | None
) -> Iterator[Record]:
    """A record to be filled; printed at the end, and written where that was asked for.

    Raises:
        ConfigError: The files cannot be written; told before anything is measured.
    """
    from ssmdiff_bench.machine import machine
    from ssmdiff_bench.plot import require_matplotlib, write_plot
    from ssmdiff_bench.record import Record, table

    if plot:
        require_matplotlib()
    for path in (json, plot):
        if path and path.is_dir():
            raise ConfigError(f"{path} is a folder; expected the name of a file")
    record = Record(name, machine(), settings, [], size)
    yield record
    told = [f"{key} {value}" for key, value in settings.items() if isinstance(value, (int, str))]
    typer.echo(f"{record.machine['processor']}, {record.machine['threads']} threads")
    typer.echo(", ".join(told))
    for line in table(record):
        typer.echo(line)
    typer.echo("")
    if json:
        record.write(json)
        typer.echo(f"record: {json}")
    if plot:
        write_plot(record, plot)
        typer.echo(f"plot: {plot}")


def _measure(
    record: Record,
    ways: Sequence[Way],
    cases: Sequence[Case],
    effort: Effort,
    only: str | None,
    scale: float | None = None,
) -> None:
    """Fill the record's rows, behind a progress bar."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from ssmdiff_bench import compare
    from ssmdiff_bench.memory import METHODS, why_not

    record.settings |= dataclasses.asdict(effort) | {"memory": METHODS | {"cpu_lacks": why_not()}}
    chosen = compare.choose(ways, None if only is None else only.split(","))
    bar = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=Console(file=sys.stderr),
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=compare.steps(chosen, cases))

        def tell(text: str) -> None:
            if text:
                bar.update(task, description=text)
            else:
                bar.advance(task)

        record.rows = compare.measure(chosen, cases, effort, tell, scale)


def _numbers(option: str, text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ConfigError(f"{option} {text!r}: expected whole numbers such as 256,1024")
    return sorted({int(part) for part in parts})


def _one_of(option: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"{option} {value!r}; {did_you_mean(value, known)}")


def _device(name: str | None) -> str:
    """``cpu`` or ``cuda``; by default a GPU where there is one."""
    import torch

    if name is not None:
        _one_of("--device", name, ("cpu", "cuda"))
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: no GPU was found (torch.cuda.is_available() is False)")
    return name or ("cuda" if torch.cuda.is_available() else "cpu")
