"""The Frechet distance between two sets of features, and how far it is to be trusted.

    FD = |m_1 - m_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2))                    (Heusel et al. 2017)

m and S are means and covariances (n - 1 in the denominator). All in float64. The trace of the root
comes from eigenvalues: those of S_1 S_2 are those of the symmetric R S_2 R with R = S_1^(1/2), so
nothing is ever singular, and n <= d needs no constant on a diagonal. Glossary: n, m images of the
two sets, d features, l eigenvalues of a covariance.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from ssmdiff import ConfigError, stream

Array = NDArray[np.float64]

BLOCKS = 20
"""Blocks of the jackknife."""
_ROWS = 4096  # features converted to float64 at a time


@dataclass(frozen=True)
class Moments:
    """Sums from which mean and covariance follow; sums of disjoint sets add up.

    Args:
        n: Images.
        total: (d,) sum of the features less ``shift``.
        products: (d, d) sum of their outer products.
        shift: (d,) what is taken off first, near the mean, so that little cancels.
    """

    n: int
    total: Array
    products: Array
    shift: Array

    @classmethod
    def of(cls, features: NDArray[np.floating], shift: Array) -> Moments:
        """Of (n, d) features, a few thousand rows at a time."""
        total, products = np.zeros_like(shift), np.zeros((shift.size, shift.size))
        for start in range(0, len(features), _ROWS):
            rows = features[start : start + _ROWS].astype(np.float64) - shift
            total += rows.sum(axis=0)
            products += rows.T @ rows
        return cls(len(features), total, products, shift)

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.n + other.n,
            self.total + other.total,
            self.products + other.products,
            self.shift,
        )

    def __sub__(self, other: Moments) -> Moments:
        return Moments(
            self.n - other.n,
            self.total - other.total,
            self.products - other.products,
            self.shift,
        )

    @property
    def mean(self) -> Array:
        return self.shift + self.total / self.n

    @property
    def covariance(self) -> Array:
        """(d, d), unbiased."""
        mean = self.total / self.n
        return (self.products - self.n * np.outer(mean, mean)) / (self.n - 1)


def moments(features: NDArray[np.floating]) -> Moments:
    """The moments of (n, d) features, about the mean of their beginning.

    Raises:
        ConfigError: Fewer than two rows, or a value that is not finite.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ConfigError(
            f"a Frechet distance was asked for of features of shape {features.shape}; expected "
            "(n, d) with at least two images"
        )
    shift = features[:_ROWS].astype(np.float64).mean(axis=0)
    found = Moments.of(features, shift)
    if not np.isfinite(found.products).all():
        raise ConfigError("a feature is not finite; was an image not finite, or a weight?")
    return found


class Reference:
    """One side of a distance with its root computed once, to be held against many others."""

    def __init__(self, side: Moments) -> None:
        self.mean, self.covariance = side.mean, side.covariance
        self.spectrum, vectors = np.linalg.eigh(self.covariance)
        self.spectrum = self.spectrum.clip(min=0)
        self.root = (vectors * np.sqrt(self.spectrum)) @ vectors.T

    def distance(self, other: Moments) -> float:
        """FD to the other side; never below 0 but for rounding."""
        covariance = other.covariance
        product = self.root @ covariance @ self.root
        roots = np.sqrt(np.linalg.eigvalsh((product + product.T) / 2).clip(min=0))
        apart = float(((self.mean - other.mean) ** 2).sum())
        return apart + float(np.trace(self.covariance) + np.trace(covariance) - 2 * roots.sum())


