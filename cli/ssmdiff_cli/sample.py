"""``ssmdiff sample``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from ssmdiff.errors import ConfigError
from ssmdiff.registry.registry import create

from ssmdiff_cli import drawing, flags


def sample(
    model: drawing.Model,
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
    steps: drawing.Steps = None,
    scheduler: drawing.Scheduler = None,
    seed: drawing.Seed = 0,
    label: flags.Label = None,
    tell: flags.Tell = None,
    guidance: flags.Guidance = None,
    guidance_rescale: flags.GuidanceRescale = None,
    guidance_interval: flags.GuidanceInterval = None,
    guidance_calls: flags.GuidanceCalls = None,
    negative: flags.Negative = None,
    batch_size: drawing.BatchSize = 16,
    format: drawing.Format = "png",
    set_: drawing.FormatSet = None,
    checkpoint: drawing.Checkpoint = None,
    kernel: flags.Kernel = None,
    compile: drawing.Compile = False,
    provider: drawing.Provider = None,
    ort_library: drawing.OrtLibrary = None,
    overwrite: drawing.Overwrite = False,
) -> None:
    """Draw images from a run or an exported file: single files and a grid.

    Goes on where it was stopped.
    """
    asked = _asked(indices, n)
    given = drawing.Opening(checkpoint, kernel, compile, provider, ort_library)
    telling = flags.Telling(
        label, tell, guidance, guidance_rescale, guidance_interval, guidance_calls, negative
    )
    form, trained = drawing.prepared(model, format, set_, scheduler, given)

    request = drawing.request_of(
        trained,
        n or asked[-1] + 1,
        telling,
        seed=seed,
        steps=steps,
        scheduler=scheduler,
        format=form,
    )
    size = len(asked) if indices is None else n
    out = out or drawing.own_folder(model, trained)
    suffix = create("writer", form).suffix
    said = f"images: {out / f'{asked[0]:06d}{suffix}'} to {asked[-1]:06d}{suffix}"
    drawing.fill(trained, request, out, asked, size, batch_size, overwrite, said)


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
