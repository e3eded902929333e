"""PSNR, SSIM and MAE between samples and their targets: closed forms, and scikit-image's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import ssmdiff
from sets import Images, noise
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from ssmdiff import ConfigError, Evaluated, Evaluation


def paired(samples, targets):
    """The figures by their first word."""

    def side(levels):
        return Evaluated(Images(np.asarray(levels, np.uint8)), np.empty((len(levels), 0)))

    evaluation = Evaluation("images", side(targets), side(samples), targets=side(targets))
    figures = ssmdiff.create("metric", "paired")(evaluation)
    return {figure.name.split()[0]: figure for figure in figures}


def smooth(count, shape=(1, 24, 24), seed=0):
    """Images with structure, and the same made worse."""
    rng = np.random.default_rng(seed)
    image = np.cumsum(np.cumsum(rng.standard_normal((count, *shape)), -1), -2)
    image = 255 * (image - image.min()) / np.ptp(image)
    worse = image + 12 * rng.standard_normal(image.shape)
    return worse.clip(0, 255).astype(np.uint8), image.astype(np.uint8)


def test_a_constant_offset_has_figures_in_closed_form() -> None:
    """All pixels d levels off: PSNR is 20 log10(255 / d), MAE d / 255; of constant images SSIM is
    its luminance term alone, (2 a b + C) / (a^2 + b^2 + C) with C = (0.01 * 255)^2."""
    a, b = 100, 140
    found = paired(np.full((3, 1, 16, 16), a), np.full((3, 1, 16, 16), b))
    assert found["PSNR"].value == pytest.approx(20 * math.log10(255 / 40), rel=1e-12)
    assert found["MAE"].value == pytest.approx(40 / 255, rel=1e-12)
    c = (0.01 * 255) ** 2
    assert found["SSIM"].value == pytest.approx((2 * a * b + c) / (a**2 + b**2 + c), rel=1e-9)
    assert found["PSNR"].interval == pytest.approx((found["PSNR"].value,) * 2)
    assert found["PSNR"].name == "PSNR to targets (n = 3)"


def test_an_image_and_its_negative() -> None:
    """SSIM below 0, as structure is turned over; MAE and PSNR by hand."""
    _, image = smooth(4)
    found = paired(255 - image, image)
    assert found["SSIM"].value < 0
    off = np.abs(255 - 2 * image.astype(float))
    assert found["MAE"].value == pytest.approx(off.mean() / 255)
    each = 10 * np.log10(255**2 / (off**2).mean((1, 2, 3)))
    assert found["PSNR"].value == pytest.approx(each.mean())


@pytest.mark.parametrize("channels", [1, 3])
def test_the_figures_are_those_of_scikit_image(channels: int) -> None:
    """Over floating point images of 0 to 1, data range 1: SSIM knows where black is."""
    samples, targets = smooth(5, (channels, 24, 32))
    x, y = (side.astype(np.float64) / 255 for side in (samples, targets))
    peaks = [peak_signal_noise_ratio(b, a, data_range=1) for a, b in zip(x, y, strict=True)]
    alike = [
        structural_similarity(
            np.moveaxis(a, 0, -1), np.moveaxis(b, 0, -1), data_range=1, channel_axis=-1,
            gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        )
        for a, b in zip(x, y, strict=True)
    ]  # fmt: skip
    found = paired(samples, targets)
    assert found["PSNR"].value == pytest.approx(np.mean(peaks), rel=1e-9)
    assert found["SSIM"].value == pytest.approx(np.mean(alike), rel=1e-6)
    assert found["MAE"].value == pytest.approx(np.abs(x - y).mean(), rel=1e-9)
    reach = 1.96 * np.std(peaks, ddof=1) / 5**0.5
    assert found["PSNR"].interval == pytest.approx((np.mean(peaks) - reach, np.mean(peaks) + reach))


def test_pairs_are_told_apart_by_their_order() -> None:
    samples, targets = smooth(4)
    assert paired(samples, targets)["PSNR"].value > paired(samples[::-1], targets)["PSNR"].value + 3


def test_images_that_equal_their_targets_are_left_out_of_psnr_and_counted() -> None:
    samples, targets = smooth(4)
    samples[:2] = targets[:2]
    found = paired(samples, targets)
    assert found["PSNR"].value == pytest.approx(paired(samples[2:], targets[2:])["PSNR"].value)
    assert "2 that equal their targets are left out" in found["PSNR"].note
    same = paired(targets, targets)
    assert "PSNR" not in same
    assert (same["SSIM"].value, same["MAE"].value) == (1.0, 0.0)


def test_what_cannot_be_paired_is_refused_in_a_sentence() -> None:
    levels = noise(3, (1, 16, 16)).all
    with pytest.raises(ConfigError, match="3 samples and 2 targets; expected as many"):
        paired(levels, levels[:2])
    with pytest.raises(ConfigError, match="SSIM needs images of 11 pixels and more"):
        paired(noise(2, (1, 8, 16)).all, noise(2, (1, 8, 16)).all)
