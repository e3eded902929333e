"""Where a run may not be written: among the images that it is trained on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ssmdiff.errors import ConfigError


def refuse_among(out: Path, folders: Iterable[Path]) -> None:
    """Check that ``out`` lies in none of these folders of images, and none in it.

    Raises:
        ConfigError: One does; links are followed.
    """
    run = out.resolve()
    for folder in folders:
        data = folder.resolve()
        if data == run or run in data.parents:
            raise ConfigError(f"--out {out} holds the data ({folder}); choose another")
        if data in run.parents:
            raise ConfigError(
                f"--out {out} lies in the data ({folder}), where the run's own pictures "
                "would be trained on; choose a folder outside of it"
            )
