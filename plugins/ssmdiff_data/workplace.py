"""Where a store is made: what is half-done, what may be replaced, and how the store gets its place.

What is done lies in ``STORE.preparing``: a part for each few cases, whole or not there. When all
are there the store is put together beside them, moved to its place by one rename, and the folder is
deleted, last the file that says that the store is finished.
"""

from __future__ import annotations

import fcntl
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssmdiff import ConfigError, DataError, printable, write_atomically

from ssmdiff_data.store import DOCUMENT, Store

_FINISHED = "finished"


def place_of(target: Path) -> Path:
    """The folder of what is half-done."""
    return target.with_name(f"{target.name}.preparing")


def refuse(root: Path, target: Path, overwrite: bool, work: Path) -> None:
    """Check that a store may be written there; nothing is touched."""
    source, place = root.resolve(), target.resolve()
    if source == place or source in place.parents or place in source.parents:
        raise ConfigError(
            f"--out {printable(target)} and the data {printable(root)} lie in each other; choose "
            "another --out"
        )
    if not target.exists() or is_done(target, work, overwrite):
        return
    if not (target.is_dir() and (target / DOCUMENT).is_file()):
        if target.is_dir() and not any(target.iterdir()):
            return
        raise ConfigError(f"--out {printable(target)} is there and no store; choose another")
    if not overwrite:
        raise ConfigError(
            f"--out {printable(target)} holds a store; replace it with --overwrite, or choose "
            "another"
        )


def is_done(target: Path, work: Path, overwrite: bool) -> bool:
    """Whether the store in place is the one that was being made when its process was killed."""
    try:
        if not overwrite and (target / DOCUMENT).is_file() and not any(work.iterdir()):
            return True  # nothing was left to do but to remove this folder
        return (work / _FINISHED).read_text() == Store(target).digest
    except (OSError, DataError):
        return False


@contextmanager
def locked(work: Path) -> Iterator[None]:
    """The folder of what is half-done, for this process alone."""
    try:
        work.mkdir(parents=True, exist_ok=True)
        (work / "parts").mkdir(exist_ok=True)
        lock = (work / "lock").open("w")
    except OSError as error:
        raise ConfigError(f"cannot write {printable(work)}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                f"another process makes this store ({printable(work)}); wait for it"
            ) from None
        yield


def own_salt(work: Path) -> bytes:
    """Drawn once for a store, kept until it is made."""
    file = work / "salt"
    if not file.is_file():
        write_atomically(file, secrets.token_hex(32).encode())
        file.chmod(0o600)
    return file.read_bytes()


def publish(work: Path, target: Path) -> Store:
    """Move the store to its place; an older one is kept until then."""
    digest = Store(work / "store").digest
    write_atomically(work / _FINISHED, digest.encode())
    old = work / "replaced"
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    (work / "store").rename(target)
    remove(work)
    return Store(target)


def remove(work: Path) -> None:
    """What says that the store is finished goes last."""
    for path in work.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != _FINISHED:
            path.unlink()
    (work / _FINISHED).unlink(missing_ok=True)
    work.rmdir()
