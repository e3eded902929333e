"""Features of a set of images, computed in batches by index and kept by what they are made from."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ssmdiff import Evaluated, FeatureNetwork, ImageSet, Keep

from ssmdiff_evaluate.sets import batches, read_part, write_part

PART = 256
"""Images of a batch, and of a part that is kept; fixed, as another batch rounds otherwise."""


def features_of(
    images: ImageSet,
    network: FeatureNetwork,
    cache: Path,
    on_images: Callable[[int], None] | None = None,
) -> NDArray[np.floating]:
    """(N, d) of a set, from the cache as far as they are there.

    Args:
        images: The set.
        network: Fitted.
        cache: A folder; a part is whole or not there, so what was stopped goes on.
        on_images: Called with the number of images that are done.

    Raises:
        DataError: A part cannot be read.
    """
    key = hashlib.sha256(f"{network.digest()} {images.digest()}".encode()).hexdigest()
    folder = cache / key[:16]
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for indices in batches(len(images), PART):
        path = folder / f"part-{indices.start:08d}-{len(indices)}.npy"
        if path.is_file():
            part = read_part(path)
        else:
            with _in_float32():
                part = network(images.levels(indices))
            write_part(path, part)
        parts.append(part)
        if on_images:
            on_images(len(indices))
    return np.concatenate(parts)


@contextmanager
def _in_float32() -> Iterator[None]:
    """torch lets a GPU round what convolutions read to TF32, 10 bits; a distance is the same on
    every device but for the last digits."""
    from torch.backends import cudnn

    before = cudnn.allow_tf32
    cudnn.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32 = before


class Seen(Evaluated):
    """A set under a network, looked at when its features are first asked for.

    Args:
        images: The set.
        look: Gives the features.
    """

    def __init__(self, images: ImageSet, look: Callable[[ImageSet], NDArray[np.floating]]) -> None:
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "look", look)

    @functools.cached_property
    def features(self) -> NDArray[np.floating]:  # type: ignore[override]
        """(N, d)."""
        found: NDArray[np.floating] = self.look(self.images)  # type: ignore[attr-defined]
        return found


def keep_in(cache: Path) -> Keep:
    """Arrays in a folder, each by the digest of its key, whole or not there."""

    def keep(key: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        path = cache / f"kept-{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
        if not path.is_file():
            cache.mkdir(parents=True, exist_ok=True)
            write_part(path, make())
        return read_part(path)

    return keep
