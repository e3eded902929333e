"""The store: what ``ssmdiff data prepare`` writes once and training maps into memory.

A folder of ``store.json`` (format, arrays, recipe, digest; written last), one ``NAME.npy`` for each
named array of shape (N, ...), and ``table.json`` (label, group, split and numbers of each item).
A store is a pure function of what went into it: no time, no path and no name of a patient or file
stands in it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from ssmdiff import DataError, printable, write_atomically
from torch import Tensor

FORMAT = 1
DOCUMENT, TABLE = "store.json", "table.json"
DTYPES = ("uint8", "uint16", "int16", "float32")
_WORD = re.compile(r"[a-z][a-z0-9_-]*")
_MOST_BYTES = 2**24
"""A ``store.json`` is a few kilobytes; one that is larger is none."""
_CHUNK = 2**24

Kind = Literal["image", "labels"]


class ArraySpec(NamedTuple):
    """A named array of a store but for its length."""

    shape: tuple[int, ...]
    """Of one item: (C, H, W), (C, D, H, W), ..."""
    dtype: str
    """One of ``DTYPES``. An image's whole numbers span black to white; floats are -1 to 1."""
    kind: Kind = "image"
    """Labels are numbers of classes in each pixel."""
    names: tuple[str, ...] = ()
    """What the labels 0, 1, ... stand for."""


class Table(NamedTuple):
    """What is known of each item besides its arrays."""

    split: Sequence[str]
    group: Sequence[str]
    """The patient, as a salted hash."""
    label: Sequence[int]
    numbers: Mapping[str, Sequence[float]]
    """``low`` and ``high`` (black and white in the data's own units), ``position``, ...; NaN where
    one is unknown."""


class StoreWriter:
    """Writes a store, item by item, into a folder that is there and empty.

    Args:
        folder: Where.
        count: Items in all.
        arrays: Of each item, by name.
    """

    def __init__(self, folder: Path, count: int, arrays: Mapping[str, ArraySpec]) -> None:
        self.folder, self.count, self.arrays = folder, count, dict(arrays)
        self._files: dict[str, BinaryIO] = {}
        self._hashes = {name: hashlib.sha256() for name in arrays}
        self._rows = dict.fromkeys(arrays, 0)
        for name, spec in arrays.items():
            if not _WORD.fullmatch(name) or spec.dtype not in DTYPES:
                raise DataError(f"array {name!r} of {spec.dtype}; expected a word and {DTYPES}")
            self._files[name] = file = (folder / f"{name}.npy").open("wb")
            file.write(_npy_header((count, *spec.shape), spec.dtype))

    def append(self, items: Mapping[str, NDArray[Any]]) -> None:
        """The next items, (n, ...) of each array."""
        for name, spec in self.arrays.items():
            values = np.ascontiguousarray(items[name])
            if values.shape[1:] != spec.shape or values.dtype.name != spec.dtype:
                raise DataError(
                    f"array {name!r}: items of {values.shape[1:]}, {values.dtype}; expected "
                    f"{spec.shape}, {spec.dtype}"
                )
            content = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
            self._files[name].write(content)
            self._hashes[name].update(content)
            self._rows[name] += len(values)

    def finish(self, table: Table, classes: Sequence[str], facts: Mapping[str, Any]) -> str:
        """Write the rest, ``store.json`` last, and return the digest.

        Args:
            table: A row for each item.
            classes: What the labels stand for.
            facts: Further keys of ``store.json``: values, geometry, recipe, terms.
        """
        if set(self._rows.values()) != {self.count}:
            raise DataError(f"{self._rows} items were given; expected {self.count}")
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        content = _plain(_columns(table))
        write_atomically(self.folder / TABLE, content)
        document = {
            "format": FORMAT,
            "count": self.count,
            "arrays": {
                name: {
                    "shape": list(spec.shape),
                    "dtype": spec.dtype,
                    "kind": spec.kind,
                    "names": list(spec.names),
                    "sha256": self._hashes[name].hexdigest(),
                }
                for name, spec in self.arrays.items()
            },
            "table": {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()},
            "classes": list(classes),
            **facts,
        }
        digest = hashlib.sha256(_plain(document)).hexdigest()
        text = json.dumps(document | {"digest": digest}, indent=1, allow_nan=False)
        write_atomically(self.folder / DOCUMENT, text.encode())
        return digest

    def close(self) -> None:
        """Let go of the files of a store that is not finished."""
        for file in self._files.values():
            file.close()


