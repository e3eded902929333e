"""Every file in a folder and below it, and what is passed over."""

from __future__ import annotations

import os
from pathlib import Path

from ssmdiff import DataError, printable


def files_in(root: Path) -> tuple[list[Path], dict[str, list[str]]]:
    """Regular files, sorted by their names' bytes, and the hidden ones by kind.

    Links are followed; each real folder is entered once.

    Raises:
        DataError: There is no such folder, or it cannot be listed.
    """
    if root.is_file():
        return [root], {}
    if not root.is_dir():
        raise DataError(f"there is no folder {printable(root)}; expected one that holds images")
    files: list[Path] = []
    hidden: list[str] = []
    entered = {_identity(root)}
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            raise DataError(
                f"cannot list the folder {printable(folder)}: {error.strerror}"
            ) from None
        for entry in entries:
            path = Path(entry.path)
            if entry.name.startswith("."):
                hidden.append(str(path.relative_to(root)))
            elif path.is_dir():
                if (identity := _identity(path)) not in entered:
                    entered.add(identity)
                    pending.append(path)
            elif path.is_file():
                files.append(path)
    files.sort(key=os.fsencode)
    return files, {"hidden": hidden} if hidden else {}


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
