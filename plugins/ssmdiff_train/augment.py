"""Images that are turned, moved and zoomed at random before noise is added: for small sets.

What is done to image number i of a run is a function of (seed, i), so that a resumed run sees the
images that it would have seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from ssmdiff import Config, ConfigError, stream
from torch import Tensor
from torch.nn import functional


class Augmentation(NamedTuple):
    """How far an image may be changed; uniform between minus and plus each."""

    rotate_deg: float = 0.0
    shift: float = 0.0
    """A share of the sides."""
    zoom: float = 0.0
    """A factor of 1 - zoom to 1 + zoom."""

    def applied(self, image: Tensor, seed: int, number: int) -> Tensor:
        """Image ``number`` of a run, (C, H, W) in -1 to 1, changed; what comes into view is black.

        Bilinear, about the middle of the image.
        """
        if not any(self):
            return image
        draws = stream(seed, "augmentation", number)
        turn, across, down, size = (float(x) for x in 2 * draws.random(4) - 1)
        angle, scale = math.radians(self.rotate_deg) * turn, 1 + self.zoom * size
        cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
        height, width = image.shape[-2:]
        # Where each pixel is taken from, in units of half the sides: hence the aspect.
        matrix = [
            [cos, -sin * height / width, 2 * self.shift * across],
            [sin * width / height, cos, 2 * self.shift * down],
        ]
        theta = torch.tensor([matrix], dtype=image.dtype)
        grid = functional.affine_grid(theta, [1, *image.shape], align_corners=False)
        bright = functional.grid_sample(image[None] + 1, grid, align_corners=False)[0]
        return (bright - 1).clamp(-1, 1)


def settled(config: Config, dataset: Any) -> Config:
    """The configuration with what it leaves to the data set: flips and augmentation.

    A data set declares them as ``augmentation``, such as ``{"flip": True, "rotate_deg": 10.0}``;
    one that declares nothing has none.

    Raises:
        ConfigError: Images of other than two axes are to be changed.
    """
    declared: Mapping[str, Any] = getattr(dataset, "augmentation", None) or {}
    data = config.data
    flip = bool(declared.get("flip", False)) if data.flip is None else data.flip
    given = data.augment.model_dump()
    amounts = {
        name: float(declared.get(name, 0.0)) if value is None else value
        for name, value in given.items()
    }
    if any(amounts.values()) and len(data.image_size) != 2:
        raise ConfigError(
            f"data.augment turns, moves and zooms pictures; the images have {len(data.image_size)} "
            "axes. Give --set data.augment.rotate_deg=0 and so on"
        )
    augment = data.augment.model_copy(update=amounts)
    changed = data.model_copy(update={"flip": flip, "augment": augment})
    return config.model_copy(update={"data": changed})


def changes_of(config: Config) -> tuple[bool, Augmentation]:
    """Of a settled configuration: whether images are mirrored, and what else is done to them."""
    return bool(config.data.flip), Augmentation(**config.data.augment.model_dump())


def in_words(config: Config) -> tuple[str, str]:
    """Two lines for people: of flips, and of the rest."""
    flips = "flips: none; --set data.flip=true mirrors every other image left to right"
    mirrored, amounts = changes_of(config)
    if mirrored:
        flips = "flips: every other image, at random, is mirrored left to right (data.flip = true)"
    words = [
        f"turned by up to {amounts.rotate_deg:g} degrees" if amounts.rotate_deg else "",
        f"moved by up to {amounts.shift:.0%} of its sides" if amounts.shift else "",
        f"zoomed by up to {amounts.zoom:.0%}" if amounts.zoom else "",
    ]
    said = ", ".join(word for word in words if word)
    return flips, f"augmentation: {f'each image is {said} (data.augment)' if said else 'none'}"
