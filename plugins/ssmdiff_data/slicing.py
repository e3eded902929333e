"""Pictures of a volume: along an axis, the right way up, with square pixels, and only some of them.

A volume comes as (z, y, x): z towards the head, y from front to back, x from the patient's right to
the left; see docs/data.md.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from ssmdiff import ConfigError, DataError
from torch import Tensor
from torch.nn import functional

Axis = Literal["axial", "coronal", "sagittal"]
AXES: tuple[Axis, ...] = ("axial", "coronal", "sagittal")
CONTENT = -0.9
"""Brighter than a twentieth of the way from black to white counts as content."""
_UNEVEN = 1.01
"""Pixels whose sides differ by more than this are made square."""
_FORMS = "all, content:0.15, label, label:1,2 or position:0.2,0.8"


class SliceRule(NamedTuple):
    """Which slices are kept.

    ``content``: those with at least this share of pixels that are not nearly black. ``label``:
    those in whose mask one of these labels is. ``position``: those whose place along the axis,
    0 to 1, lies between two numbers.
    """

    name: Literal["all", "content", "label", "position"]
    numbers: tuple[float, ...] = ()

    def __str__(self) -> str:
        return ":".join([self.name, ",".join(f"{n:g}" for n in self.numbers)]).rstrip(":")

    def keeps(
        self, pictures: NDArray[np.float32], mask: NDArray[Any] | None, place: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Which of these slices are kept.

        Args:
            pictures: (n, C, h, w) in -1 to 1.
            mask: (n, h, w), the labels of each pixel, if there are some.
            place: (n,) along the axis, 0 to 1.

        Raises:
            DataError: It asks for labels and there are none.
        """
        if self.name == "content":
            share = (pictures > CONTENT).any(1).reshape(len(pictures), -1).mean(1)
            return np.asarray(share >= self.numbers[0])
        if self.name == "position":
            return np.asarray((place >= self.numbers[0]) & (place <= self.numbers[1]))
        if self.name == "label":
            if mask is None:
                raise DataError(
                    f"--slices {self} asks for labels, and there is no mask beside the image"
                )
            wanted = np.isin(mask, self.numbers) if self.numbers else mask > 0
            return np.asarray(wanted.reshape(len(mask), -1).any(1))
        return np.ones(len(pictures), bool)


ALL = SliceRule("all")


def parse_slices(text: str) -> SliceRule:
    """``all``, ``content:0.15``, ``label``, ``label:1,2`` or ``position:0.2,0.8``.

    Raises:
        ConfigError: It is none of these.
    """
    name, _, rest = text.partition(":")
    try:
        numbers = tuple(float(part) for part in rest.split(",")) if rest else ()
    except ValueError:
        name, numbers = "", ()
    right = {
        "all": not numbers,
        "content": len(numbers) == 1 and 0 <= numbers[0] <= 1,
        "label": all(n >= 0 and n.is_integer() for n in numbers),
        "position": len(numbers) == 2 and 0 <= numbers[0] < numbers[1] <= 1,
    }
    if not right.get(name, False):
        raise ConfigError(f"--slices {text!r}: expected {_FORMS}")
    return SliceRule(name, numbers)  # type: ignore[arg-type]


def pictures_of(volume: NDArray[Any], axis: Axis) -> NDArray[Any]:
    """(z, y, x) as (n, rows, columns): axial with the nose up, the others with the head up."""
    if axis == "axial":
        return volume
    upright = volume[::-1]  # z towards the head: the first row is the highest
    return np.moveaxis(upright, 1 if axis == "coronal" else 2, 0)


def spacing_of(spacing: tuple[float, float, float], axis: Axis) -> tuple[float, float, float]:
    """(z, y, x) in mm as (between slices, row, column) of pictures along the axis."""
    z, y, x = spacing
    return {"axial": (z, y, x), "coronal": (y, z, x), "sagittal": (x, z, y)}[axis]


def squared(
    pictures: Tensor, row: float, column: float, labels: bool = False
) -> tuple[Tensor, float, float]:
    """(n, C, h, w) with pixels as high as wide, of the smaller side, and that side in mm twice."""
    if not max(row, column) > _UNEVEN * min(row, column):  # also where they are not known
        return pictures, row, column
    side = min(row, column)
    height, width = pictures.shape[-2:]
    size = (max(1, round(height * row / side)), max(1, round(width * column / side)))
    if not len(pictures):
        scaled = pictures.new_empty((0, pictures.shape[1], *size))
    elif labels:
        scaled = functional.interpolate(pictures, size, mode="nearest-exact")
    else:
        scaled = functional.interpolate(pictures, size, mode="bicubic", antialias=True)
        scaled = scaled.clamp(-1, 1)
    return scaled, side, side


def scaled_spacing(
    height: int, width: int, size: tuple[int, int], how: str, row: float, column: float
) -> tuple[float, float]:
    """mm of a pixel's sides after ``scale`` has made (height, width) into ``size``."""
    if how == "stretch":
        return row * height / size[0], column * width / size[1]
    ratios = (size[0] / height, size[1] / width)
    factor = max(ratios) if how == "center" else min(ratios)
    return row / factor, column / factor


def as_tensor(pictures: NDArray[np.float32]) -> Tensor:
    """Of its own memory: a picture may be a view that runs backwards."""
    return torch.from_numpy(np.ascontiguousarray(pictures))
