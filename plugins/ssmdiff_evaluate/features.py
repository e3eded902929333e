"""Features of a set of images, computed in batches by index and kept by what they are made from."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from ssmdiff import DataError, FeatureNetwork, ImageSet, write_atomically

from ssmdiff_evaluate.sets import batches

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
            try:
                part = np.load(path, allow_pickle=False)
            except (OSError, ValueError) as error:
                raise DataError(f"{path} cannot be read: {error}. Delete it, and go on") from error
        else:
            levels = images.levels(indices)
            part = network(levels[..., ::-1].copy() if mirrored else levels)
            buffer = io.BytesIO()
            np.save(buffer, part, allow_pickle=False)
            write_atomically(path, buffer.getvalue())
        parts.append(part)
        if on_images:
            on_images(len(indices))
    return np.concatenate(parts)