def frechet_distance(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """FD between two sets of features, (n, d) and (m, d)."""
    return Reference(moments(first)).distance(moments(second))


@dataclass(frozen=True)
class FrechetEstimate:
    """A Frechet distance with its error.

    Args:
        value: FD of these samples.
        interval: 95%, by the jackknife: where FD lies for other samples of as many images.
        standard_error: From the jackknife.
        blocks: Into how many blocks each side was cut.
    """

    value: float
    interval: tuple[float, float]
    standard_error: float
    blocks: int


def block_indices(
    n: int, groups: Sequence[str] | None = None, blocks: int = BLOCKS
) -> list[NDArray[np.intp]]:
    """Which images are in which block of the jackknife: whole groups where they are known.

    Without groups by turns, so that no block is the beginning of a folder. Groups are dealt from
    the largest to the smallest, each to the block that has fewest images.

    Raises:
        ConfigError: There are fewer than two images, or groups, for each block.
    """
    if groups is None:
        if n < 2 * blocks:
            raise ConfigError(f"{n} images are too few for {blocks} blocks of at least two")
        return [np.arange(b, n, blocks) for b in range(blocks)]
    members: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    if len(members) < 2 * blocks:
        raise ConfigError(
            f"{len(members)} groups are too few for {blocks} blocks of whole groups; expected at "
            f"least {2 * blocks}"
        )
    dealt: list[list[int]] = [[] for _ in range(blocks)]
    for _, indices in sorted(members.items(), key=lambda item: (-len(item[1]), item[0])):
        min(dealt, key=len).extend(indices)
    return [np.array(sorted(block)) for block in dealt]


def frechet_estimate(
    reference: NDArray[np.floating],
    samples: NDArray[np.floating],
    reference_groups: Sequence[str] | None = None,
    blocks: int = BLOCKS,
) -> FrechetEstimate:
    """FD with a 95% interval by the delete-one-block jackknife over both sides.

    The sides are independent, so their variances add. What is estimated is the distance that other
    samples of as many images would have: the bias of few images is in it, see :func:`floor`.

    Raises:
        ConfigError: Fewer than two images, or groups, a block on either side.
    """
    of_samples = block_indices(len(samples), None, blocks)
    cut = block_indices(len(reference), reference_groups, blocks)
    # What is too little is refused by now, before a root of thousands of rows is taken.
    real, drawn = Reference(moments(reference)), Reference(moments(samples))
    value, from_samples = _left_out(real, samples, of_samples)
    _, from_reference = _left_out(drawn, reference, cut)
    error = float(np.sqrt(from_samples + from_reference))
    reach = float(stats.t.ppf(0.975, blocks - 1)) * error
    return FrechetEstimate(value, (value - reach, value + reach), error, blocks)


def _left_out(
    fixed: Reference, features: NDArray[np.floating], cut: Sequence[NDArray[np.intp]]
) -> tuple[float, float]:
    """FD of all features, and its variance by leaving out each block in turn."""
    shift = features[:_ROWS].astype(np.float64).mean(axis=0)
    parts = [Moments.of(features[indices], shift) for indices in cut]
    whole = functools.reduce(operator.add, parts)
    distances = np.array([fixed.distance(whole - part) for part in parts])
    spread = ((distances - distances.mean()) ** 2).sum()
    return fixed.distance(whole), float((len(cut) - 1) / len(cut) * spread)


def floor(spectrum: Array, n: int, m: int) -> float:
    """What two samples of one Gaussian of this spectrum are apart on average, n and m images.

        (1/n + 1/m) [ sum_i l_i + 1/2 sum_ij l_i l_j (1 + delta_ij) / (l_i + l_j) ]

    The first order of the expectation; good to 2% where both n and m are d or more, and 10 to 16%
    too high at d/2.

    Args:
        spectrum: (d,) eigenvalues of the covariance.
        n: Images of one sample.
        m: Images of the other.
    """
    values = spectrum[spectrum > spectrum.max(initial=0.0) * 1e-12]
    pairs = values[:, None] * values[None, :] / (values[:, None] + values[None, :])
    return float((1 / n + 1 / m) * (values.sum() + (pairs.sum() + np.trace(pairs)) / 2))


def unspread(spectrum: Array, n: int) -> Array:
    """Eigenvalues of a covariance of n images, pulled to their mean until they spread as the truth.

    Those of a sample are spread too wide, the more the fewer images it has, and a floor of them is
    too low: at n = d by a third of a white spectrum. Their sum is unbiased, and so is, of Gaussian
    features, this estimate of the sum of squares of the true ones (Srivastava 2005):

        (n - 1)^2 / ((n - 2) (n + 1)) [ sum l^2 - (sum l)^2 / (n - 1) ]

    One number cannot mend the shape of a spectrum that falls: of eigenvalues 1/i, d = 2,048, the
    floor is 6% too low at n = 5 d, 14% at 2 d, and 26 to 36% from d down to d/2
    (benchmarks/frechet_floor.py, docs/images/frechet-floor.png).
    """
    d, total, squares = spectrum.size, float(spectrum.sum()), float((spectrum**2).sum())
    spread = squares - total**2 / d
    if n < 3 or not spread > 0:
        return spectrum
    true = (n - 1) ** 2 / ((n - 2) * (n + 1)) * (squares - total**2 / (n - 1))
    share = np.sqrt(np.clip((true - total**2 / d) / spread, 0, 1))
    pulled: Array = share * spectrum + (1 - share) * total / d
    return pulled


def simulated_floor(
    spectrum: Array, n: int, m: int, seed: int = 0, repeats: int = 5
) -> tuple[float, float]:
    """:func:`floor` by drawing: mean and standard error over pairs of Gaussian samples.

    For samples of fewer images than features, where the formula is not good. A sample of more than
    4 d images is drawn by its moments (Bartlett), which cost the same whatever n is.
    """
    values = []
    for repeat in range(repeats):
        generator = stream(seed, "frechet floor", repeat)
        first, second = (_gaussian_moments(generator, spectrum, count) for count in (n, m))
        values.append(Reference(first).distance(second))
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(repeats))


