"""What the commands that draw images share: their flags, and how what draws is opened."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from ssmdiff.errors import ConfigError, ExportError, SsmdiffError
from ssmdiff.registry.registry import create, registry

from ssmdiff_cli import flags

if TYPE_CHECKING:
    from ssmdiff.diffusion.image_model import ImageModel

    from ssmdiff_cli.sample_folder import SampleRequest

Model = Annotated[
    Path, typer.Argument(help="The --out of ssmdiff train, or a file of ssmdiff export.")
]
Steps = Annotated[int | None, typer.Option(min=1, help="Sampling steps.")]
Scheduler = Annotated[
    str | None,
    typer.Option(
        help="Noise scheduler: ddpm, ddim, dpmpp, unipc, euler, heun; of a flow flow-euler, "
        "flow-heun, flow-adams.",
        autocompletion=flags.names_of("scheduler"),
    ),
]
Seed = Annotated[int, typer.Option(help="Image i depends on (seed, i) alone.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images drawn at once.")]
Format = Annotated[
    str,
    typer.Option(
        help="png (8 bits), png16, npy (float32), nifti or dicom; see: ssmdiff plugins list.",
        autocompletion=flags.names_of("writer"),
    ),
]
FormatSet = Annotated[
    list[str] | None,
    typer.Option("--set", help="option=value of the format, such as units=data of npy."),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="option=value of the format, such as units=data of npy; data.dataset.option=value of "
        "how pictures are read, such as data.dataset.value_range=[0,4095].",
    ),
]
Checkpoint = Annotated[
    str | None, typer.Option(help="Of a run: latest (default), best, or step-NNNNNNNN.")
]
Compile = Annotated[
    bool, typer.Option("--compile", help="Compile a run's network with torch.compile first.")
]
Provider = Annotated[
    str | None, typer.Option(help="Of ONNX Runtime, for a file: cpu (default), cuda, tensorrt.")
]
OrtLibrary = Annotated[
    Path | None, typer.Option(help="Our operator for ONNX Runtime, for a file: faster.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the images of other flags.")]


class Opening(NamedTuple):
    """Flags that say how a model is opened."""

    checkpoint: str | None
    kernel: str | None
    compile: bool
    provider: str | None
    ort_library: Path | None


def prepared(
    model: Path, form: str, sets: list[str] | None, scheduler: str | None, given: Opening
) -> tuple[str | dict[str, Any], ImageModel[Any]]:
    """The format, and what draws; names that are misspelt are told before anything is opened."""
    chosen = format_of(form, sets or [])
    flags.component("scheduler", scheduler)
    asked = {name: value for name, value in given._asdict().items() if value not in (None, False)}
    return chosen, _opened(model, asked)


def request_of(
    trained: ImageModel[Any],
    count: int,
    telling: flags.Telling,
    told: Mapping[str, Any] = MappingProxyType({}),
    **asked: Any,
) -> SampleRequest:
    """What decides the images of a set.

    Args:
        trained: What draws.
        count: Images of the set.
        telling: What they are told by flags, and how strongly they are led there.
        told: What is told besides, by name.
        **asked: The other fields of the request.

    Raises:
        ConfigError: A value does not fit the model.
    """
    from ssmdiff_cli.sample_folder import SampleRequest

    by_flags, guidance = telling.of(trained, count)
    return SampleRequest(told={**by_flags, **told}, guidance=guidance, **asked)


def fill_all(
    trained: ImageModel[Any], request: SampleRequest, out: Path, batch_size: int, overwrite: bool
) -> None:
    """Make an image of each that is given, in a folder."""
    assert request.made_of is not None
    count = len(request.made_of.names)
    said = f"images: {count} in {out}"
    fill(trained, request, out, range(count), count, batch_size, overwrite, said)


def fill(
    trained: ImageModel[Any],
    request: SampleRequest,
    out: Path,
    asked: range,
    size: int | None,
    batch_size: int,
    overwrite: bool,
    said: str,
) -> None:
    """Make these images of a set in a folder, of several processes each its share; the first of
    them says so, and where the grid is.

    Args:
        trained: What draws.
        request: What decides the images.
        out: The folder.
        asked: Which images.
        size: Of the whole set, where it is known.
        batch_size: Images drawn at once.
        overwrite: Replace the images of other flags.
        said: When they are there.
    """
    from ssmdiff_cli.sample_folder import SampleFolder
    from ssmdiff_cli.sample_share import Share

    rank, processes = (int(os.environ.get(key, "0")) for key in ("RANK", "WORLD_SIZE"))
    share = Share(asked, size, batch_size, rank, max(processes, 1))
    grid = SampleFolder(out).fill(trained, request, share, overwrite, progress=rank == 0)
    if rank == 0:
        typer.echo(said)
        if grid:
            typer.echo(f"grid: {grid}")


def format_of(name: str, sets: list[str]) -> str | dict[str, Any]:
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


OF_PICTURES = "data.dataset."


def parted(sets: list[str] | None) -> tuple[list[str], dict[str, Any]]:
    """``--set`` of a command that reads pictures: those of the format, and how they are read."""
    from ssmdiff.runs.config import assignments

    read = [word.removeprefix(OF_PICTURES) for word in sets or [] if word.startswith(OF_PICTURES)]
    return [word for word in sets or [] if not word.startswith(OF_PICTURES)], assignments(read)


def own_folder(path: Path, trained: ImageModel[Any]) -> Path:
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
    from ssmdiff.ops import set_kernel
    from ssmdiff.runs.run import load_run

    set_kernel(kernel)
    trained = load_run(path, checkpoint).to_accelerator()
    return trained.compile() if compile else trained
