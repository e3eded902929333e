"""``ssmdiff sample``."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from ssmdiff.errors import ConfigError, ExportError, SsmdiffError
from ssmdiff.registry.registry import create, registry

from ssmdiff_cli import flags

if TYPE_CHECKING:
    from ssmdiff.diffusion.image_model import ImageModel


def sample(
    model: Annotated[
        Path, typer.Argument(help="The --out of ssmdiff train, or a file of ssmdiff export.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Where the images go; by default samples/NAME-HASH of what draws them."),
    ] = None,
    n: Annotated[
        int | None,
        typer.Option("--n", "--count", min=1, help="How many images; 16 by default."),
    ] = None,
    indices: Annotated[
        str | None,
        typer.Option(
            help="Only these of them, such as 0:5000, without the last: for several jobs."
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Sampling steps.")] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="Noise scheduler: ddpm, ddim, dpmpp, unipc, euler, heun; of a flow flow-euler, "
            "flow-heun, flow-adams.",
            autocompletion=flags.names_of("scheduler"),
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Image i depends on (seed, i) alone.")] = 0,
    label: Annotated[
        str | None,
        typer.Option(help="Class of a conditional model, name or number; all in turn by default."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images drawn at once.")] = 16,
    format: Annotated[
        str,
        typer.Option(
            help="png (8 bits), png16, npy (float32), nifti or dicom; see: ssmdiff plugins list.",
            autocompletion=flags.names_of("writer"),
        ),
    ] = "png",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="option=value of the format, such as units=data of npy."),
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Of a run: latest (default), best, or step-NNNNNNNN.")
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
    form = _format(format, set_ or [])
    flags.component("scheduler", scheduler)
    given = {
        "checkpoint": checkpoint,
        "kernel": kernel,
        "compile": compile or None,
        "provider": provider,
        "ort_library": ort_library,
    }
    asked = _asked(indices, n)
    trained = _opened(model, {name: value for name, value in given.items() if value is not None})

    from ssmdiff_cli.sample_folder import SampleFolder, SampleRequest, Share

    request = SampleRequest(seed=seed, steps=steps, scheduler=scheduler, label=label, format=form)
    rank, processes = (int(os.environ.get(key, "0")) for key in ("RANK", "WORLD_SIZE"))
    size = len(asked) if indices is None else n
    share = Share(asked, size, batch_size, rank, max(processes, 1))
    out = out or _own_folder(model, trained)
    grid = SampleFolder(out).fill(trained, request, share, overwrite, progress=rank == 0)
    if rank:
        return
    suffix = create("writer", form).suffix
    typer.echo(f"images: {out / f'{asked[0]:06d}{suffix}'} to {asked[-1]:06d}{suffix}")
    if grid:
        typer.echo(f"grid: {grid}")


def _format(name: str, sets: list[str]) -> str | dict[str, Any]:
    """A writer that is installed, with options that it takes.

    Raises:
        ConfigError: There is no such writer or option, with the nearest one.
        PluginError: It needs a package that is not installed.
    """
    from ssmdiff.runs.config import assignments

    options = assignments(sets)
    try:
        create("writer", {"name": name, **options})
    except ConfigError as error:
        raise ConfigError(f"--format {name}: {error}") from error
    return {"name": name, **options} if options else name


def _asked(indices: str | None, n: int | None) -> range:
    """The images to draw: ``--indices A:B`` of ``--n`` images, or all of them.

    Raises:
        ConfigError: It is no such range, or reaches beyond the set.
    """
    if indices is None:
        return range(n or 16)
    start, _, stop = indices.partition(":")
    if not (start.isdecimal() and stop.isdecimal() and int(start) < int(stop)):
        raise ConfigError(f"--indices {indices!r}: expected a range such as 0:5000, with its end")
    if n is not None and int(stop) > n:
        raise ConfigError(f"--indices {indices} reaches beyond the {n} images of --n")
    return range(int(start), int(stop))


def _own_folder(path: Path, trained: ImageModel[Any]) -> Path:
    """A folder that no other model has: the name, and a hash of what the weights are."""
    origin = json.dumps(trained.origin(), sort_keys=True).encode()
    whole = path.resolve()
    name = whole.name if whole.is_dir() else whole.stem
    return Path("samples") / f"{name}-{hashlib.sha256(origin).hexdigest()[:8]}"


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
        device = torch.accelerator.current_accelerator() or "cpu"
        rank = int(os.environ.get("LOCAL_RANK", "0"))
        torch.accelerator.set_device_index(rank % torch.accelerator.device_count())
        trained.to(device)
    return trained.compile() if compile else trained
