"""Precision, recall, density, coverage, authenticity: by hand and beside prdc."""

from __future__ import annotations

import numpy as np
import prdc
import pytest
from ssmdiff import ConfigError
from ssmdiff_metrics import neighbours
from ssmdiff_metrics.neighbours import authenticity, distance_ratio, manifold_scores, nearest


def normal(n: int, d: int, seed: int, mean: float = 0.0) -> np.ndarray:
    return mean + np.random.default_rng(seed).standard_normal((n, d))


def line(*places: float) -> np.ndarray:
    return np.array(places)[:, None]


def test_four_and_three_points_on_a_line() -> None:
    found = manifold_scores(line(0, 1, 2, 3), line(0.5, 1.5, 10), k=1)
    assert found == pytest.approx((2 / 3, 1, 4 / 3, 3 / 4))


@pytest.mark.parametrize(("n", "m", "k"), [(150, 100, 3), (90, 140, 5)])
def test_they_are_those_of_prdc(n: int, m: int, k: int, monkeypatch, capsys) -> None:
    monkeypatch.setattr(neighbours, "_ENTRIES", 1000)  # in blocks of a few rows
    real, drawn = normal(n, 6, 1), 0.9 * normal(m, 6, 2, 0.4)
    theirs = prdc.compute_prdc(real, drawn, k)
    assert manifold_scores(real, drawn, k)._asdict() == pytest.approx(theirs, rel=1e-6)


def test_features_far_from_zero_are_told_apart() -> None:
    """About a million the squares of distances of 1 are lost in those of the features."""
    x, y = normal(40, 3, 3), normal(30, 3, 4)
    far = nearest(x + 1e7, y + 1e7)
    expected = np.linalg.norm(x[:, None] - y[None], axis=2)
    np.testing.assert_array_equal(far.place, expected.argmin(axis=1))
    np.testing.assert_allclose(far.distance, expected.min(axis=1), rtol=1e-6)


@pytest.mark.slow
def test_the_example_of_prdc() -> None:
    """Two draws of 10,000 from a Gaussian of 1,000 features, as in its README, without its seed.

    In 1,000 dimensions some images are hubs: over five draws the density was 0.91 to 1.15, the
    coverage 0.956 to 0.980, precision 0.456 to 0.497 and recall 0.474 to 0.486.
    """
    found = manifold_scores(normal(10_000, 1000, 5), normal(10_000, 1000, 6), 5)
    published = (0.4772, 0.4705, 1.0555, 0.9735)
    for got, expected, spread in zip(found, published, (0.04, 0.02, 0.2, 0.02), strict=True):
        assert got == pytest.approx(expected, abs=spread)


@pytest.mark.slow
def test_in_many_dimensions_they_are_those_of_prdc() -> None:
    real, drawn = normal(3000, 1000, 5), normal(3000, 1000, 6)
    theirs = prdc.compute_prdc(real, drawn, 5)
    assert manifold_scores(real, drawn, 5)._asdict() == pytest.approx(theirs, rel=1e-6)


def test_a_sample_is_authentic_if_the_training_image_has_a_nearer_one() -> None:
    train = line(0, 1, 5)
    assert authenticity(train, line(0.4)) == 0
    assert authenticity(train, line(10)) == 1
    assert authenticity(train, line(0.4, 10, 5.5, 2.5)) == 0.5


def test_copies_are_nearer_to_training() -> None:
    train, held_out = normal(300, 6, 7), normal(200, 6, 8)
    fresh = np.median(distance_ratio(train, held_out, normal(200, 6, 9)))
    copied = np.median(distance_ratio(train, held_out, train[:200] + 0.01 * normal(200, 6, 10)))
    assert fresh == pytest.approx(1, abs=0.1)
    # Thinned to 200 of 300, so a third of the copies have lost their originals.
    assert copied < 0.1


def test_what_has_no_neighbour_is_refused() -> None:
    x = normal(5, 2, 0)
    with pytest.raises(ConfigError, match="no 5-th neighbour"):
        manifold_scores(x, x, 5)
    with pytest.raises(ConfigError, match="expected some"):
        nearest(x, x[:0])
    with pytest.raises(ConfigError, match="got none"):
        authenticity(x, x[:0])
    with pytest.raises(ConfigError, match="some of each"):
        distance_ratio(x, x[:0], x)
