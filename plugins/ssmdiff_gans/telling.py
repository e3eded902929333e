"""What goes wrong in the training of a GAN, told while it does: a discriminator that has won, and
a generator that makes one image."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ssmdiff import (
    ConfigError,
    Evaluated,
    Evaluation,
    Figure,
    Look,
    Metric,
    Seen,
    SsmdiffError,
    create,
    to_levels,
)
from torch import Tensor

RIGHT = "verdicts_right"
"""Share of the discriminator's verdicts that are right, on images as a whole; 0.5 by guessing."""
SIMILARITY = "ms_ssim_of_samples"
WINDOW = 200  # steps
WON, BACK = 0.995, 0.95
HALFWAY = 0.5
SIMILAR = {"name": "ms-ssim", "pairs": 200}
IMAGES = 64


class Discriminated:
    """Tells once that the discriminator has won, and again after the generator came back.

    A discriminator that is right about nearly every image gives the generator little to go by.
    """

    def __init__(self) -> None:
        self._right: deque[float] = deque(maxlen=WINDOW)
        self._told = False

    def after(self, step: int, right: float) -> list[str]:
        """Doubts after a step.

        Args:
            step: Steps done.
            right: Share of the verdicts of the step that were right.
        """
        self._right.append(right)
        share = sum(self._right) / len(self._right)
        if share < BACK:
            self._told = False
        if self._told or len(self._right) < WINDOW or share < WON:
            return []
        self._told = True
        return [
            f"step {step}: the discriminator has won: {share:.1%} of its verdicts of the last "
            f"{WINDOW} steps are right, so the generator learns little from them. Try: a lower "
            '--set method.discriminator_rate, or --set \'method.augment=["colour", '
            '"translation", "cutout"]\' for a small set'
        ]


class Collapse:
    """Tells that samples are more alike than images are, by MS-SSIM of pairs.

    Args:
        every: Steps between two looks; 0 for none.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._metric: Metric | None = None
        self._real: Levels | None = None

    def begin(self) -> str:
        """Before the first step. Returns why collapse is not looked for, if it was asked for."""
        if not self.every:
            return ""
        try:
            self._metric = create("metric", SIMILAR)
        except SsmdiffError as error:
            return f"collapse is not looked for: {error}"
        return ""

    def after(self, look: Look) -> tuple[dict[str, float], list[str]]:
        """A figure to report and a doubt, where they are due."""
        if self._metric is None or look.step % self.every:
            return {}, []
        if self._real is None:
            self._real = Levels(look.real(IMAGES))
        both = self._real, Levels(look.drawn(IMAGES))
        real, drawn = (Evaluated(one, np.zeros((len(one), 1))) for one in both)
        try:
            (figure,) = self._metric(Evaluation("none", real, drawn))
        except ConfigError:  # images of a few pixels
            self._metric = None
            return {}, []
        return {SIMILARITY: figure.value}, _doubts(look.step, figure)


def _doubts(step: int, figure: Figure) -> list[str]:
    real = figure.reference or 0.0
    if figure.value < real + HALFWAY * (1 - real):
        return []
    return [
        f"step {step}: the generator has collapsed: pairs of its images have a mean MS-SSIM of "
        f"{figure.value:.3f}, pairs of training images {real:.3f}, one image drawn again and again "
        "1. An earlier checkpoint may be better; try another seed, a lower --lr, or another loss"
    ]


class Levels:
    """Images at hand as an ``ssmdiff.ImageSet``."""

    class_names: Sequence[str] = ()
    groups: Sequence[str] | None = None
    labels: Any = None

    def __init__(self, images: Tensor) -> None:
        self._levels = to_levels(images.numpy())
        self.shape: tuple[int, ...] = tuple(images.shape[1:])

    def __len__(self) -> int:
        return len(self._levels)

    def levels(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """(B, C, H, W) of these."""
        return self._levels[list(indices)]

    def digest(self) -> str:
        """Of the levels."""
        return hashlib.sha256(self._levels.tobytes()).hexdigest()


class Telling:
    """Both.

    Args:
        collapse_every: Steps between two looks at the samples; 0 for none.
    """

    def __init__(self, collapse_every: int) -> None:
        self.discriminated, self.collapse = Discriminated(), Collapse(collapse_every)

    def after(self, look: Look) -> Seen:
        """What there is to tell."""
        doubts = self.discriminated.after(look.step, look.figures[RIGHT])
        figures, more = self.collapse.after(look)
        return Seen(figures, [*doubts, *more])