def _gaussian_moments(generator: np.random.Generator, spectrum: Array, n: int) -> Moments:
    """Moments of n draws of N(0, diag(spectrum))."""
    d, scale = spectrum.size, np.sqrt(spectrum)
    if n <= 4 * d:
        return Moments.of(generator.standard_normal((n, d)) * scale, np.zeros(d))
    factor = np.tril(generator.standard_normal((d, d)), -1)
    factor[np.diag_indices(d)] = np.sqrt(generator.chisquare(n - 1 - np.arange(d)))
    scatter = (factor @ factor.T) * np.outer(scale, scale)
    mean = generator.standard_normal(d) * scale / np.sqrt(n)
    return Moments(n, n * mean, scatter + n * np.outer(mean, mean), np.zeros(d))


def at_infinity(
    reference: NDArray[np.floating], samples: NDArray[np.floating], seed: int = 0, sizes: int = 15
) -> tuple[float, float]:
    """FD with infinitely many samples against this reference, and its standard error.

    A line through FD over 1/N at ``sizes`` numbers of samples, from a tenth (or twice the blocks'
    number) to all, as Chong and Forsyth 2020 (FID_infinity). What the reference lacks stays in it.
    """
    n = len(samples)
    counts = np.unique(np.linspace(max(n // 10, 2 * BLOCKS), n, sizes).astype(int))
    if len(counts) < 5:
        raise ConfigError(f"{n} samples are too few to extrapolate from; expected at least 100")
    fixed = Reference(moments(reference))
    order = stream(seed, "frechet at infinity").permutation(n)
    shuffled = samples[order]
    shift = shuffled[:_ROWS].astype(np.float64).mean(axis=0)
    # Nested subsets: the sums of one go on in the next.
    parts = (Moments.of(part, shift) for part in np.split(shuffled, counts)[: len(counts)])
    distances = [fixed.distance(whole) for whole in itertools.accumulate(parts, operator.add)]
    fit = stats.linregress(1 / counts, distances)
    return float(fit.intercept), float(fit.intercept_stderr)
