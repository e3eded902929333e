"""Pictures as files: what ``ssmdiff sample --format NAME`` writes without further packages."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from ssmdiff import ConfigError, DivergedError, ImageFacts, size_text, write_atomically, write_image

LEVELS = 2**16 - 1
_END_OF_PNG = b"\0\0\0\0IEND\xaeB`\x82"

Units = Literal["model", "data"]


class PngWriter:
    """8-bit PNG, grey or RGB: 0 for -1, 255 for 1, rounded to the nearest level."""

    suffix = ".png"

    def write(self, path: Path, image: NDArray[np.float32], facts: ImageFacts) -> None:
        """(1, H, W) or (3, H, W)."""
        if image.ndim != 3 or image.shape[0] not in (1, 3):
            raise ConfigError(
                f"png holds grey and RGB pictures, and the image is {size_text(image.shape)} "
                "(channels first). Try --format npy"
            )
        write_image(path, torch.from_numpy(np.ascontiguousarray(image, np.float32)))

    def whole(self, path: Path) -> bool:
        """Whether the file is there to its end."""
        return _ends_as_png(path)

    def load(self, path: Path, facts: ImageFacts) -> NDArray[np.float32]:
        """(C, H, W) in -1 to 1."""
        return np.asarray(np.moveaxis(np.atleast_3d(_pixels(path)), -1, 0) / 127.5 - 1, np.float32)


class Png16Writer:
    """16-bit grey PNG: 0 for -1, 65535 for 1, rounded to the nearest level.

    Args:
        units: ``data`` writes the values in the data's own units, as whole numbers from 0 to 65535.
    """

    suffix = ".png"

    def __init__(self, units: Units = "model") -> None:
        self.units = units

    def write(self, path: Path, image: NDArray[np.float32], facts: ImageFacts) -> None:
        """(1, H, W)."""
        from PIL import Image

        if image.ndim != 3 or image.shape[0] != 1:
            raise ConfigError(
                f"png16 holds grey pictures, and the image is {size_text(image.shape)} (channels "
                "first). Try --format npy, or png for 3 channels"
            )
        if not np.isfinite(image).all():
            raise DivergedError("the image holds values that are not finite; nothing is written")
        low, high = self._range(facts)
        if low < 0 or high > LEVELS:
            raise ConfigError(
                f"png16 holds values from 0 to {LEVELS}, and the data's lie from {low:g} to "
                f"{high:g}. Try --format npy --set units=data, or leave --set units=data out"
            )
        values = (np.clip(image[0].astype(np.float64), -1, 1) + 1) / 2 * (high - low) + low
        file = io.BytesIO()
        Image.fromarray(np.rint(values).astype(np.uint16)).save(file, "PNG")
        write_atomically(path, file.getvalue())

    def _range(self, facts: ImageFacts) -> tuple[float, float]:
        return _known_range(facts) if self.units == "data" else (0.0, float(LEVELS))

    def whole(self, path: Path) -> bool:
        """Whether the file is there to its end."""
        return _ends_as_png(path)

    def load(self, path: Path, facts: ImageFacts) -> NDArray[np.float32]:
        """(1, H, W) in -1 to 1."""
        low, high = self._range(facts)
        scaled = (_pixels(path)[None] - low) / (high - low) * 2 - 1
        return np.asarray(scaled, np.float32)


class NpyWriter:
    """``.npy``, float32, channels first, of any number of axes: -1 to 1 as they were drawn.

    Args:
        units: ``data`` writes the values in the data's own units.
    """

    suffix = ".npy"

    def __init__(self, units: Units = "model") -> None:
        self.units = units

    def write(self, path: Path, image: NDArray[np.float32], facts: ImageFacts) -> None:
        """(C, ...)."""
        values = np.ascontiguousarray(image, np.float32)
        if self.units == "data":
            low, high = _known_range(facts)
            unit = (values.astype(np.float64) + 1) / 2
            values = (unit * (high - low) + low).astype(np.float32)
        file = io.BytesIO()
        np.save(file, values, allow_pickle=False)
        write_atomically(path, file.getvalue())

    def whole(self, path: Path) -> bool:
        """Whether the file is there to its end."""
        try:
            np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError):
            return False
        return True

    def load(self, path: Path, facts: ImageFacts) -> NDArray[np.float32]:
        """(C, ...) in -1 to 1."""
        values: NDArray[np.float32] = np.load(path, allow_pickle=False)
        if self.units == "data":
            low, high = _known_range(facts)
            values = np.asarray(
                (values.astype(np.float64) - low) / (high - low) * 2 - 1, np.float32
            )
        return values


def _known_range(facts: ImageFacts) -> tuple[float, float]:
    if facts.value_range is None:
        raise ConfigError(
            "--set units=data: the run does not know its data's own units. Train with "
            "data.dataset.value_range, or from a store of ssmdiff data prepare"
        )
    return facts.value_range


def _pixels(path: Path) -> NDArray[np.float64]:
    from PIL import Image

    with Image.open(path) as picture:
        return np.asarray(picture, np.float64)


def _ends_as_png(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) < len(_END_OF_PNG):
            return False
        file.seek(-len(_END_OF_PNG), os.SEEK_END)
        return file.read() == _END_OF_PNG
