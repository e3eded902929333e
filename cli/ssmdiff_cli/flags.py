"""The flags that several commands share: their types, and what the text of one means.

This is the public page for authors of commands: a plugin's command imports this module and nothing
else of the command line, so that its flags are spelt, explained and checked as everyone's::

    from ssmdiff_cli import flags

    def evaluate(preset: flags.Preset = None, scan: flags.Scan = None) -> None:
        chosen = {"--scan": ("model.scan", flags.component("scan", scan))}
        config = ssmdiff.resolve_flags(preset, flags=chosen)

Names with a capital are types of a command's parameters. How flags and files make a configuration
is one function, :func:`ssmdiff.resolve_flags`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from ssmdiff.errors import ConfigError, did_you_mean
from ssmdiff.registry.registry import registry


def names_of(*kinds: str) -> Callable[[], list[tuple[str, str]]]:
    """For ``autocompletion=``: the components of these kinds, by name and summary."""

    def complete() -> list[tuple[str, str]]:
        components = [entry.component for kind in kinds for entry in registry().all(kind)]
        return [(component.name, component.summary) for component in components]

    return complete


def _presets() -> list[str]:
    from ssmdiff.runs.config import presets

    return presets()


Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="tiny (the default), small, paper-128, or paper-acdc, -brats2018, -chestxray14; "
        "of flows tiny-flow, small-flow; "
        "of GANs tiny-dcgan, -sagan, -unetgan, paper-dcgan, -sagan, -unetgan.",
        autocompletion=_presets,
    ),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="A TOML file laid over the preset.")
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", help="path.to.key=value, such as model.backbone.channels=96."),
]
Scan = Annotated[
    str | None,
    typer.Option(help="Scan ordering; see: ssmdiff scans list.", autocompletion=names_of("scan")),
]
Block = Annotated[
    str | None,
    typer.Option(help="Block; see: ssmdiff plugins list.", autocompletion=names_of("block")),
]
Backbone = Annotated[
    str | None,
    typer.Option(help="Backbone: vmddpm or isotropic.", autocompletion=names_of("backbone")),
]
Method = Annotated[
    str | None,
    typer.Option(
        help="What is trained: diffusion, flow or gan.", autocompletion=names_of("method")
    ),
]
Gan = Annotated[
    str | None,
    typer.Option(
        help="A GAN by its networks: dcgan, sagan or unetgan.", autocompletion=names_of("gan")
    ),
]
Data = Annotated[
    str | None,
    typer.Option(help="A store, a folder of images, or a data set by name, such as phantom."),
]
ImageSize = Annotated[str | None, typer.Option(help="Pixels: 64, or 64x96 (height x width).")]
Steps = Annotated[int | None, typer.Option(help="Optimiser steps.")]
BatchSize = Annotated[int | None, typer.Option(help="Images a step, over all processes.")]
LearningRate = Annotated[float | None, typer.Option("--lr", help="Learning rate.")]
Precision = Annotated[str | None, typer.Option(help="fp32, bf16 or fp16 (GPU).")]
Kernel = Annotated[
    str | None,
    typer.Option(
        help="auto, or a kernel by name, which then must run.", autocompletion=names_of("kernel")
    ),
]
Workers = Annotated[int | None, typer.Option(help="Processes that read images.")]
Seed = Annotated[int | None, typer.Option(help="0 to 2**63 - 1.")]


def dataset_table(data: str | None) -> dict[str, Any] | None:
    """``--data``: a registered data set by name, a store, else a folder.

    Raises:
        ConfigError: It is neither.
    """
    if data is None:
        return None
    if data in registry().names("dataset"):
        return {"name": data}
    if (document := Path(data) / "store.json").is_file():
        return {"name": _dataset_of(document), "path": data}
    if Path(data).exists() or "/" in data or "\\" in data:
        return {"name": "folder", "path": data}
    hint = did_you_mean(data, registry().names("dataset"))
    raise ConfigError(
        f"--data {data}: there is no such folder and no data set of that name; {hint}"
    )


def _dataset_of(document: Path) -> str:
    """The data set that serves a store: the published one that it was made of, if it is here."""
    try:
        found = json.loads(document.read_bytes())["dataset"]
    except (OSError, ValueError, KeyError, TypeError):  # the data set says what is wrong with it
        return "store"
    return found if found in registry().names("dataset") else "store"


def image_size(text: str | None) -> int | list[int] | None:
    """``64``, or ``64x96`` as [height, width].

    Raises:
        ConfigError: It is neither.
    """
    if text is None:
        return None
    parts = text.lower().split("x")
    if not all(part.isdigit() and int(part) > 0 for part in parts) or len(parts) > 3:
        raise ConfigError(f"--image-size {text!r}: expected pixels such as 64, or 64x96")
    sizes = [int(part) for part in parts]
    return sizes[0] if len(sizes) == 1 else sizes


def gan_table(name: str | None) -> dict[str, Any] | None:
    """``--gan``: the method, with its networks by name."""
    network = component("gan", name)
    return None if network is None else {"name": "gan", "network": network}


def gan_preset(name: str | None) -> str | None:
    """The preset of a GAN where none is named: ``tiny-NAME``, of a stranger's that of DCGAN."""
    if name is None:
        return None
    return f"tiny-{name}" if f"tiny-{name}" in _presets() else "tiny-dcgan"


def component(kind: str, name: str | None) -> dict[str, Any] | None:
    """A component by name, looked up now so that a misspelt one is told first."""
    if name is None:
        return None
    registry().find(kind, name)
    return {"name": name}
