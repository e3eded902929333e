"""Differentiable augmentation (Zhao et al., arXiv:2006.10738), for small sets.

Every image that the discriminator sees, real or generated, is changed at random, and the
generator's gradient goes through the change; so nothing of it leaks into what is generated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Change = Literal["colour", "translation", "cutout"]
UNIFORMS = 7
"""Numbers from 0 to 1 for each image: three of colour, two each of translation and cutout."""
MOVED = 1 / 8  # of the sides, at most
CUT = 1 / 2  # of the sides


def changed(images: Tensor, changes: Sequence[Change], uniforms: Tensor) -> Tensor:
    """The images after the changes, in their order.

    Args:
        images: (B, C, H, W), -1 to 1.
        changes: Which.
        uniforms: (B, 7).
    """
    for change in changes:
        if change == "colour":
            images = coloured(images, uniforms[:, 0:3])
        elif change == "translation":
            images = moved(images, uniforms[:, 3:5])
        else:
            images = cut(images, uniforms[:, 5:7])
    return images


def coloured(images: Tensor, uniforms: Tensor) -> Tensor:
    """Brightness within 0.5, saturation 0 to 2, contrast 0.5 to 1.5; values may leave -1 to 1."""
    brightness, saturation, contrast = (u[:, None, None, None] for u in uniforms.unbind(1))
    images = images + (brightness - 0.5)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * (2 * saturation)
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * (contrast + 0.5)


def moved(images: Tensor, uniforms: Tensor) -> Tensor:
    """Moved by whole pixels, an eighth of the sides at most; what comes into view is 0."""
    height, width = images.shape[2:]
    rows, columns = (
        _places(length, u, int(length * MOVED + 0.5))
        for length, u in zip((height, width), uniforms.unbind(1), strict=True)
    )
    padded = F.pad(images, (1, 1, 1, 1))
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    found = padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]]
    return found.permute(0, 3, 1, 2)


def _places(length: int, uniforms: Tensor, most: int) -> Tensor:
    """(B, length) where each pixel is taken from, in an image with a border of one."""
    shift = (uniforms * (2 * most + 1)).floor().long() - most
    at = torch.arange(length, device=uniforms.device) + 1
    return (at + shift[:, None]).clamp(0, length + 1)


def cut(images: Tensor, uniforms: Tensor) -> Tensor:
    """A box of half the sides is 0; its middle is anywhere in the image."""
    kept = torch.zeros((), dtype=torch.bool, device=images.device)
    for axis, (length, u) in enumerate(zip(images.shape[2:], uniforms.unbind(1), strict=True)):
        middle = (u * length).floor()
        half = length * CUT / 2
        at = torch.arange(length, device=images.device)
        outside = (at < (middle - half)[:, None]) | (at >= (middle + half)[:, None])
        kept = kept | (outside[:, :, None] if axis == 0 else outside[:, None, :])
    return images * kept[:, None].to(images.dtype)
