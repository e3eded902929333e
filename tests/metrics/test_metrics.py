"""Figures: their names, floors, notes, and what stands beside them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from sets import Images, evaluated, noise
from ssmdiff import ConfigError, ContractError, Evaluated, Evaluation, Figure, create
from ssmdiff_metrics import frechet, ssim
from ssmdiff_metrics.metrics import distance_name, halves, thinned


def normal(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def evaluation(n: int, m: int, d: int, network: str = "probe", **more) -> Evaluation:
    return Evaluation(network, evaluated(normal(n, d, 1)), evaluated(normal(m, d, 2)), **more)


def figures(metric: str, of: Evaluation, **options) -> dict[str, Figure]:
    return {figure.name: figure for figure in create("metric", {"name": metric, **options})(of)}


def test_only_inception_of_fifty_thousand_images_is_called_fid() -> None:
    assert distance_name("inception", 50_000) == "FID"
    assert distance_name("inception", 49_999) == "FID (n = 49999)"
    assert distance_name("texture", 50_000) == "FD texture (n = 50000)"


def test_the_frechet_figures_say_what_they_need() -> None:
    found = figures("frechet", evaluation(300, 200, 8))
    first = found["FD probe (n = 200)"]
    assert first.interval[0] < first.value < first.interval[1]
    assert first.floor == pytest.approx(frechet.floor(np.ones(8), 300, 200), rel=0.1)
    assert first.value == pytest.approx(first.floor, rel=0.5), "two draws of one distribution"
    assert "300 reference images; floor by formula" in first.note
    assert abs(found["FD probe (n to infinity)"].value) < first.value
    assert found["relative FD probe"].reference == 1


def test_with_fewer_images_than_features_the_floor_is_simulated_and_said_so() -> None:
    (first,) = figures("frechet", evaluation(60, 50, 64), infinite=False, halves=False).values()
    assert "fewer images (50) than features (64): floor by simulation" in first.note
    assert first.floor == pytest.approx(first.value, rel=0.15)


def test_a_reference_of_one_image_repeated_has_no_ratio() -> None:
    one = evaluated(np.ones((80, 3), np.float32))
    of = Evaluation("probe", one, evaluated(normal(80, 3, 1)))
    assert not any("relative" in name for name in figures("frechet", of))


def test_halves_keep_patients_together() -> None:
    groups = [f"p{i % 10}" for i in range(100)]
    first, second = halves(100, groups, 0)
    assert sorted([*first, *second]) == list(range(100))
    assert {groups[i] for i in first}.isdisjoint(groups[i] for i in second)
    for of_few in (None, ["one"] * 100):
        assert [len(half) for half in halves(100, of_few, 0)] == [50, 50]


def test_patients_of_the_reference_widen_the_interval() -> None:
    of = np.random.default_rng(0).permutation(np.arange(400) % 50)
    features = normal(400, 4, 1) + 2 * normal(50, 4, 3)[of]
    drawn = evaluated(normal(300, 4, 2))
    known, unknown = (
        figures("frechet", Evaluation("probe", evaluated(features, groups), drawn))
        for groups in ([str(i) for i in of], None)
    )

    def width(found: dict[str, Figure]) -> float:
        low, high = found["FD probe (n = 300)"].interval
        return high - low

    assert width(known) > 1.5 * width(unknown)


def test_the_kernel_distance_names_its_network() -> None:
    assert list(figures("mmd", evaluation(50, 40, 4), subsets=2)) == ["KD probe (n = 40)"]
    assert list(figures("mmd", evaluation(50, 40, 4, "inception"))) == ["KID (n = 40)"]


def test_manifold_figures_are_over_equal_numbers_and_beside_held_out_images() -> None:
    fresh = evaluated(normal(300, 4, 3))
    found = figures("manifold", evaluation(900, 300, 4, held_out=fresh))
    assert set(found) == {
        f"{name} probe (n = 300)" for name in ("precision", "recall", "density", "coverage")
    }
    for name, figure in found.items():
        assert figure.value == pytest.approx(figure.reference, abs=0.12), name
    assert figures("manifold", evaluation(900, 300, 4)).popitem()[1].reference is None
    np.testing.assert_array_equal(thinned(np.arange(10.0)[:, None], 4)[:, 0], [0, 3, 6, 9])


def pairs(levels: np.ndarray, count: int) -> Evaluated:
    return Evaluated(Images(levels), np.zeros((count, 1)))


def test_ms_ssim_is_one_of_one_image_and_lower_of_others() -> None:
    one = noise(1, (1, 48, 48)).all.repeat(8, axis=0)
    of = Evaluation("any", pairs(noise(8, (1, 48, 48)).all, 8), pairs(one, 8))
    ((name, figure),) = figures("ms-ssim", of, pairs=16).items()
    assert name == "MS-SSIM of pairs (3 scales)"
    assert figure.value == pytest.approx(1, abs=1e-5)
    assert figure.reference < 0.2


def structural_similarity(x: np.ndarray, y: np.ndarray) -> float:
    """Wang et al. 2004, eq. 13, its window mirrored at the borders as torchmetrics does."""

    def blur(z: np.ndarray) -> np.ndarray:
        return gaussian_filter(z, 1.5, mode="mirror", truncate=3.5)

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    above = (2 * mean_x * mean_y + 0.01**2) * (2 * (blur(x * y) - mean_x * mean_y) + 0.03**2)
    below = (mean_x**2 + mean_y**2 + 0.01**2) * (var_x + var_y + 0.03**2)
    return float((above / below).mean())


def test_of_one_scale_it_is_ssim() -> None:
    smooth = np.linspace(0, 200, 16 * 20).reshape(1, 1, 16, 20)
    levels = (smooth + noise(2, (1, 16, 20)).all * 0.2).clip(0, 255).astype(np.uint8)
    found = ssim.pair_similarity(Images(levels), pairs=4)
    expected = structural_similarity(*(levels[:, 0] / 255.0))
    assert found.scales == 1
    assert found.mean == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("scales", [1, 2, 3, 4, 5])
def test_as_many_scales_as_the_size_carries(scales: int) -> None:
    """The smallest size of each number of scales, and one pixel less."""
    side = [11, 22, 44, 99, 176][scales - 1]
    assert ssim.pair_similarity(noise(2, (1, side, side + 7)), pairs=2).scales == scales
    if scales > 1:
        fewer = ssim.pair_similarity(noise(2, (1, side + 7, side - 1)), pairs=2)
        assert fewer.scales == scales - 1
    else:
        with pytest.raises(ConfigError, match="11 pixels and more"):
            ssim.scales_of(side - 1, 40)


def test_a_figure_that_is_no_number_is_none() -> None:
    with pytest.raises(ContractError, match="expected a finite number"):
        Figure("x", float("nan"), "lower")


def test_a_sample_moved_away_moves_every_quality_figure_up() -> None:
    of = evaluation(200, 200, 5)
    away = dataclasses.replace(of, samples=evaluated(of.samples.features + 1))
    for metric in ("frechet", "mmd"):
        near, far = figures(metric, of), figures(metric, away)
        assert all(far[name].value > near[name].value for name in near), metric
