"""Every built-in scan, with its main options, through the proofs of the catalogue. Plain numpy."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from scan_cases import GRIDS, IDS, IMAGES, NAMES, SPECS, VOLUMES, claims, layers_of, order_of
from ssmdiff.errors import ConfigError
from ssmdiff.orders.scan import Grid, OrderPlan, Scan, ScanOrder, ScanSlot
from ssmdiff.registry.registry import create


@pytest.fixture(params=SPECS, ids=IDS)
def spec(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param


@pytest.fixture
def scan(spec: dict[str, Any]) -> Scan:
    return create("scan", spec)


def claimed(spec: dict[str, Any], grids: list[Grid] = GRIDS) -> list[Grid]:
    return [grid for grid in grids if len(grid) in claims(spec)]


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


def test_proofs_1_and_2_permutations_of_k_directions_with_their_inverse(spec, scan) -> None:
    for of_slot in layers_of(scan):
        for grid in claimed(spec):
            order = order_of(of_slot, grid)
            assert order.directions == of_slot.directions(len(grid)), grid
            times = np.arange(np.prod(grid))
            for index, inverse in zip(order.index, order.inverse, strict=True):
                assert (np.sort(index) == times).all(), grid
                assert (inverse[index] == times).all(), grid
                assert (index[inverse] == times).all(), grid


def test_grids_that_are_not_claimed_are_refused_by_name_with_what_would_serve(spec, scan) -> None:
    for grid in ((6,), (4, 4), (2, 3, 4)):
        if len(grid) in claims(spec):
            continue
        sentence = f"scan '.*' cannot serve a grid of {len(grid)} axes: it serves .*Scans for a"
        with pytest.raises(ConfigError, match=sentence):
            scan.at(0).directions(len(grid))
        with pytest.raises(ConfigError, match=sentence):
            order_of(scan, grid)


@pytest.mark.parametrize("grid", [(5, 12), (7, 5), (1, 9), (2, 3, 4), (7,)])
def test_proof_2_merging_what_was_expanded_is_k_times_it(spec, scan: Scan, grid) -> None:
    for of_slot in layers_of(scan) if claimed(spec, [grid]) else ():
        order = order_of(of_slot, grid)
        x = np.random.default_rng(1).integers(-99, 99, order.length).astype(float)
        assert (merge(expand(x, order), order) == order.directions * x).all()


@pytest.mark.parametrize("grid", [(5, 12), (7, 5), (2, 3, 4)])
def test_proof_5_expand_and_merge_are_adjoint(spec, scan: Scan, grid) -> None:
    for of_slot in layers_of(scan) if claimed(spec, [grid]) else ():
        order = order_of(of_slot, grid)
        rng = np.random.default_rng(2)
        x = rng.integers(-99, 99, order.length)
        gradient = rng.integers(-99, 99, order.index.shape)
        assert (expand(x, order) * gradient).sum() == (x * merge(gradient, order)).sum()


def jumps(order: ScanOrder, grid: Grid) -> int:
    """Steps between tokens that share no side, as the kernel reads the table."""
    places = [np.stack(np.unravel_index(row, grid)) for row in order.index]
    return sum(int((np.abs(np.diff(p)).sum(axis=0) != 1).sum()) for p in places)


def allowed_jumps(name: str, grid: Grid) -> int:
    """A Hilbert curve along an odd longer side over an even shorter one has one diagonal step."""
    longer, shorter = max(grid), min(grid)
    return int(name == "hilbert" and longer % 2 == 1 and shorter % 2 == 0 and shorter > 2)


def test_proof_3_continuous_scans_go_to_neighbours_alone(spec, scan: Scan) -> None:
    for of_slot in layers_of(scan):
        if not getattr(of_slot, "continuous", False):
            continue
        for grid in claimed(spec, IMAGES):
            order = order_of(of_slot, grid)
            assert jumps(order, grid) == order.directions * allowed_jumps(spec["name"], grid), grid
        for grid in claimed(spec, VOLUMES):
            if spec["name"] != "hilbert" or all(side % 2 == 0 for side in grid):
                assert jumps(order_of(of_slot, grid), grid) == 0, grid


def test_the_scans_that_call_themselves_continuous() -> None:
    continuous = [n for n in NAMES if getattr(create("scan", n), "continuous", False)]
    assert continuous == ["hilbert", "snake", "spiral", "zigzag"]


@pytest.mark.parametrize("name", ["hilbert", "spiral", "snake"])
def test_a_table_used_as_its_inverse_would_jump(name: str) -> None:
    """The fault of three public code bases: the rank map read as the visiting order."""
    order = create("scan", name, paths=8).order((32, 32))
    assert jumps(order, (32, 32)) == 0
    wrong = [jumps(ScanOrder(row[None]), (32, 32)) for row in order.inverse]
    assert max(wrong) > 500


def test_proof_6_a_draw_is_a_function_of_seed_step_and_slot(spec, scan: Scan) -> None:
    grid = next(g for g in ((5, 12), (3, 4, 5)) if len(g) in claims(spec))
    slots = (ScanSlot(grid),) * 3

    def drawn(seed: int, step: int) -> list[bytes]:
        return [o.index.tobytes() for o in OrderPlan(create("scan", spec), slots, seed).draw(step)]

    assert drawn(3, 5) == drawn(3, 5)
    runs = [drawn(seed, step) for seed in (3, 4) for step in (5, 6)]
    for slot, tables in enumerate(zip(*runs, strict=True)):
        assert len(set(tables)) == (4 if scan.at(slot).stochastic else 1)
    if spec["name"] in ("random", "regenerate", "shuffle"):
        assert all(len(set(tables)) == 3 for tables in runs), "every slot has a draw of its own"


def test_a_fixed_scan_ignores_the_generator_and_a_random_one_needs_it(spec, scan) -> None:
    grid = next(g for g in ((3, 4), (2, 3, 4)) if len(g) in claims(spec))
    for of_slot in layers_of(scan):
        if of_slot.stochastic:
            with pytest.raises(ConfigError, match="given no generator"):
                of_slot.order(grid)
        else:
            rng = np.random.default_rng(0)
            before = rng.bit_generator.state
            with_it, without = of_slot.order(grid, rng), of_slot.order(grid)
            assert (with_it.index == without.index).all()
            assert rng.bit_generator.state == before


def test_every_slot_has_as_many_directions_as_the_scan_says(spec, scan: Scan) -> None:
    for dims in claims(spec):
        assert {scan.at(i).directions(dims) for i in range(9)} == {scan.directions(dims)}


def test_tables_of_the_largest_grid_build_in_well_under_a_second(spec, scan: Scan) -> None:
    grid = (256, 256) if 2 in claims(spec) else (40, 40, 40)
    start_s = time.process_time()
    order_of(scan.at(0), grid)
    assert time.process_time() - start_s < 1.0


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"name": "hilbert", "paths": 3}, "option 'paths'.*got 3"),
        ({"name": "hilbert", "path": 8}, "unknown key; did you mean 'paths'"),
        ({"name": "snake", "along": "diagonal"}, "option 'along'"),
        ({"name": "local", "window": 0}, "option 'window'"),
        ({"name": "atrous", "step": 1}, "option 'step'"),
        ({"name": "stripes", "shift": -1}, "option 'shift'"),
        ({"name": "random", "seed": -1}, "option 'seed'"),
        ({"name": "shuffle", "paths": 65}, "option 'paths'"),
        ({"name": "layers", "scans": []}, "option 'scans'"),
        ({"name": "layers", "scans": ["raster", "snak"]}, "did you mean 'snake'"),
        ({"name": "spiral", "start": "center"}, "option 'start'"),
    ],
)
def test_options_out_of_range_are_refused(spec: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        create("scan", spec)
