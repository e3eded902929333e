"""Features without a network: the principal components of the reference's pixels."""

from __future__ import annotations

import hashlib
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from ssmdiff import ConfigError, ImageSet

from ssmdiff_metrics.fitting import batches

Array = NDArray[np.float64]

VERSION = "pixels-1"


class Pixels:
    """The first principal components of the reference, of images of at most ``side`` pixels.

    Larger images are averaged over blocks first. The components are neither scaled nor whitened: a
    distance over them is one over grey levels, 0 to 1, summed over the pixels that are left.

    Args:
        components: d, how many are kept; fewer where the reference has fewer.
        side: Pixels along a side that an image is averaged down to.
    """

    trained_on_reference = True

    def __init__(
        self,
        components: Annotated[int, Field(ge=1, le=1024)] = 64,
        side: Annotated[int, Field(ge=4, le=128)] = 32,
    ) -> None:
        self.components, self.side = components, side
        self.mean: Array | None = None
        self.basis: Array | None = None
        self.shape: tuple[int, ...] = ()

    def fit(self, reference: ImageSet) -> None:
        """The components of 4,096 images of the reference at most."""
        averaged = np.concatenate(
            [self._averaged(levels) for levels in batches(reference, "pixel")]
        )
        self.shape = averaged.shape[1:]
        pixels = averaged.reshape(len(averaged), -1)
        self.mean = pixels.mean(axis=0)
        _, lengths, rows = np.linalg.svd(pixels - self.mean, full_matrices=False)
        # Beyond the rank of the reference a component is any direction: rounding would choose it.
        rank = max(1, int((lengths > 1e-9 * lengths.max(initial=1.0)).sum()))
        basis = rows[: min(self.components, rank)]
        # A component has no sign of its own: its largest entry is made positive.
        signs = np.sign(basis[np.arange(len(basis)), np.abs(basis).argmax(axis=1)])
        self.basis = basis * np.where(signs == 0, 1.0, signs)[:, None]

    def __call__(self, levels: NDArray[np.uint8]) -> Array:
        """(B, C, H, W) to (B, d)."""
        if self.mean is None or self.basis is None:
            raise ConfigError("pixel features are components of a reference; call fit first")
        averaged = self._averaged(levels)
        if averaged.shape[1:] != self.shape:
            raise ConfigError(
                f"pixel features are of images that average to {self.shape}; levels of shape "
                f"{levels.shape} do to {averaged.shape[1:]}. Resize them to the reference's size"
            )
        found: Array = (averaged.reshape(len(averaged), -1) - self.mean) @ self.basis.T
        return found

    def digest(self) -> str:
        known = hashlib.sha256(f"{VERSION} {self.components} {self.side}".encode())
        for part in (self.mean, self.basis):
            known.update(b"" if part is None else np.round(part, 6).tobytes())
        return known.hexdigest()

    def _averaged(self, levels: NDArray[np.uint8]) -> Array:
        """(B, C, h, w), 0 to 1, averaged over blocks so that no side is above ``side``; what is
        left at the lower and right edge for less than a block is cut off."""
        batch, channels, *sides = levels.shape
        step = max(1, min(-(-max(sides) // self.side), *sides))
        x = levels / 255.0
        height, width = (side // step * step for side in sides)
        blocks = x[:, :, :height, :width].reshape(
            batch, channels, height // step, step, width // step, step
        )
        averaged: Array = blocks.mean(axis=(3, 5))
        return averaged
