"""What the feature networks that learn from a reference share."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from ssmdiff import ConfigError, ImageSet

_MOST = 4096  # images of the reference that are learnt from
_BATCH = 256


def batches(reference: ImageSet, name: str) -> Iterator[NDArray[np.uint8]]:
    """(B, C, H, W) levels of at most 4,096 images of the reference, evenly spread.

    Raises:
        ConfigError: There are fewer than two.
    """
    require_images(reference, name)
    count = min(len(reference), _MOST)
    chosen = np.linspace(0, len(reference) - 1, count).astype(int).tolist()
    for start in range(0, count, _BATCH):
        yield reference.levels(chosen[start : start + _BATCH])


def require_images(reference: ImageSet, name: str) -> None:
    """Nothing if there is something to learn from.

    Raises:
        ConfigError: There are fewer than two images.
    """
    if len(reference) < 2:
        raise ConfigError(
            f"{name} features learn from a reference of at least two images; got {len(reference)}"
        )


def require_channels(levels: NDArray[np.uint8], channels: int, name: str) -> None:
    """Nothing if (B, C, H, W) levels have the channels that were learnt from.

    Raises:
        ConfigError: They have others.
    """
    if levels.ndim != 4 or levels.shape[1] != channels:
        raise ConfigError(
            f"{name} features were learnt from images of {channels} channels; got levels of shape "
            f"{levels.shape}, expected (B, {channels}, H, W)"
        )
