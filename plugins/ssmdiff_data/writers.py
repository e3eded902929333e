"""Pictures as files: what ``ssmdiff sample --format NAME`` writes without further packages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from ssmdiff import ConfigError, ImageFacts, size_text, write_image


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
