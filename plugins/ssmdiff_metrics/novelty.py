"""Copies of training images: the 95th percentile rule, with its bias taken out.

Dar et al. (arXiv 2402.01054): the threshold is the 95th percentile, over the training images, of
the largest correlation with any held-out image; a sample that correlates above it with a training
image is a copy. By that rule a share of images that nobody copied are called copies too, the larger
the more training images there are. So fresh held-out images go through the same rule, against the
same training images, and what is called copying is a share of the samples that lies above the upper
95% bound of theirs.

Features may see no difference where there is one: an encoder that learnt from heads maps all noise
to about one vector, and the rule then calls every sample a copy. So where the images are given, a
copy has to look like its original as well, on blocks of pixels, as 95% of the fresh images look
like the training image that is nearest to them. What the published rule alone says stands beside.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.cluster.vq import kmeans2, vq
from ssmdiff import ConfigError, ImageSet, stream

from ssmdiff_metrics.looks import alikeness
from ssmdiff_metrics.neighbours import nearest

QUANTILE = 0.95


class CopyShares(NamedTuple):
    """What the rule says of the samples, and of fresh images of other patients."""

    threshold: float
    """Correlation above which an image counts as a copy."""
    copies: float
    """Share of samples above it that look like their original, where images are given."""
    fresh: float
    """Share of fresh held-out images that are called so, by the same rule over as many training
    images."""
    bound: float
    """Upper 95% bound of the share in as many fresh images as there are samples: what chance alone
    may give (beta-binomial, Jeffreys' prior)."""
    memorised: float
    """Share of training images that a sample copies."""
    copied: NDArray[np.int64]
    """Samples above the threshold, the most alike first."""
    originals: NDArray[np.int64]
    """(m,) the training image that each sample is most alike to."""
    correlation: NDArray[np.float64]
    """(m,) with it."""
    by_correlation: float = 0.0
    """Share of samples above the threshold, whatever they look like: the published rule."""
    alikeness: float | None = None
    """Correlation on blocks of pixels below which a sample is no copy; None without images."""

    @property
    def copying(self) -> bool:
        """Whether the samples hold more copies than images that cannot be any."""
        return self.copies > self.bound


def standardised(features: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rows of mean 0 and length 1: their product is Pearson's correlation."""
    x = features.astype(np.float64)
    x = x - x.mean(axis=1, keepdims=True)
    unit: NDArray[np.float64] = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    return unit


def most_alike(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """For each row of x the largest correlation with a row of y, and which; both standardised."""
    found = nearest(x, y)
    return 1 - found.distance**2 / 2, found.place


def copy_shares(
    train: NDArray[np.floating],
    held_out: NDArray[np.floating],
    samples: NDArray[np.floating],
    flipped: NDArray[np.floating] | None = None,
    seed: int = 0,
    images: tuple[ImageSet, ImageSet, ImageSet] | None = None,
) -> CopyShares:
    """The rule, over features of one network.

    The held-out images are cut in two at random: one half makes the threshold, the other is what is
    compared with the samples, so that neither has seen the other.

    Args:
        train: (n, d) of the training images.
        held_out: (h, d) of images of other patients, at least 40.
        samples: (m, d).
        flipped: (n, d) of the mirrored training images: a mirrored copy is a copy.
        seed: Of the cut.
        images: Of the training, held-out and judged features, to see whether copies look so.

    Raises:
        ConfigError: Too few held-out images, or none of another kind.
    """
    if min(len(train), len(samples)) == 0:
        raise ConfigError(
            f"copies were looked for of {len(samples)} samples among {len(train)} training images; "
            "expected some of both"
        )
    if len(held_out) < 40:
        raise ConfigError(
            f"the search for copies needs at least 40 held-out images of other patients; got "
            f"{len(held_out)}"
        )
    known = standardised(train)
    order = stream(seed, "copies").permutation(len(held_out))
    judging, fresh_places = (np.sort(half) for half in np.array_split(order, 2))
    judges, fresh = standardised(held_out[judging]), standardised(held_out[fresh_places])
    drawn = standardised(samples)
    views = [known] if flipped is None else [known, standardised(flipped)]

    def to_training(
        x: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
        each = [most_alike(x, view) for view in views]
        best = np.argmax([correlation for correlation, _ in each], axis=0)
        rows = np.arange(len(x))
        correlations, indices = (np.stack(parts) for parts in zip(*each, strict=True))
        return correlations[best, rows], indices[best, rows], best == 1

    to_judges = np.max([most_alike(view, judges)[0] for view in views], axis=0)
    threshold = float(np.quantile(to_judges, QUANTILE))
    correlation, originals, mirrored = to_training(drawn)
    fresh_correlation, fresh_originals, fresh_mirrored = to_training(fresh)
    above, fresh_are = correlation > threshold, fresh_correlation > threshold
    by_correlation, least = float(above.mean()), None
    if images is not None:
        of_train, of_held_out, of_samples = images
        looks = alikeness(of_held_out, fresh_places, of_train, fresh_originals, fresh_mirrored)
        least = float(np.quantile(looks, 1 - QUANTILE))
        suspected = np.flatnonzero(above)
        above[suspected] = (
            alikeness(of_samples, suspected, of_train, originals[suspected], mirrored[suspected])
            >= least
        )
        fresh_are &= looks >= least
    fresh_above = int(fresh_are.sum())
    predicted = stats.betabinom(len(drawn), fresh_above + 0.5, len(fresh) - fresh_above + 0.5)
    bound = float(predicted.ppf(0.95)) / len(drawn)
    copied = np.flatnonzero(above)
    return CopyShares(
        threshold,
        float(above.mean()),
        fresh_above / len(fresh),
        bound,
        len(np.unique(originals[above])) / len(train),
        copied[np.argsort(-correlation[copied])],
        originals,
        correlation,
        by_correlation,
        least,
    )


def copying_test(
    train: NDArray[np.floating],
    held_out: NDArray[np.floating],
    samples: NDArray[np.floating],
    cells: int = 5,
    seed: int = 0,
) -> float | None:
    """C_T of Meehan et al. 2020: well below 0 where samples are nearer to training than they may.

    In each cell of a k-means partition of the training features the distances to the nearest
    training image are compared, those of samples with those of held-out images, by Mann-Whitney's U
    as a z-score; the cells count by their share of held-out images. None where no cell has 20 of
    each, or there is nothing to partition.
    """
    if len(train) < cells or np.array_equal(train.min(axis=0), train.max(axis=0)):
        return None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "One of the clusters is empty", UserWarning)
        centres, _ = kmeans2(train.astype(np.float64), cells, minit="++", rng=seed)
    known, real, drawn = (vq(x.astype(np.float64), centres)[0] for x in (train, held_out, samples))
    weighted, weight = 0.0, 0
    for cell in range(cells):
        inside = train[known == cell]
        p, q = held_out[real == cell], samples[drawn == cell]
        if min(len(p), len(q)) < 20 or len(inside) == 0:
            continue
        to_p, to_q = nearest(p, inside).distance, nearest(q, inside).distance
        u = stats.mannwhitneyu(to_q, to_p).statistic
        n, m = len(q), len(p)
        z = (u - n * m / 2) / np.sqrt(n * m * (n + m + 1) / 12)
        weighted, weight = weighted + len(p) * float(z), weight + len(p)
    return weighted / weight if weight else None
