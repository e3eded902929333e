"""Sequence Regeneration: what is shuffled, what stays, and the base that runs over it."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ssmdiff.errors import ConfigError
from ssmdiff.orders.scan import Grid, Scan, ScanOrder
from ssmdiff.registry.registry import create


def rows(name: str, grid: Grid) -> list[list[int]]:
    return create("scan", name).order(grid).index.tolist()


def regenerate(**options: Any) -> Any:
    return create("scan", "regenerate", **options)


def shuffled_grid(grid: Grid, block: int, seed: int) -> np.ndarray:
    """The tokens that the shuffled grid shows, in its shape."""
    order = regenerate(base="raster", block=block).order(grid, np.random.default_rng(seed))
    return order.index[0].reshape(grid)


def blocks_of(tokens: np.ndarray, block: int) -> list[tuple[int, ...]]:
    """The block x block squares of a grid that fit, each as its tokens row by row."""
    H, W = (side // block * block for side in tokens.shape)
    return [
        tuple(tokens[h : h + block, w : w + block].ravel())
        for h in range(0, H, block)
        for w in range(0, W, block)
    ]


class TestRegenerate:
    @given(
        st.tuples(st.integers(1, 9), st.integers(1, 9)), st.sampled_from([1, 2, 3]), st.integers(0)
    )
    def test_blocks_move_as_a_whole_and_upright(self, grid, block: int, seed: int) -> None:
        original = np.arange(np.prod(grid)).reshape(grid)
        shuffled = shuffled_grid(grid, block, seed)
        assert sorted(blocks_of(shuffled, block)) == blocks_of(original, block)

    @given(st.tuples(st.integers(1, 9), st.integers(1, 9)), st.integers(0))
    def test_the_border_that_no_block_covers_stays(self, grid, seed: int) -> None:
        original = np.arange(np.prod(grid)).reshape(grid)
        shuffled = shuffled_grid(grid, 3, seed)
        H, W = (side // 3 * 3 for side in grid)
        assert (shuffled[H:] == original[H:]).all()
        assert (shuffled[:, W:] == original[:, W:]).all()

    def test_cubes_of_a_volume_move_as_a_whole(self) -> None:
        grid = (4, 2, 6)
        original, shuffled = np.arange(48).reshape(grid), shuffled_grid(grid, 2, seed=1)

        def cubes(tokens: np.ndarray) -> list[tuple[int, ...]]:
            corners = itertools.product(range(0, 4, 2), [0], range(0, 6, 2))
            return [tuple(tokens[d : d + 2, :, w : w + 2].ravel()) for d, _, w in corners]

        assert cubes(shuffled) != cubes(original)
        assert sorted(cubes(shuffled)) == cubes(original)

    @pytest.mark.parametrize("base", ["raster", "bidirectional", "cross"])
    @pytest.mark.parametrize("block", [1, 2])
    def test_the_base_runs_over_the_shuffled_grid(self, base: str, block: int) -> None:
        grid = (4, 6)
        order = regenerate(base=base, block=block).order(grid, np.random.default_rng(5))
        shown = shuffled_grid(grid, block, seed=5).ravel()
        assert order.index.tolist() == [[shown[i] for i in row] for row in rows(base, grid)]

    def test_every_permutation_is_equally_likely(self) -> None:
        rng = np.random.default_rng(0)
        scan, draws = regenerate(base="raster"), 6000
        counts = Counter(tuple(scan.order((1, 3), rng).index[0]) for _ in range(draws))
        assert len(counts) == 6
        # Binomial(6000, 1/6): six standard deviations are 173.
        assert all(abs(count - draws / 6) < 173 for count in counts.values())

    def test_two_draws_of_one_generator_differ(self) -> None:
        rng = np.random.default_rng(0)
        one, other = (regenerate().order((8, 8), rng).index for _ in range(2))
        assert (one != other).any()

    def test_a_random_base_draws_from_the_same_stream(self) -> None:
        scan = regenerate(base={"name": "regenerate", "base": "raster", "block": 2})
        one, other = (scan.order((4, 4), np.random.default_rng(3)).index for _ in range(2))
        assert (one == other).all()

    def test_restarts_of_the_base_are_kept(self) -> None:
        scan = regenerate(base="raster")
        scan.base = Halves()
        order = scan.order((2, 2), np.random.default_rng(0))
        assert order.restart.tolist() == [[False, False, True, False]]

    def test_the_slots_of_a_base_that_does_not_vary_share_the_scan(self) -> None:
        scan = regenerate()
        assert all(scan.at(slot) is scan for slot in range(4))

    def test_a_base_that_varies_by_layer_varies_under_the_shuffle(self) -> None:
        scan = regenerate(base="raster", block=2)
        scan.base = Varying()
        of_slot = scan.at(1)
        assert of_slot.stochastic
        assert of_slot.block == 2
        one = of_slot.order((4, 4), np.random.default_rng(0)).index[0]
        assert one.tolist() == shuffled_grid((4, 4), 2, seed=0).ravel()[::-1].tolist()

    @pytest.mark.parametrize("block", [0, -1, 65, 1.5, True, "2"])
    def test_a_block_out_of_range_is_refused(self, block: Any) -> None:
        with pytest.raises(ConfigError, match="'block'"):
            regenerate(block=block)

    def test_an_unknown_base_is_answered_with_the_nearest(self) -> None:
        with pytest.raises(ConfigError, match="did you mean 'raster'"):
            regenerate(base="rastr")


class Halves(Scan):
    """Raster whose state starts anew in the middle."""

    def directions(self, dims: int) -> int:
        return 1

    def order(self, grid: Grid, generator: np.random.Generator | None = None) -> ScanOrder:
        tokens = np.arange(np.prod(grid))[None]
        return ScanOrder(tokens, tokens == tokens.size // 2)


class Varying(Scan):
    """Raster in even slots, its reverse in odd ones."""

    def __init__(self, step: int = 1) -> None:
        self.step = step

    def directions(self, dims: int) -> int:
        return 1

    def at(self, slot: int) -> Scan:
        return Varying(-1 if slot % 2 else 1)

    def order(self, grid: Grid, generator: np.random.Generator | None = None) -> ScanOrder:
        return ScanOrder(np.arange(np.prod(grid))[None, :: self.step])
