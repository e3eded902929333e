"""The kernel distance (KID): the unbiased squared MMD under k(x, y) = (x.y / d + 1)^3.

Binkowski et al. 2018. It has no floor: the expectation is 0 between two samples of one
distribution, at any number of images. All in float64, in blocks, so that memory is bounded.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from ssmdiff import ConfigError, stream

_ROWS = 2048  # rows of a kernel matrix that are in memory at a time


class KernelEstimate(NamedTuple):
    """KID over subsets."""

    mean: float
    deviation: float
    """Standard deviation over the subsets; not the error of the mean, as subsets overlap."""
    subsets: int
    size: int


def _kernel_sum(x: NDArray[np.floating], y: NDArray[np.floating], same: bool) -> float:
    """Sum of k over all pairs; without the diagonal where x is y."""
    d, total = x.shape[1], 0.0
    y64 = y.astype(np.float64)
    for start in range(0, len(x), _ROWS):
        rows = x[start : start + _ROWS].astype(np.float64)
        total += float(((rows @ y64.T / d + 1) ** 3).sum())
        if same:
            total -= float((((rows**2).sum(axis=1) / d + 1) ** 3).sum())
    return total


def squared_mmd(x: NDArray[np.floating], y: NDArray[np.floating]) -> float:
    """The unbiased estimate over all pairs of (n, d) and (m, d) features.

    Raises:
        ConfigError: Fewer than two images on a side.
    """
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise ConfigError(f"a kernel distance needs two images a side; got {n} and {m}")
    within = _kernel_sum(x, x, True) / (n * (n - 1)) + _kernel_sum(y, y, True) / (m * (m - 1))
    return within - 2 * _kernel_sum(x, y, False) / (n * m)


def kernel_distance(
    reference: NDArray[np.floating],
    samples: NDArray[np.floating],
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
) -> KernelEstimate:
    """KID as torch-fidelity and torchmetrics report it: mean and spread over random subsets.

    Args:
        reference: (n, d).
        samples: (m, d).
        subsets: How many pairs of subsets are drawn.
        subset_size: Images in each; at most as many as either side has.
        seed: What the subsets are drawn from.
    """
    size = min(subset_size, len(reference), len(samples))
    values = []
    for i in range(subsets):
        generator = stream(seed, "kid subset", i)
        x, y = (side[_choice(generator, len(side), size)] for side in (reference, samples))
        values.append(squared_mmd(x, y))
    return KernelEstimate(float(np.mean(values)), float(np.std(values)), subsets, size)


def _choice(generator: np.random.Generator, n: int, size: int) -> NDArray[np.intp]:
    return np.sort(generator.permutation(n)[:size])
