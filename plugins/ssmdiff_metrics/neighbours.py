"""Nearest neighbours in blocks, and what is told by them: fidelity, diversity, novelty.

Distances are Euclidean, in float64; never more than a block of rows of a distance matrix is in
memory. Glossary: r_k(x), the distance from x to its k-th nearest neighbour within its own set.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from ssmdiff import ConfigError
from torch import Tensor

Array = NDArray[np.float64]

_ENTRIES = 1 << 24  # of a distance matrix at a time, 128 MiB
_COLUMNS = 4096  # images of the other set in float64 at a time


def _blocks(x: NDArray[np.floating], y: NDArray[np.floating]) -> Iterator[tuple[int, Tensor]]:
    """The distances from rows of x to all of y, (rows, m), with the first row of each block.

    Both are taken about the mean of y: squares cancel less where features lie far from zero. y is
    turned to float64 a part at a time, again for each block: all of it would be the one array that
    grows with the number of images, 0.8 GB for 50,000 of 2,048 features.
    """
    centre = y.mean(axis=0, dtype=np.float64)

    def centred(part: NDArray[np.floating]) -> Tensor:
        return torch.from_numpy(np.subtract(part, centre, dtype=np.float64))

    parts = [slice(i, min(i + _COLUMNS, len(y))) for i in range(0, len(y), _COLUMNS)]
    squares = torch.empty(len(y), dtype=torch.float64)
    for place in parts:
        squares[place] = torch.linalg.vector_norm(centred(y[place]), dim=1).square_()
    rows = max(1, _ENTRIES // max(1, len(y)))
    for start in range(0, len(x), rows):
        part = centred(x[start : start + rows])
        product = torch.empty(len(part), len(y), dtype=torch.float64)
        for place in parts:
            torch.addmm(
                squares[place], part, centred(y[place]).T, alpha=-2.0, out=product[:, place]
            )
        product += (part**2).sum(dim=1, keepdim=True)
        yield start, product.clamp_(min=0).sqrt_()


def radii(x: NDArray[np.floating], k: int) -> Array:
    """r_k of each of (n, d) features.

    Raises:
        ConfigError: The set has no k-th neighbour.
    """
    if len(x) <= k:
        raise ConfigError(f"{len(x)} images have no {k}-th neighbour; expected at least {k + 1}")
    found = np.empty(len(x))
    for start, distances in _blocks(x, x):
        count = len(distances)
        distances[torch.arange(count), torch.arange(start, start + count)] = torch.inf
        nearest = distances.topk(k, dim=1, largest=False).values
        found[start : start + count] = nearest[:, -1].numpy()
    return found


class Nearest(NamedTuple):
    """The nearest neighbour in another set."""

    distance: Array
    """(n,)"""
    place: NDArray[np.int64]
    """(n,) its row in the other set."""


def nearest(x: NDArray[np.floating], y: NDArray[np.floating]) -> Nearest:
    """For each of (n, d) features the nearest of (m, d) others.

    Raises:
        ConfigError: There are no others.
    """
    if len(y) == 0:
        raise ConfigError("nearest images were asked for of a set without any; expected some")
    distance, index = np.empty(len(x)), np.empty(len(x), np.int64)
    for start, distances in _blocks(x, y):
        low = distances.min(dim=1)
        distance[start : start + len(distances)] = low.values.numpy()
        index[start : start + len(distances)] = low.indices.numpy()
    return Nearest(distance, index)


class ManifoldScores(NamedTuple):
    """Improved precision and recall, density and coverage."""

    precision: float
    recall: float
    density: float
    coverage: float


def manifold_scores(
    reference: NDArray[np.floating], samples: NDArray[np.floating], k: int = 5
) -> ManifoldScores:
    """Kynkaanniemi et al. 2019 and Naeem et al. 2020, with prdc's strict balls.

        precision  share of samples inside of a ball B(x, r_k(x)) of a reference image x
        recall     share of reference images inside of a ball of a sample
        density    balls of the reference that hold a sample, summed over samples, over k m
        coverage   share of reference images whose ball holds a sample

    Args:
        reference: (n, d).
        samples: (m, d).
        k: Neighbours that make a ball.

    Raises:
        ConfigError: A set has no k-th neighbour.
    """
    real_radii = torch.from_numpy(radii(reference, k))
    drawn_radii = torch.from_numpy(radii(samples, k))
    recalled, covered = 0, 0
    held = torch.zeros(len(samples), dtype=torch.int64)
    for start, distances in _blocks(reference, samples):
        inside = distances < real_radii[start : start + len(distances), None]
        held += inside.sum(dim=0)
        covered += int(inside.any(dim=1).sum())
        recalled += int((distances < drawn_radii).any(dim=1).sum())
    return ManifoldScores(
        float((held > 0).double().mean()),
        recalled / len(reference),
        float(held.sum()) / (k * len(samples)),
        covered / len(reference),
    )


def authenticity(train: NDArray[np.floating], samples: NDArray[np.floating]) -> float:
    """Share of authentic samples (Alaa et al. 2022).

    A sample is authentic if its nearest training image has a training image nearer than the sample.

    Raises:
        ConfigError: Fewer than two training images, or no sample.
    """
    if len(samples) == 0:
        raise ConfigError("authenticity is a share of samples; got none")
    found = nearest(samples, train)
    return float((radii(train, 1)[found.place] < found.distance).mean())


def distance_ratio(
    train: NDArray[np.floating], held_out: NDArray[np.floating], samples: NDArray[np.floating]
) -> Array:
    """(m,) distance of each sample to training over that to as many held-out images.

    About 1 in the median where samples are no nearer to training than to images never seen; below
    it where they copy. The larger set is thinned evenly, as more images are nearer by number alone;
    a copy whose original is left out by that is not seen here, and is by :func:`authenticity`.

    Raises:
        ConfigError: A set is empty.
    """
    if min(len(train), len(held_out), len(samples)) == 0:
        raise ConfigError(
            f"distances were asked for of {len(samples)} samples to {len(train)} training and "
            f"{len(held_out)} held-out images; expected some of each"
        )
    count = min(len(train), len(held_out))
    sides = (side[np.linspace(0, len(side) - 1, count).astype(int)] for side in (train, held_out))
    to_train, to_held_out = (nearest(samples, side).distance for side in sides)
    tiny = np.finfo(np.float64).tiny
    return (to_train + tiny) / (to_held_out + tiny)
