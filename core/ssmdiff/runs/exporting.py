"""What an exporter is, and what ``ssmdiff export`` asks of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from ssmdiff.runs.run import Run

ExportPrecision = Literal["fp32", "fp16", "bf16"]
ScanBody = Literal["scan", "chunked"]


@dataclass(frozen=True)
class ExportRequest:
    """What ``ssmdiff export`` asks of an exporter."""

    run: Run
    out: Path
    """The file, or the folder, to write; it is there whole or not at all."""
    precision: ExportPrecision = "fp32"
    """Of the weights and the activations; the scan's state and the file's I/O stay float32."""
    body: ScanBody = "scan"
    """How the scan is computed where our operator is not installed."""
    batch: tuple[int, int, int] = (1, 8, 64)
    """Fewest, usual and most images of a call."""
    verify: bool = True
    """Compare with torch; above tolerance nothing is left behind."""
    progress: bool = False
    overwrite: bool = False


class ExportResult(NamedTuple):
    """What an exporter wrote, and what to tell about it."""

    files: tuple[Path, ...]
    lines: tuple[str, ...]


class Exporter(Protocol):
    """A target of ``ssmdiff export``; a factory is called without arguments but its options."""

    def export(self, request: ExportRequest) -> ExportResult:
        """Write the model.

        Raises:
            ConfigError: The target is there already and may not be replaced.
            ExportError: The model cannot be exported, or the file does not agree with torch.
        """
        ...
