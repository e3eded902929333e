"""Every error that ssmdiff raises on purpose, and the exit code that the command line gives it.

A message says what happened, where, what was found, what was expected, and the next step.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable


class SsmdiffError(Exception):
    """Root of the project's errors. ``exit_code`` is what the command line exits with."""

    exit_code = 1


class ConfigError(SsmdiffError):
    """A configuration, an option or a combination of parts that cannot be used."""

    exit_code = 2


class PluginError(SsmdiffError):
    """Something about a plugin: see the subclasses."""

    exit_code = 3


class PluginNotFoundError(PluginError):
    """The plugin or distribution asked for is not installed."""


class PluginBrokenError(PluginError):
    """The plugin is installed and failed to load or to build its component."""


class PluginConflictError(PluginError):
    """Two distributions claim the same name, or one shadows a built-in."""


class ContractError(PluginError):
    """A component does not do what its kind promises (a scan that is no permutation, say)."""


class KernelUnavailableError(PluginError):
    """A kernel was asked for by name and cannot run here."""


class DataError(SsmdiffError):
    """The data on disk cannot be used."""

    exit_code = 4


class DivergedError(SsmdiffError):
    """Training met a loss or a gradient that is not finite."""

    exit_code = 5


class CheckpointError(SsmdiffError):
    """A checkpoint or a run folder cannot be written, read or trusted."""


class ExportError(SsmdiffError):
    """A model cannot be exported, or an exported file cannot be used or does not agree."""


class RunInterruptedError(SsmdiffError):
    """Training was asked to stop by a signal and saved first. ``exit_code`` is 128 + the signal."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class OutOfTimeError(RunInterruptedError):
    """``train.max_hours`` was over; training saved first. The code is EX_TEMPFAIL: start again."""

    def __init__(self, message: str) -> None:
        SsmdiffError.__init__(self, message)
        self.exit_code = 75


def printable(path: str | os.PathLike[str]) -> str:
    """A file name as one line of valid text: odd bytes and control characters escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def did_you_mean(got: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest known word, or all of them when none is near."""
    words = sorted(known)
    near = difflib.get_close_matches(got, words, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known: {', '.join(words)}" if words else "none is known here"
