"""What a file format is: readers give images with what is known of them, writers write images.

    files -> sources (a file, or the files of one series) -> header -> values

A reader is found by what a file holds, never by its name. Axis letters, slowest first: t time,
z slice, y row, x column, c channel. Imports numpy alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ssmdiff.errors import ContractError, SsmdiffError
from ssmdiff.registry.registry import registry

HEAD = 4096
"""So many bytes of a file are looked at to tell whose it is."""
AXES = "tzyxc"

Affine = tuple[tuple[float, ...], ...]


class Source(NamedTuple):
    """What is read as a whole: a file, a part of one, or the files of one series."""

    files: tuple[Path, ...]
    name: str
    """Relative to the folder searched: of the file, or of a series' folder with its number."""
    part: str = ""
    """Which part of the files, in the reader's own words: the name of an array, say."""


class Refused(NamedTuple):
    """A file that a reader knows and cannot use."""

    name: str
    """Relative to the folder searched."""
    reason: str
    """One sentence: what was got, what was expected, the next step."""


@dataclass(frozen=True)
class ImageHeader:
    """What is known of an image before any pixel is decoded.

    Volumes are in one orientation: z goes towards the head, y from the front to the back, x from
    the patient's right to the left, so that a slice along z is the axial picture that a radiologist
    looks at. It holds where an affine is known, which then says so.

    Args:
        shape: Of the values, an entry for each of ``axes``.
        axes: A letter for each axis, slowest first: ``yx``, ``yxc``, ``zyx``, ``tzyx``.
        depth: The stored type in words: ``uint8``, ``12 of 16 bits, signed``, ``float32``.
        spacing: Millimetres along each of z, y and x that is there, None where it is not known.
        affine: 4 x 4: indices (x, y, z) to millimetres towards the right, the front and the head.
        modality: DICOM's words, ``MR``, ``CT``, ``CR``; empty where it is not known.
        units: Of the values: ``HU``; empty where it is not known.
        value_range: The values of black and white where the format says so: those of a type, or of
            a window. None: whoever uses the image decides.
        patient: As the file says, empty where it does not. **It is never written down or shown**:
            what is kept of it is a salted hash.
        series: Likewise.
        facts: Further technical facts that identify nobody, by name: ``view``, ``body_part``.
        warnings: What may be wrong, a sentence each, without anybody's name.

    Raises:
        ContractError: Shape, axes, spacing and affine do not fit each other.
    """

    shape: tuple[int, ...]
    axes: str
    depth: str
    spacing: tuple[float, ...] | None = None
    affine: Affine | None = None
    modality: str = ""
    units: str = ""
    value_range: tuple[float, float] | None = None
    patient: str = field(default="", repr=False)
    series: str = field(default="", repr=False)
    facts: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        known = "".join(letter for letter in AXES if letter in self.axes)
        if self.axes != known or not {"y", "x"} <= set(self.axes):
            raise ContractError(f"axes are {self.axes!r}; expected letters of {AXES!r} in order")
        if len(self.shape) != len(self.axes) or min(self.shape) < 1:
            raise ContractError(f"shape {self.shape} of axes {self.axes!r}; expected a size each")
        places = [letter for letter in self.axes if letter in "zyx"]
        if self.spacing is not None:
            given = np.asarray(self.spacing, float)
            if given.shape != (len(places),) or not (np.isfinite(given) & (given > 0)).all():
                raise ContractError(
                    f"spacing {self.spacing} of axes {self.axes!r}; expected {len(places)} lengths "
                    "above 0"
                )
        if self.affine is not None:
            matrix = np.asarray(self.affine, float)
            if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
                raise ContractError(f"affine {self.affine}; expected 4 x 4 finite numbers")

    def size(self, axis: str) -> int:
        """How long an axis is; 1 where it is not there."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1


class ImageData(NamedTuple):
    """An image: its values, in real units and grey the right way round."""

    values: NDArray[Any]
    """``header.shape``, finite; of any real type."""
    header: ImageHeader
    valid: NDArray[np.bool_] | None = None
    """Shape of the values: False where nothing was imaged, such as padding; None: all of it was."""


class Reader(Protocol):
    """Knows a format: ``factory(**options)``, each option with a default.

    What cannot be used is a :class:`ssmdiff.DataError` of one sentence, never another exception,
    and a size that a file claims is checked before memory is taken for it. A reader may have a
    method ``examples(folder)`` that writes a few small files of its format, for its checks.
    """

    suffixes: frozenset[str]
    """What the names of such files end with, lower case: ``.nii.gz``. Advice alone."""

    def claims(self, path: Path, head: bytes) -> bool:
        """Whether the file is of this format, by its first ``HEAD`` bytes. Raises nothing."""
        ...

    def sources(self, root: Path, files: Iterable[Path]) -> Iterable[Source | Refused]:
        """What is read as a whole among files that it claims; takes them one by one."""
        ...

    def header(self, source: Source) -> ImageHeader:
        """What is known before a pixel is decoded; raises DataError."""
        ...

    def read(self, source: Source) -> ImageData:
        """The values; raises DataError."""
        ...


@dataclass(frozen=True)
class ImageFacts:
    """What a writer may say of a synthetic image, and nothing that comes from a patient.

    Args:
        run: Of the run that drew it: a word that stands for it.
        seed: Of the drawing.
        index: Number of the image.
        step: Of the checkpoint.
        label: Its class by name, empty for none.
        value_range: The values of -1 and of 1 in the data's own units, None where not known.
        units: Of these values.
        spacing: Millimetres along each of z, y and x that is there.
        modality: DICOM's words.
        body_part: DICOM's words: ``CHEST``, ``HEART``, ``BRAIN``.
        versions: Of the packages that drew it.
    """

    run: str = ""
    seed: int = 0
    index: int = 0
    step: int = 0
    label: str = ""
    value_range: tuple[float, float] | None = None
    units: str = ""
    spacing: tuple[float, ...] | None = None
    modality: str = ""
    body_part: str = ""
    versions: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def of_record(cls, found: object) -> ImageFacts:
        """From what a run keeps of its data's images; what is none of it is left out."""
        record = found if isinstance(found, Mapping) else {}
        black, white = _lengths(record.get("value_range"), 2) or (0.0, 0.0)
        sides = _lengths(record.get("spacing"), 2) or _lengths(record.get("spacing"), 3)
        units, modality, part = (
            word if isinstance(word := record.get(key), str) else ""
            for key in ("units", "modality", "body_part")
        )
        return cls(
            value_range=(black, white) if black < white else None,
            units=units,
            spacing=sides if sides and min(sides) > 0 else None,
            modality=modality,
            body_part=part,
        )


