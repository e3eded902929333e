"""What a writer must do: one whole file of an image, the same bytes each time, or a sentence."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from ssmdiff.errors import ConfigError, SsmdiffError
from ssmdiff.orders.scan import size_text
from ssmdiff.orders.seeds import stream
from ssmdiff.runs.reading import ImageFacts, Writer, gather, make_readers
from ssmdiff.testing import probes
from ssmdiff.testing.report import NotApplicableError, ViolationError
from ssmdiff.testing.suite import Subject, Suite

SHAPES = ((1, 12, 10), (3, 12, 10), (1, 5, 12, 10), (2, 6, 6))
"""(C, H, W) and (C, D, H, W)."""
WITHIN = 0.75 / 255
"""Of the range, between an image and what its file holds: half a level of 8 bits, and what the
line through them is off by."""
FACTS = ImageFacts(
    run="probe",
    seed=3,
    index=7,
    step=100,
    label="lesion",
    value_range=(-1024.0, 3071.0),
    units="HU",
    modality="CT",
    body_part="HEAD",
    versions={"ssmdiff": "0"},
)


class WriterSubject(Subject):
    """A writer, and a folder of its own."""

    def __init__(self, kind: str, spec: str | Mapping[str, Any]) -> None:
        super().__init__(kind, spec)
        self.writer: Writer = self.build()
        self._place = tempfile.TemporaryDirectory()  # removed with the subject
        self.folder = Path(self._place.name)

    def image(self, shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
        """Every value from -1 to 1, no two neighbours alike."""
        values = stream(seed, "probe image").uniform(-1, 1, shape)
        values.ravel()[[0, -1]] = -1, 1
        return values.astype(np.float32)

    @functools.cached_property
    def shapes(self) -> list[tuple[int, ...]]:
        """Those that it takes; each other is refused in a sentence and leaves nothing.

        Raises:
            NotApplicableError: It takes none: it needs a package, say.
        """
        taken = []
        reason: SsmdiffError | None = None
        for number, shape in enumerate(SHAPES):
            place = self.folder / f"shape-{number}"
            place.mkdir(exist_ok=True)
            try:
                self.writer.write(self.path(place), self.image(shape), FACTS)
            except ConfigError as error:
                reason = error
                if left := list(place.iterdir()):
                    raise ViolationError(
                        f"{left[0].name} is left of an image that is refused", "nothing"
                    ) from error
                continue
            taken.append(shape)
        if not taken:
            raise NotApplicableError(f"takes no image here: {reason}")
        return taken

    def path(self, place: Path, name: str = "000007") -> Path:
        return place / f"{name}{self.writer.suffix}"

    def written(self, shape: tuple[int, ...], name: str, facts: ImageFacts = FACTS) -> Path:
        """A file of the image in a folder of that name."""
        place = self.folder / name
        place.mkdir(exist_ok=True)
        self.writer.write(self.path(place), self.image(shape), facts)
        return self.path(place)


suite = Suite("writer", WriterSubject)


@suite.check
def protocol(subject: WriterSubject) -> str:
    """It has what ``ssmdiff sample`` calls."""
    suffix: Any = getattr(subject.writer, "suffix", None)
    if not isinstance(suffix, str) or not suffix.startswith(".") or "/" in suffix:
        raise ViolationError(f"suffix is {suffix!r}", "a word such as '.png'")
    if not callable(getattr(subject.writer, "write", None)):
        raise ViolationError("there is no method 'write'", "write(path, image, facts)")
    return f"writes {suffix}"


@suite.check
def files(subject: WriterSubject) -> str:
    """One file of the name that was asked for, over an older one, and nothing beside it."""
    for shape in subject.shapes:
        place = subject.folder / f"file {size_text(shape)}"
        place.mkdir()
        subject.path(place).write_bytes(b"older")
        image = subject.image(shape)
        kept = image.copy()
        subject.writer.write(subject.path(place), image, FACTS)
        found = [path.name for path in place.iterdir()]
        if found != [subject.path(place).name] or subject.path(place).read_bytes() == b"older":
            raise ViolationError(
                f"{found} is there afterwards", f"{subject.path(place).name} alone"
            )
        if not np.array_equal(image, kept):
            raise ViolationError("the image was written to", "an image as it was")
    return f"images {', '.join(map(size_text, subject.shapes))}"


@suite.check
def determinism(subject: WriterSubject) -> str:
    """An image and its facts have one file, whenever and wherever it is written."""
    for shape in subject.shapes:
        first = subject.written(shape, "first").read_bytes()
        state = probes.global_states()
        later = time.time() + 1e6
        with mock.patch("time.time", return_value=later):
            again = subject.written(shape, "again").read_bytes()
        if probes.global_states() != state:
            raise ViolationError("writing moved a global random state", "no randomness")
        with probes.disturbed_globals():
            third = subject.written(shape, "third").read_bytes()
        if not first == again == third:
            raise ViolationError("an image written twice is two files", "the same bytes")
        place = subject.folder / "first"
        subject.writer.write(subject.path(place), subject.image(shape, seed=1), FACTS)
        if subject.path(place).read_bytes() == first:
            raise ViolationError("two images are one file", "a file of the image")
    return "the same bytes, at another time, in another folder"


@suite.check
def values(subject: WriterSubject) -> str:
    """What a reader gives of the file is the image: where it was, dark where it was dark."""
    readers, _ = make_readers()
    seen = []
    for shape in subject.shapes:
        path = subject.written(shape, "values")
        found = gather(path.parent, [path], readers)
        if not found.sources:
            if found.refused:
                raise ViolationError(f"a reader refuses it: {found.refused[0].reason}", "an image")
            continue
        name, source = found.sources[0]
        data = readers[name].read(source)
        got = np.asarray(data.values, np.float64)
        if "c" in data.header.axes:
            got = np.moveaxis(got, data.header.axes.index("c"), 0)
        expected = subject.image(shape).astype(np.float64)
        if got.size != expected.size or np.squeeze(got).shape != np.squeeze(expected).shape:
            raise ViolationError(
                f"reader {name!r} gives {got.shape} of an image {shape}", "the same sizes"
            )
        got, expected = np.squeeze(got), np.squeeze(expected)
        slope, start = np.polyfit(expected.ravel(), got.ravel(), 1)
        off = np.abs(got - start - slope * expected).max() / abs(2 * slope) if slope else np.inf
        if slope <= 0 or not off <= WITHIN:
            raise ViolationError(
                f"reader {name!r} gives other values than were written: off by {off:.2g} of the "
                f"range, along {slope:.3g} times the image",
                f"the image within {WITHIN:.2g} of the range, brighter where it is brighter",
            )
        _units(data.header.units, start, slope)
        seen.append(f"{size_text(shape)} within {off:.1e} by {name}")
    if not seen:
        raise NotApplicableError("no reader here knows its files")
    return ", ".join(seen)


def _units(units: str, start: float, slope: float) -> None:
    """A file that says that it is in the data's own units is."""
    assert FACTS.value_range is not None
    low, high = FACTS.value_range
    if units == FACTS.units and not np.allclose(
        (start - slope, start + slope), (low, high), atol=2 * WITHIN * (high - low)
    ):
        raise ViolationError(
            f"-1 and 1 are {start - slope:.5g} and {start + slope:.5g} {units} in the file",
            f"{low:g} and {high:g}, as the facts say",
        )


