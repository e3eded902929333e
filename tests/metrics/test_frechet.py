"""The Frechet distance: closed forms, torchmetrics, floor, interval, value at infinity."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sets import white
from ssmdiff import ConfigError
from ssmdiff_metrics import frechet
from ssmdiff_metrics.frechet import Moments, frechet_distance, frechet_estimate, moments
from torchmetrics.image.fid import FrechetInceptionDistance


def normal(n: int, d: int, seed: int, scale: float = 1.0, mean: float = 0.0) -> np.ndarray:
    return mean + scale * np.random.default_rng(seed).standard_normal((n, d))


def test_means_three_and_four_apart_are_at_25() -> None:
    x = white(100, 5)
    assert frechet_distance(x, x + np.array([3, 4, 0, 0, 0])) == pytest.approx(25, rel=1e-9)


@pytest.mark.parametrize("d", [1, 8, 40])
def test_twice_as_wide_in_every_direction_is_at_d(d: int) -> None:
    assert frechet_distance(2 * white(100, d), white(100, d, 1)) == pytest.approx(d, rel=1e-9)


def test_a_set_is_at_nothing_from_itself() -> None:
    x = normal(60, 12, 0)
    assert abs(frechet_distance(x, x)) < 1e-10
    # Fewer images than features: roots of what rounding leaves of eigenvalues that are 0.
    assert abs(frechet_distance(x[:8], x[7::-1])) < 1e-6


class Identity(torch.nn.Module):
    """Images that are features already."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.num_features = d

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.parametrize(("n", "m", "d"), [(200, 150, 24), (500, 80, 64), (40, 30, 64)])
def test_it_is_that_of_torchmetrics(n: int, m: int, d: int) -> None:
    mixing = normal(d, d, 9)
    real, drawn = normal(n, d, 1) @ mixing + 5, 1.2 * normal(m, d, 2) @ mixing + 5.3
    theirs = FrechetInceptionDistance(feature=Identity(d), input_img_size=(1, d))
    theirs.set_dtype(torch.float64)
    theirs.update(torch.from_numpy(real), real=True)
    theirs.update(torch.from_numpy(drawn), real=False)
    # Where covariances are singular their roots of rounding errors count, about 1e-8 each.
    rel = 1e-6 if min(n, m) > d else 1e-4
    assert frechet_distance(real, drawn) == pytest.approx(float(theirs.compute()), rel=rel)


def test_moments_are_those_of_numpy_however_they_are_summed(monkeypatch) -> None:
    monkeypatch.setattr(frechet, "_ROWS", 7)
    x = normal(50, 6, 3, mean=1e4).astype(np.float32)
    whole = moments(x)
    parts = Moments.of(x[:20], whole.shift) + Moments.of(x[20:], whole.shift)
    without = whole - Moments.of(x[:20], whole.shift)
    for found, rows in ((whole, x), (parts, x), (without, x[20:])):
        assert found.n == len(rows)
        np.testing.assert_allclose(found.mean, rows.mean(axis=0, dtype=np.float64), rtol=1e-12)
        expected = np.cov(rows.astype(np.float64), rowvar=False)
        np.testing.assert_allclose(found.covariance, expected, rtol=1e-7, atol=1e-9)


def test_what_has_no_distance_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least two images"):
        moments(normal(1, 3, 0))
    spoilt = normal(10, 3, 0)
    spoilt[4, 1] = np.nan
    with pytest.raises(ConfigError, match="not finite"):
        moments(spoilt)


def test_blocks_are_a_partition_and_keep_patients_together() -> None:
    blocks = frechet.block_indices(101, blocks=20)
    assert sorted(np.concatenate(blocks).tolist()) == list(range(101))
    assert {len(block) for block in blocks} == {5, 6}
    groups = [f"p{i % 43}" for i in range(301)]
    blocks = frechet.block_indices(301, groups)
    assert sorted(np.concatenate(blocks).tolist()) == list(range(301))
    held = [{groups[i] for i in block} for block in blocks]
    assert sum(map(len, held)) == 43, "no patient is in two blocks"
    for n, of in ((39, None), (300, [f"p{i % 30}" for i in range(300)])):
        with pytest.raises(ConfigError, match="too few"):
            frechet.block_indices(n, of)


@pytest.mark.parametrize(("d", "n", "m"), [(8, 100, 300), (32, 400, 200)])
def test_the_formula_of_the_floor_is_what_drawing_gives(d: int, n: int, m: int) -> None:
    spectrum = 1 / np.arange(1, d + 1)
    generator = np.random.default_rng(4)
    drawn = [
        frechet_distance(*(generator.standard_normal((k, d)) * np.sqrt(spectrum) for k in (n, m)))
        for _ in range(60)
    ]
    error = np.std(drawn) / np.sqrt(len(drawn))
    formula = frechet.floor(spectrum, n, m)
    assert formula == pytest.approx(np.mean(drawn), rel=0.06, abs=3 * error)
    simulated, error = frechet.simulated_floor(spectrum, n, m, repeats=40)
    assert simulated == pytest.approx(formula, rel=0.06, abs=3 * error)


