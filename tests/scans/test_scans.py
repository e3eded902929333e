"""Every registered scan through the proofs of the catalogue, and the definitions of the built-ins.

Plain numpy. A scan that a plugin adds to the registry is tested without writing a test.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ssmdiff.errors import ConfigError
from ssmdiff.orders import Grid, OrderPlan, Scan, ScanOrder, ScanSlot
from ssmdiff.registry import Registry, create

SCANS = Registry(allowed=[]).names("scan")
GRIDS: list[Grid] = [
    *itertools.product(range(1, 10), range(1, 10)),
    *[(14, 14), (16, 16), (5, 12), (7, 5), (1, 64)],
    *[(1,), (2,), (7,), (64,)],
    *itertools.product(range(1, 5), repeat=3),
]


@pytest.fixture(params=SCANS)
def scan(request: pytest.FixtureRequest) -> Scan:
    return create("scan", request.param)


def order_of(scan: Scan, grid: Grid, seed: int = 0) -> ScanOrder:
    return scan.order(grid, np.random.default_rng(seed))


def expand(x: np.ndarray, order: ScanOrder) -> np.ndarray:
    """(L,) in grid order to (K, L) in visiting order."""
    return np.stack([x[row] for row in order.index])


def merge(y: np.ndarray, order: ScanOrder) -> np.ndarray:
    """(K, L) in visiting order to (L,) in grid order, summed over the directions."""
    merged = np.zeros(order.length)
    for row, values in zip(order.index, y, strict=True):
        for token, value in zip(row, values, strict=True):
            merged[token] += value
    return merged


class TestEveryScan:
    def test_proof_1_every_direction_visits_every_token_once(self, scan: Scan) -> None:
        for grid in GRIDS:
            tokens = list(range(np.prod(grid)))
            for row in order_of(scan, grid).index:
                assert sorted(row.tolist()) == tokens, grid

    def test_directions_are_known_before_the_grid(self, scan: Scan) -> None:
        for grid in GRIDS:
            assert order_of(scan, grid).directions == scan.directions(len(grid)), grid

    def test_proof_2_the_inverse_is_the_time_of_each_visit(self, scan: Scan) -> None:
        for grid in GRIDS:
            order = order_of(scan, grid)
            times = np.arange(order.length)
            for index, inverse in zip(order.index, order.inverse, strict=True):
                assert (inverse[index] == times).all(), grid
                assert (index[inverse] == times).all(), grid

    @pytest.mark.parametrize("grid", [(5, 12), (7, 5), (1, 9), (2, 3, 4), (7,)])
    def test_proof_2_merging_what_was_expanded_is_k_times_it(self, scan: Scan, grid) -> None:
        order = order_of(scan, grid)
        x = np.random.default_rng(1).integers(-99, 99, order.length).astype(float)
        assert (merge(expand(x, order), order) == order.directions * x).all()

    @pytest.mark.parametrize("grid", [(5, 12), (7, 5), (2, 3, 4)])
    def test_proof_5_expand_and_merge_are_adjoint(self, scan: Scan, grid) -> None:
        order = order_of(scan, grid)
        rng = np.random.default_rng(2)
        x = rng.integers(-99, 99, order.length)
        gradient = rng.integers(-99, 99, order.index.shape)
        assert (expand(x, order) * gradient).sum() == (x * merge(gradient, order)).sum()

    def test_proof_6_a_draw_is_a_function_of_seed_step_and_slot(self, scan: Scan) -> None:
        slots = (ScanSlot((5, 12)), ScanSlot((5, 12)), ScanSlot((3, 4)))

        def drawn(seed: int, step: int) -> list[bytes]:
            fresh = create("scan", {**NAMED[type(scan).__name__]})
            return [o.index.tobytes() for o in OrderPlan(fresh, slots, seed).draw(step)]

        assert drawn(3, 5) == drawn(3, 5)
        big = [table for seed in (3, 4) for step in (5, 6) for table in drawn(seed, step)[:2]]
        assert len(set(big)) == (len(big) if scan.stochastic else 1)

    def test_a_fixed_scan_ignores_the_generator_and_a_random_one_needs_it(self, scan) -> None:
        if scan.stochastic:
            with pytest.raises(ConfigError, match="given no generator"):
                scan.order((3, 4))
        else:
            rng = np.random.default_rng(0)
            before = rng.bit_generator.state
            with_it, without = scan.order((3, 4), rng), scan.order((3, 4))
            assert (with_it.index == without.index).all()
            assert rng.bit_generator.state == before

    def test_a_slot_of_a_network_has_a_scan_of_as_many_directions(self, scan: Scan) -> None:
        assert {scan.at(i).directions(2) for i in range(8)} == {scan.directions(2)}


NAMED = {type(create("scan", name)).__name__: {"name": name} for name in SCANS}


def rows(name: str, grid: Grid) -> list[list[int]]:
    return create("scan", name).order(grid).index.tolist()


@pytest.mark.parametrize(("H", "W"), [(2, 3), (3, 2), (5, 12), (7, 5), (1, 4), (4, 1)])
class TestDefinitionsOnImages:
    def test_raster_goes_row_by_row(self, H: int, W: int) -> None:
        assert rows("raster", (H, W)) == [[h * W + w for h in range(H) for w in range(W)]]

    def test_bidirectional_is_raster_and_its_reverse(self, H: int, W: int) -> None:
        there = [h * W + w for h in range(H) for w in range(W)]
        assert rows("bidirectional", (H, W)) == [there, there[::-1]]

    def test_cross_is_the_cross_scan_of_vmamba(self, H: int, W: int) -> None:
        by_row = [h * W + w for h in range(H) for w in range(W)]
        by_column = [h * W + w for w in range(W) for h in range(H)]
        assert rows("cross", (H, W)) == [by_row, by_column, by_row[::-1], by_column[::-1]]


def test_cross_on_a_volume_takes_each_axis_as_the_fastest() -> None:
    D, H, W = 2, 3, 4
    last = [d * H * W + h * W + w for d in range(D) for h in range(H) for w in range(W)]
    middle = [d * H * W + h * W + w for d in range(D) for w in range(W) for h in range(H)]
    first = [d * H * W + h * W + w for h in range(H) for w in range(W) for d in range(D)]
    forward = [last, middle, first]
    assert rows("cross", (D, H, W)) == forward + [row[::-1] for row in forward]


def test_cross_on_a_line_is_bidirectional() -> None:
    assert rows("cross", (6,)) == rows("bidirectional", (6,)) == [[*range(6)], [*range(6)][::-1]]


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
