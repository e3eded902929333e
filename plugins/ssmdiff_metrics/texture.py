"""Features without a network: grey levels, co-occurrence, gradients, wavelets and the spectrum.

In the spirit of the Frechet radiomics distance (Konz et al. 2025): what a radiologist's software
measures, few enough that a covariance of hundreds of images is of full rank.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pywt
from numpy.typing import NDArray
from skimage.feature import graycomatrix, graycoprops
from ssmdiff import ConfigError, ImageSet

from ssmdiff_metrics.fitting import batches, require_channels

Array = NDArray[np.float64]

VERSION = "texture-1"
"""Part of the digest: a change that moves any figure gets a new name."""

_PERCENTILES = (1, 10, 25, 50, 75, 90, 99)
_GREYS = 16
_ANGLES = (0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
_PROPERTIES = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation")
_RINGS = 6
_SCALES = 3

NAMES: tuple[str, ...] = (
    *("mean", "deviation", "skewness", "kurtosis", "entropy"),
    *(f"percentile {p}" for p in _PERCENTILES),
    *(f"{name} at {d} px" for d in (1, 2) for name in _PROPERTIES),
    *("gradient mean", "gradient deviation", "gradient percentile 90", "curvature"),
    *(f"wavelet {band} {scale}" for scale in range(1, _SCALES + 1) for band in ("h", "v", "d")),
    *(f"spectrum ring {ring}" for ring in range(1, _RINGS + 1)),
)
"""What each figure is, in order."""


class Texture:
    """At most 64 figures of an image, standardised by the reference's means and deviations.

    Grey levels (moments, entropy, percentiles), co-occurrence of 16 grey levels at 1 and 2 pixels
    averaged over four angles (Haralick 1973), gradients, log energies of Haar wavelets at three
    scales and of six rings of the power spectrum. Of images with several channels each figure is
    the mean over channels, and where there are several the spread over channels of its mean.
    """

    trained_on_reference = True

    def __init__(self) -> None:
        self.mean: Array | None = None
        self.scale: Array | None = None
        self.channels = 0

    def fit(self, reference: ImageSet) -> None:
        """Learn means and deviations, from 4,096 images of the reference at most."""
        found = np.concatenate([figures(levels) for levels in batches(reference, "texture")])
        self.channels = reference.shape[0]
        self.mean, deviation = found.mean(axis=0), found.std(axis=0)
        # A figure that does not vary over the reference is left as it is: a sample in which it
        # does vary is then far away, and is not divided by nothing.
        self.scale = np.where(deviation > 1e-9, deviation, 1.0)

    def __call__(self, levels: NDArray[np.uint8]) -> Array:
        """(B, C, H, W) to (B, 41), or (B, 42) of several channels."""
        if self.mean is None or self.scale is None:
            raise ConfigError("texture features are standardised by a reference; call fit first")
        require_channels(levels, self.channels, "texture")
        found: Array = (figures(levels) - self.mean) / self.scale
        return found

    def digest(self) -> str:
        known = hashlib.sha256(VERSION.encode())
        for part in (self.mean, self.scale):
            known.update(b"" if part is None else np.round(part, 9).tobytes())
        return known.hexdigest()


def figures(levels: NDArray[np.uint8]) -> Array:
    """(B, C, H, W) to the figures as they are, (B, d)."""
    if levels.ndim != 4 or min(levels.shape[2:]) < 8:
        raise ConfigError(
            f"texture features were asked for of images {levels.shape}; expected (B, C, H, W) of "
            "at least 8 x 8 pixels"
        )
    planes = levels.reshape(-1, *levels.shape[2:])
    each = np.stack([_plane(plane) for plane in planes])
    each = each.reshape(*levels.shape[:2], -1)
    found: Array = each.mean(axis=1)
    if levels.shape[1] > 1:
        found = np.concatenate([found, each[:, :, :1].std(axis=1)], axis=1)
    return found


def _plane(plane: NDArray[np.uint8]) -> Array:
    x = plane / 255.0
    return np.concatenate([_greys(x), _co_occurrence(plane), _gradients(x), _waves(x), _rings(x)])


def _greys(x: Array) -> Array:
    mean, deviation = x.mean(), x.std()
    z = (x - mean) / max(deviation, 1e-3)
    counts = np.histogram(x, bins=32, range=(0, 1))[0] / x.size
    entropy = -(counts[counts > 0] * np.log2(counts[counts > 0])).sum()
    moments = (mean, deviation, (z**3).mean(), (z**4).mean(), entropy)
    return np.array([*moments, *np.percentile(x, _PERCENTILES)])


def _co_occurrence(plane: NDArray[np.uint8]) -> Array:
    greys = plane // (256 // _GREYS)
    table = graycomatrix(greys, (1, 2), _ANGLES, _GREYS, symmetric=True, normed=True)
    each = np.stack([graycoprops(table, name).mean(axis=1) for name in _PROPERTIES], axis=1)
    return each.ravel()


def _gradients(x: Array) -> Array:
    down, right = np.gradient(x)
    size = np.hypot(down, right)
    inner = x[1:-1, 1:-1]
    curved = x[:-2, 1:-1] + x[2:, 1:-1] + x[1:-1, :-2] + x[1:-1, 2:] - 4 * inner
    return np.array([size.mean(), size.std(), np.percentile(size, 90), np.abs(curved).mean()])


def _waves(x: Array) -> Array:
    """log10 of the mean square of each band, the finest first."""
    _, *bands = pywt.wavedec2(x, "haar", mode="periodization", level=_SCALES)
    return np.array([_log_energy(band) for scale in reversed(bands) for band in scale])


def _rings(x: Array) -> Array:
    """log10 of the mean power in rings of equal width up to the Nyquist frequency."""
    power = np.abs(np.fft.rfft2(x - x.mean())) ** 2 / x.size
    down, right = np.fft.fftfreq(x.shape[0])[:, None], np.fft.rfftfreq(x.shape[1])[None]
    ring = np.minimum((np.hypot(down, right) * 2 * _RINGS).astype(int), _RINGS - 1)
    sums = np.bincount(ring.ravel(), power.ravel(), minlength=_RINGS)
    return np.log10(sums / np.bincount(ring.ravel(), minlength=_RINGS) + 1e-8)


def _log_energy(band: Array) -> float:
    return float(np.log10((band**2).mean() + 1e-8))
