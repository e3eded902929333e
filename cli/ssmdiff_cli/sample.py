"""``ssmdiff sample``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from ssmdiff.errors import ConfigError

from ssmdiff_cli import settings

if TYPE_CHECKING:
    from ssmdiff_cli.samples import ImageModel


FILES = (".onnx", ".engine", ".plan")


def sample(
    model: Annotated[
        Path, typer.Argument(help="The --out of ssmdiff train, or a file of ssmdiff export.")
    ],
    out: Annotated[Path, typer.Option(help="Where the images go.")] = Path("samples"),
    n: Annotated[int, typer.Option("--n", min=1, help="How many images.")] = 16,
    steps: Annotated[int | None, typer.Option(min=1, help="Sampling steps.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Noise scheduler: ddpm, ddim, dpmpp, unipc, euler, heun.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Image i depends on (seed, i) alone.")] = 0,
    label: Annotated[int | None, typer.Option(help="Class, for a conditional model.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images drawn at once.")] = 16,
    format: Annotated[str, typer.Option(help="png (8 bits) or npy (float32, -1 to 1).")] = "png",
    checkpoint: Annotated[
        str | None, typer.Option(help="Of a run: latest (default), or step-NNNNNNNN.")
    ] = None,
    kernel: settings.Kernel = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile a run's network with torch.compile first.")
    ] = False,
    provider: Annotated[
        str | None, typer.Option(help="Of ONNX Runtime, for a file: cpu (default), cuda, tensorrt.")
    ] = None,
    ort_library: Annotated[
        Path | None, typer.Option(help="Our operator for ONNX Runtime, for a file: faster.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the images of other settings.")
    ] = False,
) -> None:
    """Draw images from a run or an exported file: single files and a grid.

    Goes on where it was stopped.
    """
    if format not in ("png", "npy"):
        raise ConfigError(f"--format {format!r}: expected png or npy")
    settings.component("scheduler", scheduler)
    if model.is_file() or model.suffix in FILES:
        _refuse("a run", "a file", checkpoint=checkpoint, kernel=kernel, compile=compile or None)
        trained = _file(model, provider or "cpu", ort_library)
    else:
        _refuse("a file", "a run", provider=provider, ort_library=ort_library)
        trained = _run(model, checkpoint or "latest", kernel, compile)

    from ssmdiff_cli.samples import SampleFolder, SampleRequest

    request = SampleRequest(seed=seed, steps=steps, scheduler=scheduler, label=label, format=format)
    grid = SampleFolder(out).fill(trained, request, n, batch_size, overwrite, progress=True)
    typer.echo(f"images: {out / f'000000.{format}'} to {n - 1:06d}.{format}")
    if grid:
        typer.echo(f"grid: {grid}")


def _refuse(of: str, given: str, **options: object) -> None:
    for name, value in options.items():
        if value is not None:
            raise ConfigError(f"--{name.replace('_', '-')} is of {of}, and {given} was given")


def _run(path: Path, checkpoint: str, kernel: str | None, compile: bool) -> ImageModel:
    import torch
    from ssmdiff.ops import set_kernel
    from ssmdiff.runs.run import load_run

    set_kernel(kernel or "auto")
    trained = load_run(path, checkpoint)
    if torch.accelerator.is_available():
        trained.to(torch.accelerator.current_accelerator() or "cpu")
    return trained.compile() if compile else trained


def _file(path: Path, provider: str, library: Path | None) -> ImageModel:
    from ssmdiff_export.model_file import open_model

    return open_model(path, provider, library)
