"""What texture, contrastive and pixel features mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sets import Images, noise
from ssmdiff import ConfigError, create
from ssmdiff_evaluate.sets import to_levels
from ssmdiff_metrics import texture
from ssmdiff_metrics.contrastive import Encoder, nt_xent
from ssmdiff_metrics.texture import NAMES

SIDE = 32


def named(plane: np.ndarray) -> dict[str, float]:
    """The texture figures of one plane of levels, by name."""
    return dict(zip(NAMES, texture.figures(plane[None, None].astype(np.uint8))[0], strict=True))


CHECKERBOARD = 255 * (np.indices((SIDE, SIDE)).sum(axis=0) % 2)


def test_there_are_at_most_64_figures_and_each_has_a_name() -> None:
    made = create("features", {"name": "texture"})
    made.fit(noise(4))
    assert made(noise(3).all).shape == (3, len(NAMES))
    assert len(set(NAMES)) == len(NAMES) == 41 <= 64
    made.fit(noise(4, (3, 16, 16)))
    assert made(noise(3, (3, 16, 16)).all).shape == (3, 42)


def test_a_constant_image_has_nothing_but_its_grey() -> None:
    found = named(np.full((SIDE, SIDE), 51))
    for name in ("mean", *(f"percentile {p}" for p in (1, 50, 99))):
        assert found[name] == pytest.approx(0.2)
    nothing = ["deviation", "entropy", "gradient mean", "curvature", "contrast at 1 px"]
    nothing += ["dissimilarity at 2 px"]
    assert all(abs(found[name]) < 1e-9 for name in nothing)
    assert found["homogeneity at 1 px"] == found["energy at 1 px"] == pytest.approx(1)
    for name in NAMES:
        if name.startswith(("wavelet", "spectrum")):
            assert found[name] == pytest.approx(-8), name


def test_a_checkerboard_is_all_at_one_pixel_and_nothing_at_two() -> None:
    found = named(CHECKERBOARD)
    assert found["mean"] == found["deviation"] == pytest.approx(0.5)
    assert found["kurtosis"] == pytest.approx(1)
    assert found["entropy"] == pytest.approx(1), "a bit"
    # Of four angles two change by 15 of 16 greys and two by none.
    assert found["contrast at 1 px"] == pytest.approx(15**2 / 2)
    assert found["contrast at 2 px"] == pytest.approx(0)
    assert found["wavelet d 1"] == pytest.approx(0, abs=1e-6), "mean square 1"
    assert found["wavelet h 1"] == found["wavelet v 1"] == found["wavelet d 2"] == -8
    rings = [found[f"spectrum ring {i}"] for i in range(1, 7)]
    assert max(rings[:5]) == pytest.approx(-8)
    assert rings[5] > -1


def test_co_occurrence_is_that_of_counting() -> None:
    levels = noise(1, (1, 12, 15)).all[0, 0]
    greys = levels.astype(int) // 16
    contrasts = []
    for down, right in ((0, 1), (-1, 1), (-1, 0), (-1, -1)):
        found = [
            (greys[y, x] - greys[y + down, x + right]) ** 2
            for y in range(12)
            for x in range(15)
            if 0 <= y + down < 12 and 0 <= x + right < 15
        ]
        contrasts.append(np.mean(found))
    assert named(levels)["contrast at 1 px"] == pytest.approx(np.mean(contrasts))


def test_gradients_of_a_ramp_and_the_ring_of_a_wave() -> None:
    ramp = np.tile(8 * np.arange(SIDE), (SIDE, 1))
    found = named(ramp)
    assert found["gradient mean"] == found["gradient percentile 90"] == pytest.approx(8 / 255)
    assert abs(found["gradient deviation"]) + abs(found["curvature"]) < 1e-12
    wave = np.rint(127.5 + 100 * np.sin(2 * np.pi * 5 * np.arange(SIDE) / SIDE))  # 5 of 16: ring 2
    rings = [named(np.tile(wave, (SIDE, 1)))[f"spectrum ring {i}"] for i in range(1, 7)]
    assert int(np.argmax(rings)) == 1


def test_figures_are_standardised_by_the_reference() -> None:
    reference = noise(50)
    made = create("features", {"name": "texture"})
    made.fit(reference)
    found = made(reference.all)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(found.std(axis=0)[:3], 1, rtol=1e-9)
    with pytest.raises(ConfigError, match="at least 8 x 8"):
        made(noise(2, (1, 7, 9)).all)
    with pytest.raises(ConfigError, match="call fit first"):
        create("features", {"name": "texture"})(reference.all)


def test_all_components_of_pixels_keep_distances() -> None:
    reference = noise(40, (1, 4, 6))
    made = create("features", {"name": "pixels"})
    made.fit(reference)
    found = made(reference.all)
    assert found.shape == (40, 24)
    flat = reference.all.reshape(40, -1) / 255
    expected = np.linalg.norm(flat[:, None] - flat[None], axis=2)
    np.testing.assert_allclose(np.linalg.norm(found[:, None] - found[None], axis=2), expected)
    covariance = np.cov(found, rowvar=False)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-12)
    spectrum = np.linalg.eigvalsh(np.cov(flat, rowvar=False))[::-1]
    np.testing.assert_allclose(np.diag(covariance), spectrum, rtol=1e-9)


def test_pixels_have_no_more_components_than_the_reference() -> None:
    made = create("features", {"name": "pixels"})
    made.fit(Images(noise(3).all.repeat(5, axis=0)))
    assert made(noise(2).all).shape == (2, 2), "three images span two directions about their mean"


def test_large_images_are_averaged_over_blocks() -> None:
    made = create("features", {"name": "pixels", "side": 8})
    small = noise(6, (1, 8, 8))
    made.fit(small)
    large = small.all.repeat(4, axis=2).repeat(4, axis=3)
    np.testing.assert_allclose(made(large), made(small.all), atol=1e-12)
    with pytest.raises(ConfigError, match=r"average to \(1, 8, 8\)"):
        made(noise(2, (1, 8, 6)).all)
    narrow = create("features", {"name": "pixels", "side": 8})
    narrow.fit(noise(6, (1, 3, 90)))
    assert np.isfinite(narrow(noise(2, (1, 3, 90)).all)).all()


def test_nt_xent_is_the_sum_over_the_others() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (
        torch.nn.functional.normalize(torch.randn(5, 4, generator=generator).double(), dim=1)
        for _ in range(2)
    )
    z, loss = torch.cat([first, second]), 0.0
    for i in range(10):
        partner = (i + 5) % 10
        others = sum(torch.exp(z[i] @ z[k] / 0.2) for k in range(10) if k != i)
        loss -= float(torch.log(torch.exp(z[i] @ z[partner] / 0.2) / others)) / 10
    assert float(nt_xent(first, second, 0.2)) == pytest.approx(loss, rel=1e-9)


def smooth(count: int) -> Images:
    """Images of a few wide waves each, which a flip leaves recognisable."""
    generator = np.random.default_rng(0)
    y, x = np.indices((SIDE, SIDE)) / SIDE
    waves = generator.uniform(-2, 2, (count, 3, 3))
    images = sum(np.sin(2 * np.pi * (w[:, :1] * y.ravel() + w[:, 1:2] * x.ravel()) + w[:, 2:])
                 for w in waves.transpose(1, 0, 2))  # fmt: skip
    levels = np.rint(127.5 + 40 * images).clip(0, 255).astype(np.uint8)
    return Images(levels.reshape(count, 1, SIDE, SIDE))


@pytest.mark.slow
def test_contrastive_training_brings_views_of_one_image_together() -> None:
    """After a short training a flipped image is found again among 64 more often than before."""
    reference = smooth(64)

    def found_again(steps: int) -> float:
        made = create("features", {"name": "contrastive", "steps": steps, "width": 8, "size": 16})
        made.fit(reference)
        alike = made(reference.all) @ made(reference.all[:, :, :, ::-1].copy()).T
        return float((alike.argmax(axis=1) == np.arange(64)).mean())

    before, after = found_again(1), found_again(40)
    assert after > max(0.5, 1.5 * before)


def test_contrastive_features_of_heads_do_not_all_point_one_way() -> None:
    """Images of one kind, as a patient's are: the mean of vectors of length 1 is short."""
    dataset = create("dataset", {"name": "phantom", "length": 128}, image_size=(16, 16))
    heads = np.stack([to_levels(dataset[i].image.numpy()) for i in range(len(dataset))])
    made = create("features", {"name": "contrastive", "steps": 40, "width": 8, "size": 16})
    made.fit(Images(heads))
    assert np.linalg.norm(made(heads).mean(axis=0)) < 0.6


def test_what_was_trained_once_is_kept() -> None:
    made, again = (
        create("features", {"name": "contrastive", "steps": 2, "width": 12, "size": 8})
        for _ in range(2)
    )
    made.fit(noise(8))
    again.restore(made.state(), channels=1)
    np.testing.assert_array_equal(made(noise(4).all), again(noise(4).all))
    assert made.digest() == again.digest()
    np.testing.assert_allclose(np.linalg.norm(made(noise(4).all), axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("width", [8, 12, 20, 28, 250])
def test_an_encoder_of_any_width_is_built(width: int) -> None:
    with torch.device("meta"):
        assert Encoder(1, width, 8)(torch.zeros(2, 1, 32, 32)).shape == (2, 8)