def test_the_floor_of_a_white_spectrum_is_in_closed_form() -> None:
    d = 64
    expected = (1 / 1000 + 1 / 500) * (d + d * (d + 1) / 4)
    assert frechet.floor(np.ones(d), 1000, 500) == pytest.approx(expected, rel=1e-12)
    padded = np.concatenate([np.ones(d), np.zeros(9)])
    assert frechet.floor(padded, 1000, 500) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("n", "within"), [(32, 0.25), (64, 0.2), (128, 0.15), (640, 0.1)])
@pytest.mark.parametrize("fall", [0, 1])
def test_the_floor_of_a_spectrum_that_a_sample_shows_is_not_too_low(
    n: int, within: float, fall: int
) -> None:
    """64 features; by the sample's own eigenvalues it is half of the truth at 32 images."""
    d = 64
    truth = np.arange(1.0, d + 1) ** -fall
    seen = []
    for seed in range(4):
        x = normal(n, d, seed) * np.sqrt(truth)
        fitted = frechet.unspread(frechet.Reference(moments(x)).spectrum, n)
        assert fitted.sum() == pytest.approx(np.cov(x, rowvar=False).trace())
        seen.append(frechet.simulated_floor(fitted, n, n, seed)[0])
    assert np.mean(seen) == pytest.approx(frechet.simulated_floor(truth, n, n)[0], rel=within)


def test_moments_drawn_at_once_are_distributed_as_those_of_images() -> None:
    """Bartlett's draw against images: mean and spread of the distance to the truth."""
    d, n = 4, 40  # above 4 d
    spectrum = np.array([4.0, 1.0, 0.5, 0.1])
    truth = frechet.Reference(Moments(2, np.zeros(d), np.diag(spectrum), np.zeros(d)))
    generator = np.random.default_rng(6)
    at_once, by_images = [], []
    for _ in range(400):
        at_once.append(truth.distance(frechet._gaussian_moments(generator, spectrum, n)))
        x = generator.standard_normal((n, d)) * np.sqrt(spectrum)
        by_images.append(truth.distance(moments(x)))
    error = np.hypot(np.std(at_once), np.std(by_images)) / np.sqrt(400)
    assert np.mean(at_once) == pytest.approx(np.mean(by_images), abs=3.5 * error)
    assert np.std(at_once) == pytest.approx(np.std(by_images), rel=0.2)


def covered(cases: int, d: int, n: int, m: int, patients: int | None, apart: float) -> float:
    """Share of cases whose interval holds the mean distance of samples of these sizes.

    Images of one patient are alike: half of their variance is the patient's.
    """

    def draw(seed: int) -> tuple[np.ndarray, np.ndarray, list[str] | None]:
        generator = np.random.default_rng(seed)
        real = generator.standard_normal((n, d))
        groups = None
        if patients:
            of = np.arange(n) % patients
            real = np.sqrt(0.5) * (real + generator.standard_normal((patients, d))[of])
            groups = [str(i) for i in of]
        return real, apart + 1.3 * generator.standard_normal((m, d)), groups

    truth = np.mean([frechet_distance(*draw(10_000 + i)[:2]) for i in range(4 * cases)])
    estimates = (frechet_estimate(*draw(i)) for i in range(cases))
    return float(np.mean([e.interval[0] <= truth <= e.interval[1] for e in estimates]))


def test_the_interval_covers() -> None:
    assert 0.88 <= covered(80, 3, 120, 100, None, 0.5) <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("d", "n", "m", "patients", "apart"),
    [(3, 200, 150, None, 0.5), (16, 400, 300, None, 0.0), (6, 400, 200, 80, 0.5)],
)
def test_the_interval_covers_in_90_to_98_of_100_cases(
    d: int, n: int, m: int, patients: int | None, apart: float
) -> None:
    assert 0.90 <= covered(500, d, n, m, patients, apart) <= 0.98


def test_patients_widen_the_interval() -> None:
    generator = np.random.default_rng(0)
    of = generator.permutation(np.arange(400) % 50)
    real = generator.standard_normal((400, 4)) + 2 * generator.standard_normal((50, 4))[of]
    drawn = generator.standard_normal((300, 4)) + 1
    known = frechet_estimate(real, drawn, [str(i) for i in of])
    unknown = frechet_estimate(real, drawn)
    assert known.value == pytest.approx(unknown.value)
    assert known.standard_error > 1.5 * unknown.standard_error


def test_at_infinity_the_bias_of_few_samples_is_gone() -> None:
    reference = white(2000, 16)
    values, finite = [], []
    for seed in range(8):
        drawn = normal(400, 16, seed, mean=0.25)  # 16 / 16 = 1 apart
        values.append(frechet.at_infinity(reference, drawn, seed)[0])
        finite.append(frechet_distance(reference, drawn))
    assert np.mean(values) == pytest.approx(1, abs=0.05)
    assert np.mean(finite) > 1.15
    with pytest.raises(ConfigError, match="at least 100"):
        frechet.at_infinity(reference, normal(43, 16, 0))
