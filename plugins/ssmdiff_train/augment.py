"""Images that are turned, moved and zoomed at random before noise is added: for small sets.

What is done to image number i of a run is a function of (seed, i), so that a resumed run sees the
images that it would have seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from ssmdiff import Config, ConfigError, stream, told_conditions
from torch import Tensor
from torch.nn import functional


class Change(NamedTuple):
    """What is done to one image, about its middle; what comes into view is black."""

    turn_rad: float = 0.0
    across: float = 0.0
    """How far it moves, in halves of the sides."""
    down: float = 0.0
    scale: float = 1.0

    def __call__(self, image: Tensor) -> Tensor:
        """(C, H, W) in -1 to 1, changed; bilinear."""
        if self == _NONE:
            return image
        bright = self._sampled(image + 1, "bilinear")
        return (bright - 1).clamp(-1, 1)

    def mask(self, mask: Tensor) -> Tensor:
        """(H, W) numbers, each pixel that of the nearest; 0 comes into view."""
        if self == _NONE:
            return mask
        return self._sampled(mask[None].float(), "nearest")[0].to(torch.int64)

    def _sampled(self, image: Tensor, mode: str) -> Tensor:
        cos, sin = math.cos(self.turn_rad) / self.scale, math.sin(self.turn_rad) / self.scale
        height, width = image.shape[-2:]
        # Where each pixel is taken from, in units of half the sides: hence the aspect.
        matrix = [
            [cos, -sin * height / width, self.across],
            [sin * width / height, cos, self.down],
        ]
        theta = torch.tensor([matrix], dtype=image.dtype)
        grid = functional.affine_grid(theta, [1, *image.shape], align_corners=False)
        return functional.grid_sample(image[None], grid, mode=mode, align_corners=False)[0]


_NONE = Change()


class Augmentation(NamedTuple):
    """How far an image may be changed; uniform between minus and plus each."""

    rotate_deg: float = 0.0
    shift: float = 0.0
    """A share of the sides."""
    zoom: float = 0.0
    """A factor of 1 - zoom to 1 + zoom."""

    def drawn(self, seed: int, number: int) -> Change:
        """What is done to image ``number`` of a run, and to all that has a place in it."""
        if not any(self):
            return _NONE
        draws = stream(seed, "augmentation", number)
        turn, across, down, size = (float(x) for x in 2 * draws.random(4) - 1)
        angle, scale = math.radians(self.rotate_deg) * turn, 1 + self.zoom * size
        return Change(angle, 2 * self.shift * across, 2 * self.shift * down, scale)


def settled(config: Config, dataset: Any) -> Config:
    """The configuration with what it leaves to the data set: flips and augmentation.

    A data set declares them as ``augmentation``, such as ``{"flip": True, "rotate_deg": 10.0}``;
    one that declares nothing has none. One that would make untrue what the model is told is left
    out, see :func:`left_out`.

    Raises:
        ConfigError: Images of other than two axes are to be changed, or a change that was asked for
            would make untrue what the model is told.
    """
    declared: Mapping[str, Any] = getattr(dataset, "augmentation", None) or {}
    data = config.data
    flip = bool(declared.get("flip", False)) if data.flip is None else data.flip
    given = data.augment.model_dump()
    amounts = {
        name: float(declared.get(name, 0.0)) if value is None else value
        for name, value in given.items()
    }
    for name, condition in _moved(config, dataset).items():
        asked = data.flip if name == "flip" else given.get(name)
        if asked:
            key = f"data.{'' if name == 'flip' else 'augment.'}{name}"
            raise ConfigError(
                f"{key} = {str(asked).lower()} would make untrue what the model is told as "
                f"{condition!r}; leave it out, or take {condition!r} out of model.conditions"
            )
        flip, amounts = flip and name != "flip", amounts | ({name: 0.0} if name in amounts else {})
    if any(amounts.values()) and len(data.image_size) != 2:
        raise ConfigError(
            f"data.augment turns, moves and zooms pictures; the images have {len(data.image_size)} "
            "axes. Give --set data.augment.rotate_deg=0 and so on"
        )
    augment = data.augment.model_copy(update=amounts)
    changed = data.model_copy(update={"flip": flip, "augment": augment})
    return config.model_copy(update={"data": changed})


def left_out(config: Config, dataset: Any) -> list[str]:
    """Sentences on what the data set declares and a settled configuration leaves out."""
    declared: Mapping[str, Any] = getattr(dataset, "augmentation", None) or {}
    return [
        f"left out: {name}, which the data set declares and which would make untrue what the model "
        f"is told as {condition!r}"
        for name, condition in _moved(config, dataset).items()
        if declared.get(name)
    ]


def _moved(config: Config, dataset: Any) -> dict[str, str]:
    """Changes that would make untrue what the model is told, and as what it is told that."""
    if not (config.model.conditions or config.model.class_conditional):
        return {}
    return {name: one.name for one in told_conditions(config, dataset) for name in one.moved_by}


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