def _lengths(found: object, count: int) -> tuple[float, ...] | None:
    """So many finite numbers."""
    if not isinstance(found, (list, tuple)) or len(found) != count:
        return None
    numbers = [n for n in found if type(n) in (int, float) and math.isfinite(n)]
    return tuple(map(float, numbers)) if len(numbers) == count else None


class Writer(Protocol):
    """Writes a format: ``factory(**options)``, each option with a default.

    A writer may have ``whole(path) -> bool``, whether a file is there to its end, so that one that
    was cut short is drawn again; and ``load(path, facts)``, the image as it was given, for a grid.
    """

    suffix: str
    """What the names of its files end with: ``.png``."""

    def write(self, path: Path, image: NDArray[np.float32], facts: ImageFacts) -> None:
        """One image, (C, H, W) or (C, D, H, W) in -1 to 1, as one file: whole or not at all, the
        same bytes for the same image and facts.

        Raises:
            ConfigError: The format does not hold such an image; says which one does.
            CheckpointError: The file cannot be written.
        """
        ...


class Gathered(NamedTuple):
    """Files by what they are."""

    sources: tuple[tuple[str, Source], ...]
    """Name of the reader, and a source; sorted by the source's name."""
    refused: tuple[Refused, ...]
    unclaimed: tuple[Path, ...]
    """Files that no reader knows, in their order."""
    unavailable: Mapping[str, str]
    """Readers that cannot be used here, and why in a sentence."""


def make_readers() -> tuple[dict[str, Reader], dict[str, str]]:
    """Every reader with its defaults, by name; and why those that cannot be used here cannot."""
    found: dict[str, Reader] = {}
    unavailable: dict[str, str] = {}
    for entry in registry().all("reader"):
        name = entry.component.name
        try:
            found[name] = registry().create("reader", name)
        except SsmdiffError as error:  # hides no file of another
            unavailable[name] = str(error)
    return found, unavailable


def reader_of(path: Path, readers: Mapping[str, Reader]) -> str | None:
    """The name of the reader that knows the file; None if nobody does or it cannot be opened.

    Of several, it is the one whose suffix the file has, else the first by name.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return None
    name = path.name.lower()
    claiming = [of for of, reader in sorted(readers.items()) if reader.claims(path, head)]
    named = [of for of in claiming if name.endswith(tuple(readers[of].suffixes))]
    return next(iter(named or claiming), None)


def gather(
    root: Path,
    files: Sequence[Path],
    readers: Mapping[str, Reader] | None = None,
    advance: Callable[[], object] = lambda: None,
) -> Gathered:
    """Files sorted by who reads them, and what is read as a whole.

    Args:
        root: The folder searched, which names are relative to.
        files: Regular files under it.
        readers: By name; those of :func:`make_readers` by default.
        advance: Called for each file that was looked at.
    """
    unavailable: Mapping[str, str] = {}
    if readers is None:
        readers, unavailable = make_readers()
    owned: dict[str, list[Path]] = {}
    unclaimed = []
    for path in files:
        owner = reader_of(path, readers)
        if owner is None:
            unclaimed.append(path)
            advance()
        else:
            owned.setdefault(owner, []).append(path)

    def counted(paths: Sequence[Path]) -> Iterator[Path]:
        for path in paths:
            yield path
            advance()

    sources: list[tuple[str, Source]] = []
    refused: list[Refused] = []
    for owner, paths in sorted(owned.items()):
        for item in readers[owner].sources(root, counted(paths)):
            if isinstance(item, Refused):
                refused.append(item)
            else:
                sources.append((owner, item))
    sources.sort(key=lambda pair: (pair[1].name, pair[1].part))
    return Gathered(tuple(sources), tuple(sorted(refused)), tuple(unclaimed), unavailable)
