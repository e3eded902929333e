"""Whether two images look alike at all: what a network that sees no difference cannot say."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from ssmdiff import ImageSet

SIDE = 8
_READ = 256


def alikeness(
    images: ImageSet,
    places: NDArray[np.integer],
    others: ImageSet,
    partners: NDArray[np.integer],
    mirrored: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """(M,) Pearson's correlation of each pair of images, both averaged over about 8 x 8 blocks; of
    the partner flipped left to right where ``mirrored``. 0 where one of them is of one grey.

    Args:
        images: One side.
        places: (M,) indices into it.
        others: The other side, of the same shape.
        partners: (M,) indices into it.
        mirrored: (M,).
    """
    found = [np.empty(0)]
    for start in range(0, len(places), _READ):
        part = slice(start, start + _READ)
        x, y = images.levels(places[part].tolist()), others.levels(partners[part].tolist())
        y = np.where(mirrored[part, None, None, None], y[..., ::-1], y)
        a, b = _standardised(_averaged(x)), _standardised(_averaged(y))
        found.append((a * b).sum(axis=1))
    return np.concatenate(found)


def _averaged(levels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(B, C, H, W) to the means of blocks, (B, d); what is left at the edges is cut off."""
    batch, channels, *sides = levels.shape
    height, width = (max(1, side // SIDE) for side in sides)
    rows, columns = sides[0] // height, sides[1] // width
    blocks = levels[:, :, : rows * height, : columns * width].reshape(
        batch, channels, rows, height, columns, width
    )
    means: NDArray[np.float64] = blocks.mean(axis=(3, 5))
    return means.reshape(batch, -1)


def _standardised(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of mean 0 and length 1, or of zeros."""
    x = x - x.mean(axis=1, keepdims=True)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    unit: NDArray[np.float64] = np.where(length > 1e-9, x / np.maximum(length, 1e-9), 0.0)
    return unit