@suite.check
def facts(subject: WriterSubject) -> str:
    """It does with no facts at all."""
    for shape in subject.shapes:
        path = subject.written(shape, "no facts", ImageFacts())
        if not path.stat().st_size:
            raise ViolationError("an image without facts is an empty file", "an image")
    return f"{len(subject.shapes)} images without facts"


@suite.check
def refusals(subject: WriterSubject) -> str:
    """What cannot be written is a sentence, and leaves nothing behind."""
    shape = subject.shapes[0]
    missing = subject.folder / "missing"
    bad = subject.image(shape)
    bad.ravel()[3] = np.nan
    place = subject.folder / "refused"
    place.mkdir()
    ways = {
        "a folder that is not there": (subject.path(missing), subject.image(shape)),
        "values that are not finite": (subject.path(place), bad),
        "an image of one axis": (subject.path(place), bad.ravel()),
    }
    said = 0
    for what, (path, image) in ways.items():
        try:
            subject.writer.write(path, image, FACTS)
        except SsmdiffError:
            said += 1
            if path.exists() or (path.parent.exists() and any(path.parent.iterdir())):
                raise ViolationError(f"{what}: a file is left behind", "nothing") from None
        except Exception as error:
            raise ViolationError(
                f"{what}: {type(error).__name__}: {error}", "an ssmdiff error, or a file"
            ) from error
        else:
            path.unlink(missing_ok=True)
    return f"{said} of {len(ways)} refused"
