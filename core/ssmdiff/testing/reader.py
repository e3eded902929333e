"""What a reader must do: know its files by content, and give values or a sentence, never more."""

from __future__ import annotations

import functools
import pickle
import random
import tempfile
import tracemalloc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssmdiff.errors import DataError, SsmdiffError
from ssmdiff.runs.reading import HEAD, ImageData, ImageHeader, Reader, Refused, Source
from ssmdiff.testing import probes
from ssmdiff.testing.report import NotApplicableError, ViolationError
from ssmdiff.testing.suite import Subject, Suite

DAMAGES = 14
"""Damaged copies of each file."""
TIMES, CONSTANT = 10, 24 << 20
"""Memory for a damaged file: ten times its size, and what a library takes to open anything."""


class ReaderSubject(Subject):
    """A reader, and the files that it writes as its examples."""

    def __init__(self, kind: str, spec: str | Mapping[str, Any]) -> None:
        super().__init__(kind, spec)
        self.reader: Reader = self.build()
        self._place = tempfile.TemporaryDirectory()  # removed with the subject
        self.folder = Path(self._place.name)

    @functools.cached_property
    def files(self) -> list[Path]:
        """Raises NotApplicableError: it has no examples."""
        write = getattr(self.reader, "examples", None)
        if write is None:
            raise NotApplicableError("it has no method 'examples' that writes files to look at")
        place = self.folder / "examples"
        place.mkdir(exist_ok=True)
        write(place)
        files = sorted(path for path in place.rglob("*") if path.is_file())
        if not files:
            raise ViolationError("examples() wrote nothing", "a few small files of the format")
        return files

    @functools.cached_property
    def claimed(self) -> list[Path]:
        """The files that it claims: the values beside a header may be nobody's."""
        return [path for path in self.files if self.claims(path)]

    @functools.cached_property
    def sources(self) -> list[Source]:
        return [item for item in self.grouped(self.claimed) if isinstance(item, Source)]

    def claims(self, path: Path) -> bool:
        """What the reader says of a file."""
        with path.open("rb") as file:
            found = self.reader.claims(path, file.read(HEAD))
        if not isinstance(found, bool):
            raise ViolationError(f"claims returns {found!r}", "True or False")
        return found

    def grouped(self, files: list[Path], root: Path | None = None) -> list[Source | Refused]:
        """What the reader makes of files, which it is given one by one."""
        return list(self.reader.sources(root or self.folder, iter(files)))


suite = Suite("reader", ReaderSubject)


@suite.check
def protocol(subject: ReaderSubject) -> str:
    """It has what ``ssmdiff data`` calls."""
    for name in ("claims", "sources", "header", "read"):
        if not callable(getattr(subject.reader, name, None)):
            raise ViolationError(f"there is no method {name!r}", "the methods of ssmdiff.Reader")
    suffixes: Any = getattr(subject.reader, "suffixes", None)
    sound = isinstance(suffixes, frozenset) and all(
        isinstance(suffix, str) and suffix.startswith(".") and suffix == suffix.lower()
        for suffix in suffixes
    )
    if not sound:
        raise ViolationError(
            f"suffixes is {suffixes!r}", "a frozenset such as {'.nii', '.nii.gz'}, lower case"
        )
    return f"reads {', '.join(sorted(suffixes)) or 'files of any name'}"


@suite.check
def recognition(subject: ReaderSubject) -> str:
    """It knows its own by content, whatever their name, and nothing else by its name."""
    strange = {"empty": b"", "byte": b"\0", "text": b"of another program\n" * 400}
    strange |= {"zeros": bytes(HEAD), "noise": random.Random(1).randbytes(HEAD)}
    suffix = min(subject.reader.suffixes, default="")
    for name, content in strange.items():
        path = subject.folder / f"{name}{suffix}"
        path.write_bytes(content)
        if subject.claims(path):
            raise ViolationError(f"a file of {name} is claimed as {path.name}", "False")
    if not subject.claimed:
        raise ViolationError("none of its own examples is claimed", "True, by what a file holds")
    for number, path in enumerate(subject.claimed):
        copy = subject.folder / f"renamed-{number}"
        copy.write_bytes(path.read_bytes())
        if not subject.claims(copy):
            raise ViolationError(
                f"{path.name} is claimed, and not under another name", "True, by what a file holds"
            )
    return f"{len(subject.claimed)} examples by content, {len(strange)} others left alone"


@suite.check
def sources(subject: ReaderSubject) -> str:
    """Each example is in a source, by a name within the folder, in whatever order they come."""
    found = subject.grouped(subject.claimed)
    for item in found:
        if isinstance(item, Refused):
            raise ViolationError(f"its own example is refused: {item.reason}", "a source")
        if not isinstance(item, Source):
            raise ViolationError(f"sources gives {item!r}", "ssmdiff.Source or ssmdiff.Refused")
        if not item.name or Path(item.name).is_absolute() or ".." in Path(item.name).parts:
            raise ViolationError(
                f"a source is named {item.name!r}", "a name relative to the folder"
            )
    held = {path for item in found if isinstance(item, Source) for path in item.files}
    if missing := [path.name for path in subject.claimed if path not in held]:
        raise ViolationError(f"{missing[0]} is in no source", "each file in one, or refused")
    turned = subject.grouped(subject.claimed[::-1])
    if sorted(map(repr, turned)) != sorted(map(repr, found)):
        raise ViolationError("files in another order give other sources", "the same sources")
    if subject.grouped([]):
        raise ViolationError("no files give sources", "none")
    return f"{len(found)} of {len(subject.claimed)} files"


