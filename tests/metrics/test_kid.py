"""The kernel distance: a hand example, a loop, torchmetrics."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from ssmdiff import ConfigError
from ssmdiff_metrics import kid
from torchmetrics.image.kid import KernelInceptionDistance


def normal(n: int, d: int, seed: int, mean: float = 0.0) -> np.ndarray:
    return mean + np.random.default_rng(seed).standard_normal((n, d))


def test_two_pairs_of_points() -> None:
    x, y = np.array([[0.0, 0], [1, 0]]), np.array([[0.0, 1], [1, 1]])
    assert kid.squared_mmd(x, y) == pytest.approx(1.1875, rel=1e-12)


def test_it_is_the_mean_over_pairs(monkeypatch) -> None:
    monkeypatch.setattr(kid, "_ROWS", 3)  # in several blocks
    x, y = normal(8, 4, 0), normal(7, 4, 1, 0.5)

    def mean(pairs) -> float:
        return float(np.mean([(a @ b / 4 + 1) ** 3 for a, b in pairs]))

    within = (mean(itertools.permutations(side, 2)) for side in (x, y))
    expected = sum(within) - 2 * mean(itertools.product(x, y))
    assert kid.squared_mmd(x, y) == pytest.approx(expected, rel=1e-12)


class Identity(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_one_subset_of_all_is_that_of_torchmetrics() -> None:
    real, drawn = normal(300, 20, 2, 0.3), normal(300, 20, 3)
    theirs = KernelInceptionDistance(feature=Identity(), subsets=1, subset_size=300)
    theirs.set_dtype(torch.float64)
    theirs.update(torch.from_numpy(real), real=True)
    theirs.update(torch.from_numpy(drawn), real=False)
    ours = kid.kernel_distance(real, drawn, subsets=1, subset_size=300)
    assert ours.mean == pytest.approx(float(theirs.compute()[0]), rel=1e-6)


def test_it_has_no_floor() -> None:
    """Two samples of one distribution are at 0 on average, however few they are."""
    values = [kid.squared_mmd(normal(30, 5, i), normal(20, 5, 1000 + i)) for i in range(300)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))


def test_subsets_are_of_the_seed_and_no_larger_than_a_side() -> None:
    x, y = normal(60, 3, 4), normal(40, 3, 5)
    first, again, other = (kid.kernel_distance(x, y, 5, 30, seed) for seed in (1, 1, 2))
    assert first == again
    assert first.mean != other.mean
    assert kid.kernel_distance(x, y, 2, 1000).size == 40
    with pytest.raises(ConfigError, match="two images a side"):
        kid.squared_mmd(x[:1], y)
