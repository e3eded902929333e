"""PSNR, SSIM and mean absolute error between images and what they should have been."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from ssmdiff import ConfigError, Evaluation, Figure, Section, SetName

RANGE = 255
"""Of 8-bit levels: the data range of PSNR and SSIM."""
WINDOW = 11
"""Pixels across SSIM's Gaussian window of 1.5 pixels."""


def peak_ratio(x: NDArray[np.uint8], y: NDArray[np.uint8]) -> float:
    """PSNR in dB, 10 log10(255^2 / mean squared difference); infinite of equal images."""
    from skimage.metrics import mean_squared_error

    error = mean_squared_error(x, y)
    return float("inf") if error == 0 else float(10 * np.log10(RANGE**2 / error))


def similarity(x: NDArray[np.uint8], y: NDArray[np.uint8]) -> float:
    """SSIM of (C, H, W) as Wang et al., 2004, define it, mean over channels."""
    from skimage.metrics import structural_similarity

    return float(
        structural_similarity(
            x,
            y,
            data_range=RANGE,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


class Paired:
    """Each sample beside the target of its name: PSNR, SSIM, mean absolute error."""

    section: Section = "quality"
    needs: tuple[SetName, ...] = ("samples", "targets")
    of_images = True

    def __call__(self, evaluation: Evaluation) -> Sequence[Figure]:
        samples, targets = evaluation.samples.images, evaluation.targets
        assert targets is not None  # it needs them
        count = len(samples)
        if count < 1 or len(targets.images) != count:
            raise ConfigError(
                f"{count} samples and {len(targets.images)} targets; expected as many, and at "
                "least one pair"
            )
        if min(samples.shape[1:]) < WINDOW:
            raise ConfigError(
                f"SSIM needs images of {WINDOW} pixels and more; got {samples.shape[1:]}"
            )
        peaks, alike, errors = [], [], []
        for i in range(count):
            x, y = (side.levels([i])[0] for side in (samples, targets.images))
            peaks.append(peak_ratio(x, y))
            alike.append(similarity(x, y))
            errors.append(float(np.abs(x.astype(np.int16) - y).mean()) / RANGE)
        of = f"(n = {count})"
        note = "mean over images; 8-bit levels, data range 255"
        differing = [peak for peak in peaks if np.isfinite(peak)]
        found = [
            Figure(f"SSIM to targets {of}", _mean(alike), "higher", _interval(alike), note=note),
            Figure(
                f"MAE to targets {of}",
                _mean(errors),
                "lower",
                _interval(errors),
                note="mean over images; 8-bit levels, 1 being the whole range",
            ),
        ]
        if differing:
            equal = count - len(differing)
            left_out = f"; {equal} that equal their targets are left out" if equal else ""
            found.insert(
                0,
                Figure(
                    f"PSNR to targets {of}",
                    _mean(differing),
                    "higher",
                    _interval(differing),
                    note=f"in dB, {note}{left_out}",
                ),
            )
        return found


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95% of the mean, over images; of one image none is known."""
    if len(values) < 2:
        return None
    reach = 1.96 * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return _mean(values) - reach, _mean(values) + reach
