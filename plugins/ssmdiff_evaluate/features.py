"""Features of a set of images, computed in batches by index and kept by what they are made from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from ssmdiff import FeatureNetwork, ImageSet

from ssmdiff_evaluate.sets import batches, read_part, write_part

PART = 256
"""Images of a batch, and of a part that is kept; fixed, as another batch rounds otherwise."""


def features_of(
    images: ImageSet,
    network: FeatureNetwork,
    cache: Path,
    mirrored: bool = False,
    on_images: Callable[[int], None] | None = None,
) -> NDArray[np.floating]:
    """(N, d) of a set, from the cache as far as they are there.

    Args:
        images: The set.
        network: Fitted.
        cache: A folder; a part is whole or not there, so what was stopped goes on.
        mirrored: Of the images flipped left to right.
        on_images: Called with the number of images that are done.

    Raises:
        DataError: A part cannot be read.
    """
    key = hashlib.sha256(f"{network.digest()} {images.digest()} {mirrored}".encode()).hexdigest()
    folder = cache / key[:16]
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for indices in batches(len(images), PART):
        path = folder / f"part-{indices.start:08d}-{len(indices)}.npy"
        if path.is_file():
            part = read_part(path)
        else:
            levels = images.levels(indices)
            part = network(levels[..., ::-1].copy() if mirrored else levels)
            write_part(path, part)
        parts.append(part)
        if on_images:
            on_images(len(indices))
    return np.concatenate(parts)
