"""A picture brought to another size, other channels, or a lower resolution."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Resize = Literal["center", "pad", "stretch"]
LOW = 4
"""A picture of low resolution has so many pixels in the place of one, along each axis."""
_LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601 weights of red, green and blue."""


def with_channels(image: Tensor, channels: int) -> Tensor:
    """(C, H, W) to ``channels`` channels, 1 or 3."""
    if image.shape[0] == channels:
        return image
    if channels == 3:
        return image.expand(3, -1, -1)
    return (image * torch.tensor(_LUMA).view(3, 1, 1)).sum(0, keepdim=True)


def scale(
    image: Tensor,
    size: tuple[int, int],
    how: Resize,
    labels: bool = False,
) -> Tensor:
    """(C, h, w) in -1 to 1 to (C, *size); an image that already has the size is left as it is.

    With ``labels``, the values are numbers of classes: the nearest is taken, and 0 lies around.
    """
    height, width = image.shape[1:]
    if how == "center":
        # Cut before scaling: a strip of 1 x 1000000 pixels never grows to cover the size.
        crop_h = min(height, max(1, round(width * size[0] / size[1])))
        crop_w = min(width, max(1, round(height * size[1] / size[0])))
        top, left = (height - crop_h) // 2, (width - crop_w) // 2
        return _interpolate(image[:, top : top + crop_h, left : left + crop_w], size, labels)
    if how == "stretch":
        return _interpolate(image, size, labels)
    factor = min(size[0] / height, size[1] / width)
    inner = (max(1, math.floor(height * factor + 0.5)), max(1, math.floor(width * factor + 0.5)))
    inner = (min(inner[0], size[0]), min(inner[1], size[1]))
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    sides = (left, size[1] - inner[1] - left, top, size[0] - inner[0] - top)
    scaled = _interpolate(image, inner, labels)
    return functional.pad(scaled, sides, value=0.0 if labels else -1.0)


def _interpolate(image: Tensor, size: tuple[int, int], labels: bool) -> Tensor:
    if tuple(image.shape[1:]) == size:
        return image.contiguous()
    if labels:
        return functional.interpolate(image[None], size, mode="nearest-exact")[0]
    scaled = functional.interpolate(image[None], size, mode="bicubic", antialias=True)[0]
    return scaled.clamp(-1, 1)  # bicubic overshoots at edges


def lowered(image: Tensor) -> Tensor:
    """(C, H, W) in -1 to 1 as a scanner of a quarter of the resolution would show it, at its size.

    Means over ``LOW`` x ``LOW`` pixels, brought up again by bicubic interpolation.
    """
    height, width = image.shape[1:]
    small = (max(1, round(height / LOW)), max(1, round(width / LOW)))
    means = functional.interpolate(image[None], small, mode="area")
    return functional.interpolate(means, (height, width), mode="bicubic")[0].clamp(-1, 1)
