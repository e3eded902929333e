"""Sets of images and of features that the tests of metrics share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import ssmdiff
from numpy.typing import NDArray


class Images:
    """Levels (N, C, H, W) as a set of images."""

    def __init__(
        self,
        levels: NDArray[np.uint8],
        groups: Sequence[str] | None = None,
        labels: Sequence[int] | None = None,
        class_names: Sequence[str] = ("healthy", "lesion"),
    ) -> None:
        self.all, self.groups, self.shape = levels, groups, levels.shape[1:]
        self.labels = None if labels is None else np.asarray(labels, np.int64)
        self.class_names = class_names if labels is not None else ()

    def __len__(self) -> int:
        return len(self.all)

    def levels(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        return self.all[list(indices)]

    def digest(self) -> str:
        return "of a test"


def noise(count: int, shape: tuple[int, ...] = (1, 16, 16), seed: int = 0) -> Images:
    drawn = np.random.default_rng(seed).integers(0, 256, (count, *shape))
    return Images(drawn.astype(np.uint8))


def white(n: int, d: int, seed: int = 0) -> NDArray[np.float64]:
    """(n, d) whose sample mean is 0 and whose sample covariance is 1, exactly."""
    x = np.random.default_rng(seed).standard_normal((n, d))
    x -= x.mean(axis=0)
    covariance = np.cov(x, rowvar=False).reshape(d, d)
    return x @ np.linalg.inv(np.linalg.cholesky(covariance)).T


def evaluated(
    features: NDArray[np.floating], groups: Sequence[str] | None = None
) -> ssmdiff.Evaluated:
    """Features, of images that nobody looks at."""
    empty = np.zeros((len(features), 1, 1, 1), np.uint8)
    return ssmdiff.Evaluated(Images(empty, groups), features)
