"""MS-SSIM between pairs of images: how alike the images of one set are to each other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from ssmdiff import ConfigError, ImageSet, stream
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure as ms_ssim,
)

BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Weights of the scales (Wang et al. 2003)."""
_KERNEL = 11
_PAIRS = 64  # of a call


class PairSimilarity(NamedTuple):
    """Mean MS-SSIM over pairs."""

    mean: float
    standard_error: float
    pairs: int
    scales: int


def scales_of(height: int, width: int) -> int:
    """As many scales as torchmetrics fits a window of 11 pixels into, five at most.

    Sides of 11, 22, 44, 99 and 176 pixels carry one to five.

    Raises:
        ConfigError: Not even one.
    """
    side = min(height, width)
    fitting = [s for s in range(1, len(BETAS) + 1) if _carries(side, s)]
    if not fitting:
        raise ConfigError(f"MS-SSIM needs images of 11 pixels and more; got {height} x {width}")
    return max(fitting)


def _carries(side: int, scales: int) -> bool:
    """Whether the window fits at the coarsest scale too, and into what torchmetrics asks for."""
    return side // max(1, scales - 1) ** 2 >= _KERNEL and side >> (scales - 1) >= _KERNEL


def pair_similarity(images: ImageSet, pairs: int = 1000, seed: int = 0) -> PairSimilarity:
    """Mean MS-SSIM over random pairs of different images, 1 where all are one image.

    The weights of the scales that fit are scaled to a sum of 1; the figure depends on how many do.

    Raises:
        ConfigError: Fewer than two images, or too small ones.
    """
    if len(images) < 2:
        raise ConfigError(f"pairs were asked for of {len(images)} images; expected at least two")
    scales = scales_of(*images.shape[1:])
    betas = tuple(b / sum(BETAS[:scales]) for b in BETAS[:scales])
    generator = stream(seed, "ms-ssim pairs")
    first = generator.integers(0, len(images), pairs)
    second = (first + generator.integers(1, len(images), pairs)) % len(images)
    values: list[NDArray[np.float64]] = []
    for start in range(0, pairs, _PAIRS):
        x, y = (
            torch.from_numpy(images.levels(side[start : start + _PAIRS].tolist()) / 255.0).float()
            for side in (first, second)
        )
        found = ms_ssim(
            x,
            y,
            kernel_size=_KERNEL,
            betas=betas,
            normalize="relu",
            data_range=1.0,
            reduction="none",
        )
        values.append(torch.as_tensor(found).double().reshape(-1).numpy())
    each = np.concatenate(values)
    return PairSimilarity(
        float(each.mean()), float(each.std(ddof=1) / np.sqrt(pairs)), pairs, scales
    )
