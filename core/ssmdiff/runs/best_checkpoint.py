"""The best checkpoint of a run by one figure: a small file that names it, replaced whole.

Retention spares the checkpoint that it names. So one that was the best is deleted only after the
file names another, and a process that is killed in between leaves one checkpoint more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from ssmdiff.errors import CheckpointError, ConfigError
from ssmdiff.registry.options import STRICT, validate
from ssmdiff.runs.checkpoint import load_json, write_atomically

FILE = "best.json"
"""Beside the checkpoints."""


class BestCheckpoint(BaseModel):
    """A checkpoint and the figure by which it is the best so far."""

    model_config = STRICT

    checkpoint: Annotated[str, Field(pattern=r"^step-\d{8,}$")]
    figure: str
    value: float
    better: Literal["lower", "higher"]
    protocol: str
    """Digest of how it was judged; figures of another protocol are not compared with it."""

    def beats(self, other: BestCheckpoint | None) -> bool:
        """Whether it takes the other's place: its figure is better, or cannot be compared."""
        if other is None or (other.figure, other.protocol) != (self.figure, self.protocol):
            return True
        return self.value < other.value if self.better == "lower" else self.value > other.value


def find(checkpoints: Path) -> BestCheckpoint | None:
    """What the file in this folder names; None where there is none.

    Raises:
        CheckpointError: It is damaged.
    """
    path = checkpoints / FILE
    if not path.is_file():
        return None
    try:
        return validate(BestCheckpoint, load_json(path), str(path))
    except ConfigError as error:
        raise CheckpointError(str(error)) from error


def named(checkpoints: Path) -> str:
    """The name of the best checkpoint.

    Raises:
        CheckpointError: There is none.
    """
    found = find(checkpoints)
    if found is None:
        raise CheckpointError(
            f"{checkpoints} names no best checkpoint: the run was not judged as it trained. Train "
            "with train.evaluate_every, or choose latest or a step-NNNNNNNN"
        )
    return found.checkpoint


def keep(checkpoints: Path, best: BestCheckpoint) -> None:
    """Name another."""
    write_atomically(checkpoints / FILE, (best.model_dump_json(indent=2) + "\n").encode())
