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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from ssmdiff.errors import ConfigError, did_you_mean
from ssmdiff.registry.registry import registry

if TYPE_CHECKING:
    import ssmdiff


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
Label = Annotated[
    str | None,
    typer.Option(
        help="Class to draw, name or number; several such as t1=3,flair=1 in turn, names of "
        "findings joined by +, none to leave it out. All in turn by default."
    ),
]
Tell = Annotated[
    list[str] | None,
    typer.Option(
        help="NAME=VALUE of another condition: a number, a range such as -10:10, names, "
        "a FILE or FOLDER of masks or images, or none; may be given again."
    ),
]
Guidance = Annotated[
    float | None,
    typer.Option(
        "--guidance",
        help="eps = uncond + S (cond - uncond): 1 is none (default), 0 tells nothing.",
    ),
]
GuidanceRescale = Annotated[
    float | None,
    typer.Option(help="0 to 1: how far each prediction's spread is put back to what it was."),
]
GuidanceInterval = Annotated[
    str | None,
    typer.Option(help="Where it leads, as shares of the steps, such as 0.2:0.8; all by default."),
]
GuidanceCalls = Annotated[
    int | None,
    typer.Option(help="1: one call of twice the images (default); 2: two calls, for less memory."),
]
Negative = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE", help="What to lead away from, instead of nothing: label=healthy."
    ),
]


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


class Telling(NamedTuple):
    """The flags that say what images are told, and how strongly they are led there."""

    label: str | None = None
    tell: Sequence[str] | None = None
    guidance: float | None = None
    guidance_rescale: float | None = None
    guidance_interval: str | None = None
    guidance_calls: int | None = None
    negative: Sequence[str] | None = None

    def given(self) -> list[str]:
        """Those that were given, as they are written."""
        values = self._asdict().items()
        return [f"--{name.replace('_', '-')}" for name, value in values if value not in (None, [])]

    def of(
        self, model: ssmdiff.ImageModel[Any], count: int
    ) -> tuple[dict[str, Any], ssmdiff.Guidance | None]:
        """What the images of a set are told, by name, and their guidance; None is none.

        Args:
            model: What draws them.
            count: Images of the set, which a range is spread over.

        Raises:
            ConfigError: A value is none of its condition, one is told twice, or a number is out of
                range or given without ``--guidance``.
        """
        from ssmdiff_cli.sample_telling import told_of_flags

        size, known = model.shape[1:], model.conditions
        away = told_of_flags(known, None, self.negative or [], count, "--negative", size)
        told = told_of_flags(known, self.label, self.tell or [], count, image_size=size)
        return told, self._guidance(away)

    def _guidance(self, away: dict[str, Any]) -> ssmdiff.Guidance | None:
        from ssmdiff import Guidance

        if self.guidance is None:
            if extra := self._replace(label=None, tell=None).given():
                raise ConfigError(
                    f"{extra[0]} was given without --guidance, which says how strongly"
                )
            return None
        interval = self.guidance_interval
        return Guidance(
            self.guidance,
            self.guidance_rescale or 0.0,
            (0.0, 1.0) if interval is None else _shares(interval),
            1 if self.guidance_calls is None else self.guidance_calls,
            away,
        )


def _shares(text: str) -> tuple[float, float]:
    """``0.2:0.8``."""
    start, _, stop = text.partition(":")
    try:
        return float(start), float(stop)
    except ValueError:
        raise ConfigError(
            f"--guidance-interval {text!r}: expected two shares of the steps, such as 0.2:0.8"
        ) from None