class Store:
    """A store on disk, opened to be read.

    Everything but the values of the arrays is checked when it is opened; :meth:`verify` checks
    these too. It is pickled by its path.

    Raises:
        DataError: It is no store, damaged, or of another format.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self._where = f"the store {printable(self.path)}"
        self._document = self._read_document()
        self.digest: str = self._document["digest"]
        self.count: int = self._document["count"]
        self.classes: tuple[str, ...] = tuple(self._document["classes"])
        self.arrays: dict[str, ArraySpec] = {
            name: ArraySpec(
                tuple(found["shape"]), found["dtype"], found["kind"], tuple(found["names"])
            )
            for name, found in self._document["arrays"].items()
        }
        for name in self.arrays:
            self._check_array(name)
        self.table = self._read_table()
        self._mapped: dict[str, NDArray[Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]

    def fact(self, key: str) -> dict[str, Any]:
        """One of the facts that the store was finished with; empty if it has none."""
        found = self._document.get(key, {})
        return found if isinstance(found, dict) else {}

    def fact_text(self, key: str) -> str:
        """A fact that is a word, such as ``modality``; empty where it is not known."""
        found = self._document.get(key, "")
        return found if isinstance(found, str) else ""

    def array(self, name: str) -> NDArray[Any]:
        """(N, ...), mapped into memory, read only."""
        if name not in self._mapped:
            mapped = np.load(self._file(name), mmap_mode="r", allow_pickle=False)
            self._mapped[name] = np.asarray(mapped)  # numpy's own class for maps is slow to index
        return self._mapped[name]

    def image(self, name: str, i: int) -> Tensor:
        """(C, ...) float32 in -1 to 1: item ``i`` of an array of images."""
        values = self.array(name)[i].astype(np.float32)
        dtype = self.arrays[name].dtype
        if dtype != "float32":
            values *= np.float32(2 / float(np.iinfo(dtype).max))
            values -= np.float32(1)
            np.minimum(values, np.float32(1), out=values)  # white may be rounded to more
        return torch.from_numpy(values)

    def verify(self) -> None:
        """Hold the values of all arrays against their digests.

        Raises:
            DataError: An array is not what was written.
        """
        for name, spec in self.arrays.items():
            known = hashlib.sha256()
            with self._file(name).open("rb") as file:
                file.seek(len(_npy_header((self.count, *spec.shape), spec.dtype)))
                while chunk := file.read(_CHUNK):
                    known.update(chunk)
            if known.hexdigest() != self._document["arrays"][name]["sha256"]:
                raise self._damaged(f"the values of {name}.npy are not those that were written")

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.npy"

    def _damaged(self, what: str) -> DataError:
        return DataError(f"{self._where} is damaged: {what}. Make it anew: ssmdiff data prepare")

    def _read_document(self) -> dict[str, Any]:
        file = self.path / DOCUMENT
        if not file.is_file():
            what = "has no store.json" if self.path.is_dir() else "is no folder"
            raise DataError(
                f"{printable(self.path)} {what}; expected the --out of ssmdiff data prepare that "
                "ran to its end"
            )
        if file.stat().st_size > _MOST_BYTES:
            raise self._damaged(f"store.json is larger than {_MOST_BYTES} bytes")
        try:
            found = json.loads(file.read_bytes())
        except (ValueError, RecursionError):
            raise self._damaged("store.json is no JSON") from None
        if not isinstance(found, dict) or "format" not in found:
            raise self._damaged("store.json is not that of a store")
        if found["format"] != FORMAT:
            raise DataError(
                f"{self._where} has format {found['format']!r:.40}; this version reads {FORMAT}. "
                "Try: pip install --upgrade ssmdiff, or make it anew"
            )
        digest = found.pop("digest", None)
        if digest != hashlib.sha256(_plain(found)).hexdigest():
            raise self._damaged("store.json was changed after it was written")
        if problem := _problem(found):
            raise self._damaged(problem)
        return found | {"digest": digest}

    def _check_array(self, name: str) -> None:
        """Its file has the header and the size that ``store.json`` says."""
        spec, file = self.arrays[name], self._file(name)
        header = _npy_header((self.count, *spec.shape), spec.dtype)
        expected = len(header) + self.count * math.prod(spec.shape) * np.dtype(spec.dtype).itemsize
        try:
            size = file.stat().st_size
            with file.open("rb") as opened:
                start = opened.read(len(header))
        except OSError as error:
            raise self._damaged(f"{name}.npy cannot be read ({error.strerror})") from None
        if start != header or size != expected:
            raise self._damaged(f"{name}.npy has {size} bytes; expected {expected} and its header")

    def _read_table(self) -> Table:
        file, known = self.path / TABLE, self._document["table"]
        try:
            right = file.stat().st_size == known["bytes"]
            content = file.read_bytes() if right else b""
        except OSError as error:
            raise self._damaged(f"{TABLE} cannot be read ({error.strerror})") from None
        if hashlib.sha256(content).hexdigest() != known["sha256"]:
            raise self._damaged(f"{TABLE} is not the one that was written")
        columns = json.loads(content)
        try:
            table = Table(
                [columns["splits"][i] for i in columns["split"]],
                [columns["groups"][i] for i in columns["group"]],
                columns["label"],
                {
                    name: [math.nan if x is None else x for x in values]
                    for name, values in columns["numbers"].items()
                },
            )
            lengths = {len(c) for c in (*table[:3], *table.numbers.values())}
            sound = lengths == {self.count} and all(
                0 <= i < max(1, len(self.classes)) for i in table.label
            )
        except (KeyError, IndexError, TypeError, AttributeError):
            sound = False
        if not sound:
            raise self._damaged(f"{TABLE} has not the columns of {self.count} items")
        return table


def _problem(document: Mapping[str, Any]) -> str:
    """What a document lacks, whatever its digest says; empty if nothing."""
    arrays, count, known = (document.get(key) for key in ("arrays", "count", "table"))
    words = document.get("classes")
    if type(count) is not int or count < 1:
        return f"it claims {count!r:.40} items"
    if not isinstance(arrays, dict) or not arrays:
        return "it names no arrays"
    for name, found in arrays.items():
        shape = found.get("shape") if isinstance(found, dict) else None
        whole = isinstance(shape, list) and all(type(n) is int and n > 0 for n in shape)
        if not (_WORD.fullmatch(name) and whole and found.get("dtype") in DTYPES):
            return f"its array {name!r:.40} has no name, shape or type of a store"
        if found.get("kind") not in ("image", "labels") or not isinstance(found.get("names"), list):
            return f"its array {name!r:.40} is of no kind"
    if not isinstance(known, dict) or not {"bytes", "sha256"} <= known.keys():
        return "it does not tell its table"
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return "it does not tell its classes"
    return ""


def _columns(table: Table) -> dict[str, Any]:
    """Words once, and their numbers for each item."""
    splits, groups = sorted(set(table.split)), sorted(set(table.group))
    numbers = {
        name: [None if math.isnan(x) else float(x) for x in values]
        for name, values in table.numbers.items()
    }
    split_of = {word: i for i, word in enumerate(splits)}
    group_of = {word: i for i, word in enumerate(groups)}
    return {
        "splits": splits,
        "groups": groups,
        "split": [split_of[word] for word in table.split],
        "group": [group_of[word] for word in table.group],
        "label": [int(label) for label in table.label],
        "numbers": numbers,
    }


def _plain(document: Mapping[str, Any]) -> bytes:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode()


def _npy_header(shape: tuple[int, ...], dtype: str) -> bytes:
    """The bytes before the values of a ``.npy`` of version 1.0; its length is a multiple of 64."""
    descr = np.dtype(dtype).newbyteorder("<").str
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
    text += " " * (-(10 + len(text) + 1) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()
