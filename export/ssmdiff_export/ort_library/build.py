"""Compiles our operators with the system's compiler, once, into the user's cache.

    session_options.register_custom_ops_library(str(library()))

The library is native code that the process runs, so it is taken from one folder alone, which no one
but the user can write to.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

from ssmdiff import ExportError

SOURCE = Path(__file__).with_name("operators.cpp")
"""Includes the headers beside it."""
COMPILERS = ("c++", "g++", "clang++")
# No -march=native: the file compiles the arithmetic for several instruction sets and picks one when
# it is loaded, so that a cache on a network drive serves every machine.
FLAGS = (
    "-O3",
    "-std=c++17",
    "-shared",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-exceptions",
    "-ffp-contract=fast",
)
TIMEOUT_S = 300


def library(rebuild: bool = False) -> Path:
    """The library of custom ops, compiled if this source and compiler have not been met before.

    Args:
        rebuild: Compile again even if the cache has it.

    Returns:
        The path for ``SessionOptions.register_custom_ops_library``.

    Raises:
        ExportError: There is no compiler, it fails, or the cache folder cannot be trusted.
    """
    compiler = find_compiler()
    version = _run([*compiler, "--version"])
    files = [SOURCE, *sorted(SOURCE.parent.glob("*.h"))]
    sources = [file.read_text(encoding="utf-8") for file in files]
    text = "\0".join([*sources, version, *compiler, *FLAGS])
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = cache_folder() / f"selective_scan-{digest}.so"
    if rebuild or not path.is_file():
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
        os.close(handle)
        temporary = Path(name)
        try:
            _run([*compiler, *FLAGS, str(SOURCE), "-o", name])
            temporary.replace(path)  # a process that has the old one loaded keeps it
        finally:
            temporary.unlink(missing_ok=True)
    return path


def find_compiler() -> list[str]:
    """The C++ compiler as a command: the variable CXX, else the first of `COMPILERS` on the PATH.

    Raises:
        ExportError: There is none.
    """
    wanted = shlex.split(os.environ.get("CXX", ""))
    for command in [wanted] if wanted else [[name] for name in COMPILERS]:
        found = shutil.which(command[0])
        if found:
            return [found, *command[1:]]
    looked = f"CXX is {wanted[0]!r}, which is" if wanted else f"{', '.join(COMPILERS)} are"
    raise ExportError(
        f"the custom op needs a C++ compiler, and {looked} not on the PATH. Try: "
        "apt install g++, or set CXX. Exported models run without the custom op, only slower"
    )


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/ssmdiff`` or ``~/.cache/ssmdiff``, made if need be, for the user alone.

    Raises:
        ExportError: It cannot be made, or belongs to someone else.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))  # to be ignored unless absolute, says XDG
    folder = (base if base.is_absolute() else Path.home() / ".cache") / "ssmdiff"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise ExportError(
                f"the cache folder {folder} is a link or belongs to another user (uid "
                f"{found.st_uid}); libraries are loaded from a folder of your own alone. Try: "
                "XDG_CACHE_HOME=/a/folder/of/yours"
            )
        folder.chmod(0o700)
    except OSError as error:
        raise ExportError(
            f"the cache folder {folder} for the compiled custom op cannot be used: {error}. Try: "
            "XDG_CACHE_HOME=/a/folder/of/yours"
        ) from error
    return folder


def _run(command: list[str]) -> str:
    """The output of a compiler's run."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        output = getattr(error, "stderr", None) or str(error)
        raise ExportError(
            f"the compiler failed for the custom op: {shlex.join(command)}\n{output[-2000:]}\n"
            "Try: CXX=g++ with GCC 9 or newer, or clang++ 12 or newer. Exported models run "
            "without the custom op, only slower"
        ) from error
    return done.stdout
