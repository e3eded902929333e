"""Whose image a file is, and which images nothing is trained on.

A patient is on one side alone: held out, or trained on.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from ssmdiff import ConfigError, DataError


def groups_of(
    names: Sequence[str], pattern: str | None, option: str = "data.dataset.group"
) -> list[str] | None:
    """The group of each file by a regular expression, None without one.

    Args:
        names: Relative to the folder.
        pattern: Searched in each name; its first bracket is the group, or the whole match.
        option: What messages call the pattern.

    Raises:
        ConfigError: It is no regular expression.
        DataError: It does not match a name.
    """
    if pattern is None:
        return None
    try:
        rule = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{option} {pattern!r} is no regular expression: {error}") from None
    found = []
    for number, name in enumerate(names):
        match = rule.search(Path(name).as_posix())
        if match is None:
            raise DataError(
                f"{option} {pattern!r} matches {number} files and then not {name!r}; "
                "expected a pattern that finds the patient in every name"
            )
        found.append(match.group(1) if rule.groups else match.group())
    return found


def held_out_of(
    root: Path, names: Sequence[str], groups: Sequence[str] | None, held_out: float | str | None
) -> list[bool]:
    """Which files are held out: a share of the groups (of the files without groups), or a list.

    A share is taken by a hash of the group's name, so that it stays the same when files are added.

    Args:
        root: The folder.
        names: Relative to it.
        groups: Of each name.
        held_out: A share between 0 and 1, or the path of a text file with a name a line.

    Raises:
        ConfigError: The share is not between 0 and 1, or leaves one side empty.
        DataError: The list cannot be read, names a file that is not there, or cuts a patient in
            two.
    """
    if held_out is None:
        return [False] * len(names)
    keys = list(groups or names)
    if isinstance(held_out, str):
        chosen = _listed(root, names, held_out)
        flags = [name in chosen for name in names]
        out = {key for key, flag in zip(keys, flags, strict=True) if flag}
        cut = [key for key, flag in zip(keys, flags, strict=True) if not flag and key in out]
        if groups is not None and cut:
            raise DataError(
                f"{held_out} holds out some images of {len(set(cut))} patients and leaves others "
                "to training; list all images of a patient, or give data.dataset.held_out a share"
            )
    else:
        if not 0 < held_out < 1:
            raise ConfigError(
                f"data.dataset.held_out is {held_out}; expected a share between 0 and 1, or a list"
            )
        flags = [_place(key) < held_out for key in keys]
    if all(flags) or not any(flags):
        raise ConfigError(
            f"data.dataset.held_out = {held_out!r} holds {sum(flags)} of {len(names)} images out; "
            "expected some on either side"
        )
    return flags


def _place(key: str) -> float:
    """A number from 0 to 1 that belongs to a group for ever."""
    digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _listed(root: Path, names: Sequence[str], path: str) -> set[str]:
    file = Path(path).expanduser()
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"data.dataset.held_out: {file} cannot be read: {error}") from error
    listed = {line.strip() for line in lines if line.strip()}
    missing = sorted(listed - set(names))
    if missing:
        raise DataError(
            f"{file} lists {missing[0]!r}, which is none of the images under {root}"
            + (f", and {len(missing) - 1} more" if len(missing) > 1 else "")
        )
    return listed
