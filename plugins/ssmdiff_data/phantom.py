"""Synthetic heads in axial T1-like contrast: a data set that needs no download."""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any

import torch
from pydantic import Field
from ssmdiff import Condition, ConfigError, ImageItem, Seed, stream
from torch import Tensor

from ssmdiff_data.heads import (
    ANGLE_DEG,
    HEAD_LENGTH,
    SCALE,
    Head,
    Tissue,
    draw_head,
    render,
    tissues,
)
from ssmdiff_data.scaling import lowered
from ssmdiff_data.told import Told

_DRAWING = "phantom-1"
"""Part of the fingerprint: a change that moves any pixel gets a new name."""

_MIN_SIDE_PX = 4
HELD_OUT = 1024
FINDINGS = ("lesion", "wide ventricles", "narrow head")
_WIDE, _NARROW = 0.28, 0.76
"""Half length of the ventricles above which they are wide, half width of a head that is narrow."""


class PhantomDataset:
    """Axial slices through synthetic heads, half of them with a lesion.

    Lengths are in units of half the shorter image side, in a frame fixed to the head (before its
    scale), u to the right and v to the back. Intensities are fractions of full scale.

    ============ ================================================================================
    ingredient   what varies
    ============ ================================================================================
    pose         rotation -15 to 15 degrees, shift -0.04 to 0.04 on each axis, scale 0.86 to 1
    outline      an egg: half length 0.92, half width 0.70 to 0.82, wider at the back by up to 12%
    scalp        a bright ring (0.75 to 1), 0.05 to 0.09 thick
    skull        a dark ring (0.04 to 0.14) with marrow (0.25 to 0.55) in its middle, 0.05 to 0.08
    fluid        a dark ring (0.10 to 0.22) of 0.01 to 0.05; it also fills sulci and ventricles
    grey matter  0.40 to 0.50; cortex 0.05 to 0.075 thick, along the surface and along the sulci,
                 and two deep nuclei
    white matter grey matter plus 0.18 to 0.28
    sulci        the zero lines of a random field of wavelength 0.3 to 0.45, 0.25 to 0.45 deep, and
                 the fissure between the hemispheres, front and back
    ventricles   a pair of bent ellipses, 0.20 to 0.36 half long, 0.05 to 0.11 half wide, splayed
                 by -0.25 to 0.25, one side up to 15% larger
    lesion       in class ``lesion``: an irregular blob of radius 0.09 to 0.22 in the brain, bright
                 (0.88 to 1), dark (0.12 to 0.24), or a bright rim round a dark core
    bias field   a multiplicative tilt of 4% to 18% and bow of -10% to 10%
    ============ ================================================================================

    Image i is a pure function of (seed, i). Even indices are ``healthy``, odd ones ``lesion``. What
    else can be told of it, see ``conditions``, is made when it is asked for.

    Args:
        image_size: (H, W), each at least 4; the head fits the shorter side.
        length: How many images there are.
        seed: Another seed gives other heads.

    Raises:
        ConfigError: ``image_size`` is not of that form.
    """

    channels = 1
    augmentation = MappingProxyType({"flip": True})
    class_names = ("healthy", "lesion")
    conditions = (
        Condition("findings", "labels", FINDINGS),
        Condition(
            "size", "number", low=HEAD_LENGTH * SCALE[0], high=HEAD_LENGTH * SCALE[1],
            unit="of the shorter side", moved_by=("zoom",),
        ),
        Condition(
            "angle", "number", low=ANGLE_DEG[0], high=ANGLE_DEG[1], unit="degrees",
            moved_by=("flip", "rotate_deg"),
        ),
        Condition("mask", "mask", tuple(one.name.lower().replace("_", " ") for one in Tissue)),
        Condition("low", "image", channels=1),
    )  # fmt: skip
    is_open = True
    """Nobody's head: they may be shown."""

    def __init__(
        self,
        image_size: tuple[int, ...],
        *,
        length: Annotated[int, Field(ge=1)] = 4096,
        seed: Seed = 0,
    ) -> None:
        if len(image_size) != 2 or min(image_size) < _MIN_SIDE_PX:
            raise ConfigError(
                f"data set 'phantom' was asked for image size {tuple(image_size)}; expected "
                f"(height, width), each at least {_MIN_SIDE_PX}"
            )
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.length = length
        self.seed = seed
        self._first = 0

    @property
    def held_out(self) -> PhantomDataset:
        """1,024 heads that training never sees: those that come after its own."""
        others = PhantomDataset(self.image_size, length=HELD_OUT, seed=self.seed)
        others._first = self._first + self.length
        return others

    @property
    def groups(self) -> tuple[str, ...]:
        """The patient of each image: every head is its own."""
        return tuple(str(self._first + i) for i in range(self.length))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> ImageItem:
        """Image ``index``: (1, H, W) float32 in -1 to 1, and 0 (healthy) or 1 (lesion).

        Raises:
            IndexError: ``index`` is not from 0 to length - 1.
        """
        index = operator.index(index)
        if not 0 <= index < self.length:
            raise IndexError(f"index {index} of {self.length} phantoms")
        index += self._first
        label = index % 2
        head = draw_head(stream(self.seed, "phantom", index), lesion=label == 1)
        image = torch.from_numpy(render(head, self.image_size)[None])
        return ImageItem(image, label, self._told(head, image))

    def _told(self, head: Head, image: Tensor) -> Mapping[str, Any]:
        return Told(
            findings=lambda: findings_of(head),
            size=lambda: HEAD_LENGTH * head.scale,
            angle=lambda: math.degrees(head.angle),
            mask=lambda: torch.from_numpy(tissues(head, self.image_size)),
            low=lambda: lowered(image),
        )

    def fingerprint(self) -> str:
        """sha256, in hex, of the drawing's version and every option."""
        text = f"{_DRAWING} {self.image_size} {self.length} {self.seed}"
        if self._first:
            text += f" from {self._first}"
        return hashlib.sha256(text.encode()).hexdigest()


def findings_of(head: Head) -> tuple[int, ...]:
    """Numbers of ``FINDINGS``: all that a head has."""
    has = (head.lesion is not None, head.ventricle[1] > _WIDE, head.half_width < _NARROW)
    return tuple(i for i, there in enumerate(has) if there)
