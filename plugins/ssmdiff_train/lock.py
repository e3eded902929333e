"""One process trains in a run folder at a time."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from ssmdiff import CheckpointError

NAME = "run.lock"


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold ``run.lock`` in a run folder, made if need be; one whose process is gone is taken over.

    Raises:
        CheckpointError: Another live process, or one on another host, holds it.
    """
    path = folder / NAME
    host = socket.gethostname()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_if_held(path, host)
        _take(path, json.dumps({"host": host, "pid": os.getpid()}))
    except FileExistsError:
        raise CheckpointError(f"another process has just started a run in {folder}") from None
    except OSError as error:
        raise CheckpointError(f"cannot write in {folder}: {error.strerror or error}") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _take(path: Path, text: str) -> None:
    """Make the lock with its text in it: nobody ever reads half of it.

    Raises:
        FileExistsError: Another process was faster.
    """
    draft = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    draft.write_text(text)
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        with path.open("x") as file:
            file.write(text)
    finally:
        draft.unlink()


def _refuse_if_held(path: Path, host: str) -> None:
    try:
        owner = json.loads(path.read_text())
        pid, there = int(owner["pid"]), str(owner["host"])
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError):
        path.unlink(missing_ok=True)  # where there are no hard links: killed while it wrote
        return
    if there == host and not _alive(pid):
        path.unlink(missing_ok=True)
        return
    raise CheckpointError(
        f"{path.parent} is in use by process {pid} on {there}; wait for it, choose another --out, "
        f"or, if that process is gone, delete {path}"
    )


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
