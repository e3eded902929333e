"""A picture under the rules of the data set ``folder``: its values from black to white, -1 to 1."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from ssmdiff import DataError, ImageHeader, Source

from ssmdiff_data.decoding import errors_name
from ssmdiff_data.pictures import PictureReader


class ReadRules(NamedTuple):
    """What a user decided about the files; see :class:`ssmdiff_data.folder.FolderDataset`."""

    max_pixels: int
    value_range: tuple[float, float] | None
    clip: bool
    alpha: Literal["error", "black", "white"]

    def reader(self) -> PictureReader:
        """A file is one picture: stacks are refused."""
        return PictureReader(self.max_pixels, self.alpha, stacks=False, behind=self.value_range)


def read_header(path: Path, rules: ReadRules) -> ImageHeader:
    """Check a file from its header alone.

    Raises:
        DataError: It is no regular file, empty, not an image, larger than ``max_pixels``, or of a
            kind that is refused. The message names the file.
    """
    header = rules.reader().header(_source(path))
    with errors_name(path):
        return dataclasses.replace(header, value_range=_range_of(header, rules))


def read_image(path: Path, rules: ReadRules) -> NDArray[np.float32]:
    """The whole image: (C, H, W) float32 in -1 to 1, upright by its EXIF orientation.

    Raises:
        DataError: As :func:`read_header`; or it is cut short or damaged, or holds NaN, infinity or
            values outside the range. The message names the file.
    """
    values, (low, high) = _read_values(path, rules)
    with errors_name(path):
        least, most = float(values.min()), float(values.max())
        if (least < low or most > high) and not rules.clip:
            raise DataError(
                f"values from {least:g} to {most:g}; expected {low:g} to {high:g}. Widen "
                "data.dataset.value_range, or use it as a window with --set data.dataset.clip=true"
            )
        scaled = np.clip((values - low) / (high - low) * 2 - 1, -1, 1).astype(np.float32)
        return np.ascontiguousarray(
            scaled[None] if scaled.ndim == 2 else np.moveaxis(scaled, -1, 0)
        )


class Spread(NamedTuple):
    """Where the values of a file lie."""

    least: float
    most: float
    outside: float
    """The fraction beyond the range in use."""


def read_spread(path: Path, rules: ReadRules) -> Spread:
    """The values of a file as they are stored; raises as :func:`read_image`."""
    values, (low, high) = _read_values(path, rules)
    outside = float(((values < low) | (values > high)).mean())
    return Spread(float(values.min()), float(values.max()), outside)


def _source(path: Path) -> Source:
    return Source((path,), path.name)


def _read_values(path: Path, rules: ReadRules) -> tuple[NDArray[Any], tuple[float, float]]:
    """The values (H, W) or (H, W, C), grey the right way round, and those of black and white."""
    stored, header, _ = rules.reader().read(_source(path))
    with errors_name(path):
        black_white = _range_of(header, rules)
    exact = stored.dtype.itemsize <= 2 or stored.dtype == np.float32
    return stored.astype(np.float32 if exact else np.float64), black_white


def _range_of(header: ImageHeader, rules: ReadRules) -> tuple[float, float]:
    chosen = rules.value_range or header.value_range
    if chosen is None:
        raise DataError(
            f"{header.depth} values have no known black and white. Give both, such as --set "
            "data.dataset.value_range=[0,1] or --set data.dataset.value_range=[-1024,3071]"
        )
    return chosen
