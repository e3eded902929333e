"""From what a network draws, -1 to 1, back to the units of its data."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from ssmdiff import ConfigError, DivergedError, ImageFacts, size_text


def grey_planes(image: NDArray[np.float32], name: str) -> NDArray[np.float64]:
    """(planes, rows, columns), -1 to 1 and cut to it.

    Raises:
        ConfigError: There is more than one channel, or it is no image or volume.
        DivergedError: It holds values that are not finite.
    """
    if image.ndim not in (3, 4) or image.shape[0] != 1:
        raise ConfigError(
            f"{name} is written with one channel, and the image is {size_text(image.shape)} "
            "(channels first). Try --format npy, or png for a picture of 3 channels"
        )
    planes = np.asarray(image[0], np.float64)
    if not np.isfinite(planes).all():
        raise DivergedError("the image holds values that are not finite; nothing is written")
    return np.clip(planes if planes.ndim == 3 else planes[None], -1, 1)


def range_of(facts: ImageFacts) -> tuple[float, float]:
    """The values of -1 and of 1: -1 and 1 where the run does not know the data's units."""
    return facts.value_range or (-1.0, 1.0)


def to_unit(values: NDArray, facts: ImageFacts) -> NDArray[np.float32]:
    """From the data's units to -1 to 1."""
    low, high = range_of(facts)
    return np.asarray((values.astype(np.float64) - low) / (high - low) * 2 - 1, np.float32)
