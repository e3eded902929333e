"""Exported files: made in a folder of their own, kept when they are proven."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssmdiff import ConfigError, ExportError


def refuse_to_replace(path: Path, overwrite: bool) -> None:
    """Check that the file may be written, before anything is computed.

    Raises:
        ConfigError: It is there already, or a folder is.
    """
    if path.is_dir():
        raise ConfigError(f"--out {path} is a folder; expected a file, such as {path / 'model'}")
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} is there already; choose another --out, or give --overwrite")


@contextmanager
def draft_folder(path: Path) -> Iterator[Path]:
    """A folder beside ``path`` in which files are made; it goes away, whatever happens.

    Raises:
        ExportError: The disk is full or not writable.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".tmp-{path.name}-", dir=path.parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error.strerror or error}") from error


def publish(folder: Path, path: Path, with_data: bool) -> tuple[Path, ...]:
    """Move the finished files into place, the model last: a reader sees the old or the new one."""
    kept = [path]
    if with_data:
        kept.insert(0, data_file(path))
    data_file(path).unlink(missing_ok=True)
    for file in kept:
        with (folder / file.name).open("rb") as written:
            os.fsync(written.fileno())
        (folder / file.name).replace(file)
    return tuple(reversed(kept))


def data_file(path: Path) -> Path:
    """The one file beside a model that may hold its weights."""
    return path.with_name(f"{path.name}.data")
