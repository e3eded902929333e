"""``ssmdiff sample``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from ssmdiff.errors import ConfigError

from ssmdiff_cli import settings


def sample(
    run: Annotated[Path, typer.Argument(help="The --out of ssmdiff train.")],
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
    checkpoint: Annotated[str, typer.Option(help="latest, or step-NNNNNNNN.")] = "latest",
    kernel: settings.Kernel = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the images of other settings.")
    ] = False,
) -> None:
    """Draw images from a trained run: single files and a grid. Goes on where it was stopped."""
    if format not in ("png", "npy"):
        raise ConfigError(f"--format {format!r}: expected png or npy")
    settings.component("scheduler", scheduler)

    import torch
    from ssmdiff.ops import set_kernel
    from ssmdiff.runs import load_run
    from ssmdiff.samples import SampleFolder, SampleRequest

    set_kernel(kernel or "auto")
    trained = load_run(run, checkpoint)
    if torch.accelerator.is_available():
        trained.to(torch.accelerator.current_accelerator() or "cpu")
    request = SampleRequest(seed=seed, steps=steps, scheduler=scheduler, label=label, format=format)
    folder = SampleFolder(out)
    grid = folder.fill(trained, request, n, batch_size, overwrite, progress=True)
    typer.echo(f"images: {out / f'000000.{format}'} to {n - 1:06d}.{format}")
    if grid:
        typer.echo(f"grid: {grid}")