@suite.check
def images(subject: ReaderSubject) -> str:
    """Values are as the header says: its shape, real and finite; the header comes before them."""
    shapes = []
    for source in subject.sources:
        before = subject.reader.header(source)
        data = subject.reader.read(source)
        _image(source, before, data)
        shapes.append(f"{'x'.join(map(str, before.shape))} {before.axes}")
    if not shapes:
        raise ViolationError("its examples have no source", "at least one")
    return ", ".join(shapes)


def _image(source: Source, header: Any, data: Any) -> None:
    if not isinstance(header, ImageHeader) or not isinstance(data, ImageData):
        raise ViolationError(
            f"{source.name}: {type(header).__name__} and {type(data).__name__}",
            "an ssmdiff.ImageHeader and an ssmdiff.ImageData",
        )
    values = data.values
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "buif":
        got = getattr(values, "dtype", type(values).__name__)
        raise ViolationError(f"{source.name}: values are {got}", "a numpy array of real numbers")
    if not header.shape == data.header.shape == values.shape or header.axes != data.header.axes:
        raise ViolationError(
            f"{source.name}: the header says {header.shape} {header.axes}, and the values are "
            f"{values.shape} {data.header.axes}",
            "one shape",
        )
    if not np.isfinite(values).all():
        raise ViolationError(
            f"{source.name}: {int((~np.isfinite(values)).sum())} values are not finite",
            "finite values, and `valid` False where nothing was imaged",
        )
    valid = data.valid
    if valid is not None and (valid.shape != values.shape or valid.dtype != bool):
        raise ViolationError(
            f"{source.name}: valid is {valid.dtype} of shape {valid.shape}",
            f"bool of shape {values.shape}",
        )


@suite.check
def determinism(subject: ReaderSubject) -> str:
    """A file has one image, from this reader, another one or one in another process."""
    sent = pickle.loads(pickle.dumps(subject.reader))
    before = {path: path.read_bytes() for path in subject.files}
    for source in subject.sources:
        state = probes.global_states()
        first = subject.reader.read(source)
        if probes.global_states() != state:
            raise ViolationError("reading moved a global random state", "no randomness")
        for other in (subject.reader, subject.build(), sent):
            again = other.read(pickle.loads(pickle.dumps(source)))
            same = np.array_equal(first.values, again.values) and first.header == again.header
            if not same:
                raise ViolationError(f"{source.name} read twice gives two images", "one")
    after = {path: path.read_bytes() for path in before if path.exists()}
    if after != before or len(list((subject.folder / "examples").rglob("*"))) != _entries(subject):
        raise ViolationError("reading changed the folder of the files", "files as they were")
    return f"{len(subject.sources)} sources, the same twice, from another reader, after pickling"


def _entries(subject: ReaderSubject) -> int:
    place = subject.folder / "examples"
    inner = {parent for path in subject.files for parent in path.relative_to(place).parents}
    return len(subject.files) + len(inner) - 1


@suite.check
def damage(subject: ReaderSubject) -> str:
    """A damaged file is a DataError of one sentence or an image, in bounded memory."""
    refused = tried = 0
    for path in subject.claimed:
        whole = path.read_bytes()
        for number, content in enumerate(_damaged(whole)):
            place = subject.folder / "damaged" / f"{path.name}-{number}"
            place.mkdir(parents=True, exist_ok=True)
            for other in subject.files:  # what lies beside it stays whole
                (place / other.name).write_bytes(other.read_bytes())
            (place / path.name).write_bytes(content)
            tried += 1
            refused += _opened(subject, place / path.name, place)
    if not tried:
        raise NotApplicableError("none of its examples is claimed, as above")
    return f"{refused} of {tried} damaged files refused"


def _damaged(whole: bytes) -> Iterator[bytes]:
    """Cut short, with bits turned, with bytes of other values; a function of the file."""
    rng = random.Random(len(whole))
    yield from (whole[: len(whole) * k // 4] for k in range(1, 4))
    yield whole[:-1]
    for _ in range(DAMAGES - 4):
        changed = bytearray(whole)
        early = rng.random() < 0.7  # where headers are
        for _ in range(rng.choice((1, 1, 4))):
            place = rng.randrange(min(len(whole), 400) if early else len(whole))
            changed[place] = rng.choice((changed[place] ^ 1 << rng.randrange(8), 0, 127, 255))
        yield bytes(changed)


def _opened(subject: ReaderSubject, path: Path, root: Path) -> bool:
    """Whether a damaged file was refused."""
    if not subject.claims(path):
        return True
    tracemalloc.start()
    try:
        for item in subject.grouped([path], root):
            if isinstance(item, Refused):
                _sentence(path, item.reason)
                return True
            _image(item, subject.reader.header(item), subject.reader.read(item))
    except DataError as error:
        _sentence(path, str(error))
        return True
    except ViolationError:
        raise
    except SsmdiffError as error:
        raise ViolationError(
            f"a damaged {path.name} raises a {type(error).__name__}: {error}", "a DataError"
        ) from error
    except Exception as error:
        raise ViolationError(
            f"a damaged {path.name} raises {type(error).__name__}: {error}",
            "an ssmdiff.DataError of one sentence",
        ) from error
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        if peak > TIMES * path.stat().st_size + CONSTANT:
            raise ViolationError(
                f"a damaged {path.name} of {path.stat().st_size} bytes took {peak} bytes of memory",
                "what a file claims checked before memory is taken for it",
            )
    return False


def _sentence(path: Path, text: str) -> None:
    if not text.strip() or "\n" in text:
        raise ViolationError(f"a damaged {path.name} is refused with {text!r}", "one sentence")
