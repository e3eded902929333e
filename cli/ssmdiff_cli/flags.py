"""The flags that several commands share, and how they become layers of a configuration.

This is the public page for authors of commands: a plugin's command imports this module and nothing
else of the command line, so that its flags are spelt, explained and checked as everyone's::

    from ssmdiff_cli import flags

    def evaluate(preset: flags.Preset = None, set_: flags.Assignments = None) -> None:
        config = flags.compose_layers(preset, None, set_, {})

Names with a capital are types of a command's parameters. ``ssmdiff.runs.config`` is imported where
it is used, so that ``--help`` answers without pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from ssmdiff.errors import ConfigError
from ssmdiff.registry.registry import registry

if TYPE_CHECKING:
    from ssmdiff.runs.config import Config

Preset = Annotated[
    str | None, typer.Option("--preset", help="tiny (the default), small or paper-128.")
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="A TOML file laid over the preset.")
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", help="path.to.key=value, such as model.backbone.channels=96."),
]
Scan = Annotated[str | None, typer.Option(help="Scan ordering; see: ssmdiff scans list.")]
Block = Annotated[str | None, typer.Option(help="Block; see: ssmdiff plugins list.")]
Backbone = Annotated[str | None, typer.Option(help="Backbone: vmddpm or isotropic.")]
Data = Annotated[
    str | None, typer.Option(help="A folder of images, or a data set by name, such as phantom.")
]
ImageSize = Annotated[str | None, typer.Option(help="Pixels: 64, or 64x96 (height x width).")]
Steps = Annotated[int | None, typer.Option(help="Optimiser steps.")]
BatchSize = Annotated[int | None, typer.Option(help="Images a step, over all processes.")]
LearningRate = Annotated[float | None, typer.Option("--lr", help="Learning rate.")]
Precision = Annotated[str | None, typer.Option(help="fp32, bf16 or fp16 (GPU).")]
Kernel = Annotated[str | None, typer.Option(help="auto, or a kernel by name, which then must run.")]
Workers = Annotated[int | None, typer.Option(help="Processes that read images.")]
Seed = Annotated[int | None, typer.Option(help="0 to 2**63 - 1.")]


def compose_layers(
    preset: str | None,
    config: Path | None,
    sets: list[str] | None,
    named: Mapping[str, Any],
    base: Mapping[str, Any] | None = None,
) -> Config:
    """Preset (or an existing run) < file < ``--set`` < named flags, resolved."""
    from ssmdiff.runs.config import (
        DEFAULT_PRESET,
        load_file,
        load_preset,
        resolve,
    )

    below = base if base is not None else load_preset(preset or DEFAULT_PRESET)
    above = load_file(config) if config else {}
    return resolve(below, above, assigned(sets), layer_of(named))


def assigned(sets: list[str] | None) -> dict[str, Any]:
    """``--set path.to.key=value`` as one layer; values as TOML has them, else plain text.

    Raises:
        ConfigError: One is not of that form.
    """
    from ssmdiff.runs.config import assignments

    return assignments(sets or ())


def layer_of(named: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted paths to values as one layer; those that were not given are left out."""
    from ssmdiff.runs.config import merge

    layer: dict[str, Any] = {}
    for path, value in named.items():
        if value is None:
            continue
        for key in reversed(path.split(".")):
            value = {key: value}
        layer = merge(layer, value)
    return layer


def dataset_table(data: str | None) -> dict[str, Any] | None:
    """``--data``: a registered data set by name, else a folder.

    Raises:
        ConfigError: It is neither.
    """
    if data is None:
        return None
    if data in registry().names("dataset"):
        return {"name": data}
    if Path(data).exists() or "/" in data or "\\" in data:
        return {"name": "folder", "path": data}
    known = ", ".join(registry().names("dataset"))
    raise ConfigError(f"--data {data}: there is no such folder, and the data sets are {known}")


def image_size(text: str | None) -> list[int] | None:
    """``64`` or ``64x96`` as [height, width].

    Raises:
        ConfigError: It is neither.
    """
    if text is None:
        return None
    parts = text.lower().split("x")
    if not all(part.isdigit() and int(part) > 0 for part in parts) or len(parts) > 3:
        raise ConfigError(f"--image-size {text!r}: expected pixels such as 64, or 64x96")
    sizes = [int(part) for part in parts]
    return sizes * 2 if len(sizes) == 1 else sizes


def component(kind: str, name: str | None) -> dict[str, Any] | None:
    """A component by name, looked up now so that a misspelt one is told first."""
    if name is None:
        return None
    registry().find(kind, name)
    return {"name": name}
