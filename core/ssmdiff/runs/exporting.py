"""What an exporter is: a target of ``ssmdiff export``, and the one who opens what it wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from ssmdiff.errors import ConfigError, SsmdiffError
from ssmdiff.registry.registry import registry

if TYPE_CHECKING:
    from ssmdiff.diffusion.image_model import ImageModel
    from ssmdiff.runs.run import Run

ExportPrecision = Literal["fp32", "fp16", "bf16"]


@dataclass(frozen=True)
class ExportRequest:
    """What ``ssmdiff export`` asks of every exporter; the rest are options of its factory."""

    run: Run
    out: Path
    """The file, or the folder, to write; it is there whole or not at all."""
    precision: ExportPrecision = "fp32"
    """Of the weights and the activations; the scan's state and the file's I/O stay float32."""
    verify: bool = True
    """Compare with torch; above tolerance nothing is left behind."""
    progress: bool = False
    overwrite: bool = False


class ExportResult(NamedTuple):
    """What an exporter wrote, and what to tell about it."""

    files: tuple[Path, ...]
    lines: tuple[str, ...]


class Exporter(Protocol):
    """A target of ``ssmdiff export``.

    A factory is called with its options alone, ``ssmdiff export RUN --to NAME --set key=value``;
    each has a default, so that files are opened without them.
    """

    suffixes: tuple[str, ...]
    """What the names of its files end with, such as ``(".onnx",)``; empty for a folder. ``--out``
    with the suffix of another target is refused."""

    def export(self, request: ExportRequest) -> ExportResult:
        """Write the model.

        Raises:
            ConfigError: The target is there already and may not be replaced.
            ExportError: The model cannot be exported, or the file does not agree with torch.
        """
        ...

    def recognises(self, path: Path) -> bool:
        """Whether this file or folder is of this target: by its content, never by its name.

        It reads a little, runs nothing and raises nothing; :meth:`open` finds what is wrong.
        """
        ...

    @property
    def open(self) -> Callable[..., ImageModel[Any]]:
        """``open(path, **options)``: what it wrote, ready to sample.

        Of the flags of ``ssmdiff sample`` it takes those that its signature names: ``provider``,
        ``ort_library``, ``kernel``, ``compile``. It raises an ExportError for a file that is
        damaged or may not be opened.
        """
        ...


def exporter_of(path: Path) -> tuple[str, Exporter] | None:
    """Name and exporter of the target that a file or folder is of; None if nobody claims it.

    It is told by its content. What nobody recognises goes to whose suffix it has, who can say what
    is wrong with it.
    """
    exporters = dict(_exporters())
    for name, exporter in exporters.items():
        if exporter.recognises(path):
            return name, exporter
    owner = exporter_of_suffix(path.suffix)
    return None if owner is None else (owner, exporters[owner])


def open_model(path: Path, checkpoint: str | None = None) -> ImageModel[Any]:
    """A run, on the accelerator if there is one (:meth:`Run.to_accelerator`), or an exported file;
    whatever draws images.

    Args:
        path: A run's folder, or what an exporter wrote.
        checkpoint: Of a run; None is the newest.

    Raises:
        ConfigError: It is neither, or a file, which has no checkpoints.
    """
    from ssmdiff.runs.folder import RunFolder
    from ssmdiff.runs.run import load_run

    if RunFolder(path).exists:
        return load_run(path, checkpoint or "latest").to_accelerator()
    found = exporter_of(path) if path.exists() else None
    if found is None:
        raise ConfigError(
            f"{path} is no run, no exported file and no folder of images; expected one of them"
        )
    if checkpoint is not None:
        raise ConfigError(f"--checkpoint {checkpoint}: {path} is a file of {found[0]}")
    return found[1].open(path)


def exporter_of_suffix(suffix: str) -> str | None:
    """The target whose files are named so."""
    return next((name for name, e in _exporters() if suffix in e.suffixes), None)


def _exporters() -> Iterator[tuple[str, Exporter]]:
    """Those that work here, each with its defaults: a broken one hides no file of another."""
    for entry in registry().all("exporter"):
        with suppress(SsmdiffError):
            yield entry.component.name, registry().create("exporter", entry.component.name)
