"""DICOM files as images and volumes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field
from ssmdiff import ConfigError, DataError, ImageData, ImageHeader, Refused, Source

from ssmdiff_medical import dicom_values as pixels
from ssmdiff_medical.dicom_file import errors_named, looks_like_dicom
from ssmdiff_medical.dicom_header import SUFFIXES, Frame, Head, Lut, read_head
from ssmdiff_medical.dicom_series import Place, canonical, canonical_shape, placed, refuse_mixed


class DicomReader:
    """Single images, series of slices as volumes, and files of several frames.

    Values come out in the units that the modality's slope, intercept or LUT lead to; a linear
    window is the header's ``value_range`` and cuts nothing. docs/data.md says what is refused.

    Args:
        window: What the values are looked at through: ``file``, the first VOI LUT or window that
            the file has; ``none``; one of the file's windows by its name; or [centre, width] in the
            values' units.
        max_values: Most pixels (times samples, frames and slices) of a file or a series.
    """

    suffixes = SUFFIXES

    def __init__(
        self,
        window: str | tuple[float, float] = "file",
        max_values: Annotated[int, Field(ge=1)] = 2**28,
    ) -> None:
        if not isinstance(window, str) and not window[1] > 0:
            raise ConfigError(
                f"reader 'dicom': window is {list(window)}; expected [centre, width] with a width "
                "above 0"
            )
        self.window = window
        self.max_values = max_values

    def claims(self, path: Path, head: bytes) -> bool:
        """By the content, with or without a preamble."""
        return looks_like_dicom(head)

    def sources(self, root: Path, files: Iterable[Path]) -> Iterator[Source | Refused]:
        """Each file, or all slices of a series that say where they lie."""
        series: dict[str, list[Head]] = {}
        for path in files:
            name = _relative(path, root)
            try:
                head = read_head(path, self.max_values)
                pixels.decodable(head)
            except DataError as error:
                yield Refused(name, _without(path, error))
                continue
            if head.placed and not head.grouped and head.samples == 1 and head.series:
                series.setdefault(head.series, []).append(head)
            else:
                yield self._proven(Source((path,), name), [head])
        taken: set[str] = set()
        for heads in series.values():
            heads.sort(key=lambda head: head.path)
            paths = tuple(head.path for head in heads)
            if len(heads) == 1:
                name = _relative(paths[0], root)
            else:
                number = f"series {heads[0].series_number}" if heads[0].series_number else "series"
                name = base = f"{_relative(paths[0].parent, root)}/{number}".removeprefix("./")
                copy = 1
                while name in taken:
                    copy += 1
                    name = f"{base} ({copy})"
                taken.add(name)
            yield self._proven(Source(paths, name), heads)

    def _proven(self, source: Source, heads: Sequence[Head]) -> Source | Refused:
        try:
            _Stack.of(heads, self.window, self.max_values)
        except DataError as error:
            return Refused(source.name, _without(source.files[0], error))
        return source

    def header(self, source: Source) -> ImageHeader:
        """What is known before a pixel is decoded."""
        return self._stack(source).header

    def read(self, source: Source) -> ImageData:
        """The values, one file after the other."""
        return self._stack(source).read()

    def examples(self, folder: Path) -> None:
        """An image of 12 bits, the two slices of a series, and several frames in one file."""
        from ssmdiff_medical.dicom_example import example

        rng = np.random.default_rng(0)
        example(folder / "image.dcm", rng.integers(0, 4096, (5, 6)))
        for i, name in enumerate(("second", "first")):
            example(folder / name, rng.integers(0, 4096, (5, 6)), slice_mm=2.5 * i)
        example(folder / "frames.dcm", rng.integers(0, 4096, (3, 5, 6)))

    def _stack(self, source: Source) -> _Stack:
        heads = [read_head(path, self.max_values) for path in source.files]
        for head in heads:
            pixels.decodable(head)
        with errors_named(source.files[0]):
            return _Stack.of(heads, self.window, self.max_values)


@dataclass(frozen=True)
class _Stack:
    """The frames of a source, in order, and what is made of their values."""

    heads: tuple[Head, ...]
    frames: tuple[Frame, ...]
    place: Place | None
    look: pixels.Look
    turned_about: float | None
    """Least and largest value added up, where black is to become white."""
    header: ImageHeader

    @classmethod
    def of(cls, heads: Sequence[Head], window: str | tuple[float, float], most: int) -> _Stack:
        """Checked for what a single file cannot show.

        Raises:
            DataError: The frames are no volume.
        """
        first = heads[0]
        refuse_mixed(heads)
        total = sum(head.values for head in heads)
        if total > most:
            raise DataError(f"{len(heads)} slices of {total} pixels, more than max_values = {most}")
        frames = tuple(frame for head in heads for frame in head.frames)
        several = len(frames) > 1
        place = None
        if several and first.samples == 1 and all(head.placed for head in heads):
            place = placed(frames)
        look, doubt = (None, "") if first.samples == 3 else pixels.chosen_look(frames, window)
        ends = [pixels.stored_range(first, frame) for frame in frames]
        whole = min(low for low, _ in ends), max(high for _, high in ends)
        shown = pixels.look_range(look) or _range_of_type(first, frames)
        about = sum(shown or whole) if first.inverse else None
        doubts = dict.fromkeys(w for head in heads for w in head.warnings)
        for word in (doubt, *(place.warnings if place else ())):
            if word:
                doubts[word] = None
        header = _header(first, frames, place, look, shown, tuple(doubts))
        return cls(tuple(heads), frames, place, look, about, header)

    def read(self) -> ImageData:
        count = len(self.frames)
        values, outside = np.empty(0), np.empty(0, bool)
        order = self.place.order if self.place else range(count)
        to = dict(zip(order, range(count), strict=True))
        number = 0
        for head in self.heads:
            stored = pixels.stored_frames(head)
            mask = pixels.padded(stored, head)
            for i, frame in enumerate(head.frames):
                plane = pixels.looked_at(pixels.real_values(stored[i], head, frame), self.look)
                if self.turned_about is not None:
                    plane = self.turned_about - plane
                if not number:
                    values = np.empty((count, *plane.shape), plane.dtype)
                    outside = np.zeros(values.shape, bool)
                values[to[number]] = plane
                if mask is not None:
                    outside[to[number]] = mask[i]
                number += 1
        if not np.isfinite(values).all():
            bad = values.size - int(np.isfinite(values).sum())
            raise DataError(
                f"{self.heads[0].path}: {bad} of {values.size} values are NaN or infinite; "
                "expected numbers"
            )
        if outside.any() and not outside.all():
            values[outside] = values[~outside].min()  # dark, and no value of its own
        if self.place:
            values = canonical(values, self.place.affine)
            outside = canonical(outside, self.place.affine)
        valid = ~outside.reshape(self.header.shape) if outside.any() else None
        return ImageData(values.reshape(self.header.shape), self.header, valid)


def _header(
    first: Head, frames: Sequence[Frame], place: Place | None, look: pixels.Look,
    shown: tuple[float, float] | None, doubts: tuple[str, ...],
) -> ImageHeader:  # fmt: skip
    shape: tuple[int, ...] = (len(frames), first.rows, first.columns)
    spacing, affine = frames[0].spacing, None
    axes = "tyx"
    if place:
        shape, matrix = canonical_shape((len(frames), first.rows, first.columns), place.affine)
        axes = "zyx"
        spacing = tuple(float(mm) for mm in np.linalg.norm(matrix[:3, :3], axis=0)[::-1])
        affine = tuple(tuple(float(v) for v in row) for row in matrix)
    elif len(frames) == 1:
        shape, axes = shape[1:], "yx"
    if first.samples == 3:
        shape, axes = (*shape, 3), f"{axes}c"
    return ImageHeader(
        shape=shape, axes=axes, depth=_depth(first), spacing=spacing, affine=affine,
        modality=first.modality, units=_units(first, frames, look), value_range=shown,
        patient=first.patient, series=first.series, facts=first.facts, warnings=doubts,
    )  # fmt: skip


def _depth(head: Head) -> str:
    if head.floats:
        return f"float{head.allocated}"
    if head.stored == 1:
        return "bool"
    if head.stored == head.allocated:
        return f"{'int' if head.signed else 'uint'}{head.stored}"
    return f"{head.stored} of {head.allocated} bits{', signed' * head.signed}"


def _range_of_type(head: Head, frames: Sequence[Frame]) -> tuple[float, float] | None:
    """Black and white where the stored type says so: colour, 8 bits and 1 bit as they are."""
    plain = all((f.slope, f.intercept, f.lut) == (1.0, 0.0, None) for f in frames)
    byte = plain and not head.signed and head.allocated == head.stored and head.stored in (1, 8)
    return (0.0, float(2**head.stored - 1)) if head.samples == 3 or byte else None


def _units(head: Head, frames: Sequence[Frame], look: pixels.Look) -> str:
    """``HU`` where it is said, or left out by a CT; none of colour or after a table or sigmoid."""
    if head.samples == 3 or isinstance(look, Lut) or pixels.look_range(look) == (0.0, 1.0):
        return ""
    said = {frame.rescale_type.strip().upper() for frame in frames}
    if len(said) > 1:
        return ""
    word = said.pop()
    if not word and head.modality == "CT":
        return "HU"
    return "" if word in ("US", "UNSPECIFIED") else word


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _without(path: Path, error: DataError) -> str:
    """The sentence alone: whose it is stands beside it."""
    return str(error).removeprefix(f"{path}: ")
