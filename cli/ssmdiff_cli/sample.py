"""``ssmdiff sample``."""

from __future__ import annotations

import inspect
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from ssmdiff.errors import ConfigError, ExportError, SsmdiffError
from ssmdiff.registry.registry import registry

from ssmdiff_cli import flags

if TYPE_CHECKING:
    from ssmdiff.diffusion.image_model import ImageModel


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
    kernel: flags.Kernel = None,
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
        bool, typer.Option("--overwrite", help="Replace the images of other flags.")
    ] = False,
) -> None:
    """Draw images from a run or an exported file: single files and a grid.

    Goes on where it was stopped.
    """
    if format not in ("png", "npy"):
        raise ConfigError(f"--format {format!r}: expected png or npy")
    flags.component("scheduler", scheduler)
    given = {
        "checkpoint": checkpoint,
        "kernel": kernel,
        "compile": compile or None,
        "provider": provider,
        "ort_library": ort_library,
    }
    trained = _opened(model, {name: value for name, value in given.items() if value is not None})

    from ssmdiff_cli.sample_folder import SampleFolder, SampleRequest

    request = SampleRequest(seed=seed, steps=steps, scheduler=scheduler, label=label, format=format)
    grid = SampleFolder(out).fill(trained, request, n, batch_size, overwrite, progress=True)
    typer.echo(f"images: {out / f'000000.{format}'} to {n - 1:06d}.{format}")
    if grid:
        typer.echo(f"grid: {grid}")


RUN, CONFIG = "a run", "config.toml"


def _opened(path: Path, given: dict[str, Any]) -> ImageModel[Any]:
    """A run, or what an exporter wrote, with the options that it takes.

    Raises:
        ConfigError: An option was given that it does not take.
        ExportError: The file is of no target that is installed here.
    """
    from ssmdiff.runs.exporting import exporter_of

    found = None if (path / CONFIG).exists() else exporter_of(path)
    if found is None and path.is_file():
        known = ", ".join(registry().names("exporter"))
        raise ExportError(
            f"{path} is refused: it is no file that ssmdiff writes. Expected one of ssmdiff export "
            f"(targets: {known}), or the folder of a run"
        )
    what, open_model = (RUN, _run) if found is None else (f"a file of {found[0]}", found[1].open)
    taken = inspect.signature(open_model).parameters
    for name in given:
        if name not in taken:
            raise ConfigError(
                f"--{name.replace('_', '-')} is of {_takers(name)}, and {what} was given"
            )
    return open_model(path, **given)


def _takers(option: str) -> str:
    """What takes an option: a run, files of some targets, or both."""
    takers = [RUN] if option in inspect.signature(_run).parameters else []
    for entry in registry().all("exporter"):
        with suppress(SsmdiffError):
            exporter = registry().create("exporter", entry.component.name)
            if option in inspect.signature(exporter.open).parameters:
                takers.append(f"a file of {entry.component.name}")
    return " or ".join(takers)


def _run(
    path: Path, checkpoint: str = "latest", kernel: str = "auto", compile: bool = False
) -> ImageModel[Any]:
    import torch
    from ssmdiff.ops import set_kernel
    from ssmdiff.runs.run import load_run

    set_kernel(kernel)
    trained = load_run(path, checkpoint)
    if torch.accelerator.is_available():
        trained.to(torch.accelerator.current_accelerator() or "cpu")
    return trained.compile() if compile else trained
