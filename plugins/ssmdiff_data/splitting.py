"""Which patient is in which split, and how a patient is called in a store.

A patient is in one split alone. What a store holds of a patient is HMAC-SHA256 of the name under a
salt that the user keeps, or that is thrown away.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ssmdiff import ConfigError, DataError, printable

TRAIN = "train"
SHARES = {"test": 0.1}
"""Of the patients, unless something else is asked for; the rest is trained on."""
ENOUGH = 10
"""Patients from which on some are held out without being asked."""
_LISTED = 3


def parse_shares(text: str) -> dict[str, float]:
    """``val=0.1,test=0.1``: what is left over is ``train``.

    Raises:
        ConfigError: It is not of that form, or the shares leave nothing to train on.
    """
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, equals, share = part.partition("=")
        try:
            shares[name.strip()] = float(share)
        except ValueError:
            equals = ""
        if not equals or not name.strip().isidentifier():
            raise ConfigError(f"--split {text!r}: expected shares such as val=0.1,test=0.1")
    rest = 1 - sum(share for name, share in shares.items() if name != TRAIN)
    if any(not 0 < share < 1 for share in shares.values()) or rest <= 1e-9:
        raise ConfigError(
            f"--split {text!r}: expected shares between 0 and 1 that leave some to train on"
        )
    if TRAIN in shares and abs(shares.pop(TRAIN) - rest) > 1e-6:
        raise ConfigError(f"--split {text!r}: the shares do not add up to 1")
    return shares


def by_shares(patients: Iterable[str], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """Patient -> split: each share of the patients, by the order of a seeded hash of their names.

    Each split that is asked for gets a patient, as long as one is left to train on.
    """
    ordered = sorted(set(patients), key=lambda name: (_place(name, seed), name))
    found: dict[str, str] = {}
    start = 0
    for split, share in shares.items():
        count = max(1, round(share * len(ordered)))
        count = min(count, len(ordered) - start - 1)
        found |= dict.fromkeys(ordered[start : start + count], split)
        start += count
    return found | dict.fromkeys(ordered[start:], TRAIN)


def _place(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed} {name}".encode("utf-8", "surrogateescape")).digest()


def by_lists(
    names: Sequence[str], patients: Sequence[str], lists: Mapping[str, Sequence[str]]
) -> list[str]:
    """The split of each source, by lists of patients or of files; ``""`` of what no list names.

    What no list names is trained on, unless there is a list for ``train``.

    Args:
        names: Of the sources, relative to the folder.
        patients: Of each.
        lists: Split -> lines, each a patient, a file's path or a file's name.

    Raises:
        DataError: A patient is in two splits, or a line names nothing that is here.
    """
    known: dict[str, set[int]] = {}
    for i, (name, patient) in enumerate(zip(names, patients, strict=True)):
        for key in {name, Path(name).name, patient}:
            known.setdefault(key, set()).add(i)
    rest = "" if TRAIN in lists else TRAIN
    found: list[str] = [rest] * len(names)
    listed = [False] * len(names)
    for split, lines in lists.items():
        missing = [line for line in lines if line not in known]
        if missing:
            raise DataError(
                f"the list of the split {split!r} names {missing[0]!r}, which is neither a patient "
                f"nor a file here" + (f", and {len(missing) - 1} more" if missing[1:] else "")
            )
        for i in sorted({i for line in lines for i in known[line]}):
            if listed[i] and found[i] != split:
                raise DataError(
                    f"{names[i]!r} is in the lists of two splits, {found[i]!r} and {split!r}; a "
                    "patient belongs to one"
                )
            found[i], listed[i] = split, True
    refuse_leaks(patients, found)
    return found


def refuse_leaks(patients: Sequence[str], splits: Sequence[str]) -> None:
    """Check that no patient is in two splits.

    Raises:
        DataError: Some are; the message names the first of them.
    """
    first: dict[str, str] = {}
    cut: dict[str, set[str]] = {}
    for patient, split in zip(patients, splits, strict=True):
        if first.setdefault(patient, split) != split:
            cut.setdefault(patient, {first[patient]}).add(split)
    if cut:
        shown = ", ".join(
            f"{patient!r} in {' and '.join(sorted(word or 'none' for word in cut[patient]))}"
            for patient in sorted(cut)[:_LISTED]
        )
        more = f", and {len(cut) - _LISTED} more" if len(cut) > _LISTED else ""
        raise DataError(
            f"{len(cut)} patients would be in two splits: {shown}{more}. What a model learns of a "
            "patient would be held against itself; list all files of a patient in one list"
        )


def read_list(path: Path) -> list[str]:
    """A name a line.

    Raises:
        DataError: It cannot be read, or is empty.
    """
    try:
        text = path.expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--split-list: {printable(path)} cannot be read: {error}") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise DataError(f"--split-list: {printable(path)} is empty; expected a name a line")
    return lines


def read_salt(path: Path) -> bytes:
    """The salt in a file; a file that is not there is made, readable by its owner alone.

    Raises:
        ConfigError: It cannot be read or written, or is too short to be a salt.
    """
    path = path.expanduser()
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(32) + "\n")
        salt = path.read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"--salt-file {printable(path)}: {error.strerror}") from error
    if len(salt) < 16:
        raise ConfigError(
            f"--salt-file {printable(path)} holds {len(salt)} bytes; expected 16 or more, such as "
            "a file that is not there yet, which is then made"
        )
    return salt


def pseudonym(patient: str, salt: bytes) -> str:
    """What stands for a patient in a store: 80 bits of HMAC-SHA256, in hex."""
    content = patient.encode("utf-8", "surrogateescape")
    return hmac.new(salt, content, hashlib.sha256).hexdigest()[:20]
