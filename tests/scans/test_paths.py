"""Symmetric paths side by side and by layer, lists of scans, and the random permutations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scan_cases import CURVES, path, rows
from ssmdiff.errors import ConfigError
from ssmdiff.orders.scan import OrderPlan, Scan, ScanSlot, fixed_order
from ssmdiff.registry.registry import create

SHAPES = [(2, 3), (5, 12), (7, 5), (4, 4), (1, 5)]


def zigzag_paths(H: int, W: int, snake: bool) -> list[list[int]]:
    """ZigMa's eight paths, or DiMSUM's eight sweeps, by two loops from each corner."""
    paths = []
    for bottom, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        lines = range(H)[::-1] if bottom else range(H)
        along = range(W)[::-1] if right else range(W)
        by_row, by_column = [], []
        for i, h in enumerate(lines):
            by_row += [h * W + w for w in (along[::-1] if snake and i % 2 else along)]
        for i, w in enumerate(along):
            by_column += [h * W + w for h in (lines[::-1] if snake and i % 2 else lines)]
        paths += [by_row, by_column]
    return paths


@pytest.mark.parametrize(("name", "snake"), [("zigzag", True), ("sweep8", False)])
@pytest.mark.parametrize(("H", "W"), SHAPES)
def test_the_eight_paths_from_the_corners(name: str, snake: bool, H: int, W: int) -> None:
    eight = zigzag_paths(H, W, snake)
    assert rows(name, (H, W), by_layer=False) == eight
    scan = create("scan", name)
    by_layer = [fixed_order(scan.at(i), (H, W)).index for i in range(10)]
    assert [index[0].tolist() for index in by_layer] == [*eight, *eight[:2]]


@pytest.mark.parametrize("name", [n for n in CURVES if n != "atrous"])
@pytest.mark.parametrize(("H", "W"), SHAPES)
def test_paths_follow_the_curve_over_the_grid_as_it_lies(name: str, H: int, W: int) -> None:
    """Each path read on paper: hold the sheet mirrored or on its side, and walk the curve."""
    tokens = np.arange(H * W).reshape(H, W)

    def walk(sheet: np.ndarray) -> list[int]:
        curve = path(name, sheet.shape, paths=1, by_layer=False)
        return [int(sheet.flat[i]) for i in curve]

    one, turned = walk(tokens), walk(tokens.T)
    assert rows(name, (H, W), paths=1) == [one]
    assert rows(name, (H, W), paths=2, by_layer=False) == [one, one[::-1]]
    four = [one, turned, one[::-1], turned[::-1]]
    assert rows(name, (H, W), paths=4, by_layer=False) == four
    corners = (tokens, tokens[:, ::-1], tokens[::-1], tokens[::-1, ::-1])
    eight = [walk(sheet) for corner in corners for sheet in (corner, corner.T)]
    assert rows(name, (H, W), paths=8, by_layer=False) == eight
    scan = create("scan", name, paths=8, by_layer=True)
    assert [scan.at(i).order((H, W)).index[0].tolist() for i in range(8)] == eight


@pytest.mark.parametrize("name", ["zigzag", "hilbert", "spiral", "snake", "jpeg", "rings"])
def test_the_eight_paths_of_a_square_are_eight(name: str) -> None:
    assert len({tuple(row) for row in rows(name, (6, 6), paths=8, by_layer=False)}) == 8


@pytest.mark.parametrize("name", ["zigzag", "axis-cross", "random", "layers", "regenerate"])
def test_the_tables_of_a_scan_that_varies_are_cached(name: str) -> None:
    """A fixed scan hands out the same object for a slot, or every step would build it anew."""
    options: dict[str, Any] = {"by_layer": True} if name == "axis-cross" else {}
    scan = create("scan", name, **options)
    for slot in range(4):
        assert scan.at(slot) is scan.at(slot)


class TestLayers:
    def of(self, *scans: Any) -> Scan:
        return create("scan", "layers", scans=list(scans))

    def test_each_call_takes_the_next_of_the_list(self) -> None:
        scan = self.of("raster", "snake", {"name": "snake", "along": "column"})
        walked = [scan.at(i).order((3, 4)).index[0].tolist() for i in range(4)]
        assert walked == [
            path("raster", (3, 4)),
            path("snake", (3, 4)),
            path("snake", (3, 4), along="column"),
            path("raster", (3, 4)),
        ]

    def test_a_member_that_varies_counts_its_own_turns(self) -> None:
        scan, zigzag = self.of("zigzag", "raster", "zigzag"), create("scan", "zigzag")
        turns = [scan.at(i).order((4, 6)).index.tolist() for i in (0, 2, 3, 5, 6)]
        assert turns == [zigzag.at(i).order((4, 6)).index.tolist() for i in range(5)]

    def test_equal_entries_of_random_are_different_permutations(self) -> None:
        scan = self.of("random", "random", "snake")
        drawn = [tuple(scan.at(i).order((4, 6)).index[0]) for i in (0, 1, 3, 4)]
        assert len(set(drawn)) == 4

    def test_the_list_of_vmddpm_with_snakes(self) -> None:
        scan = self.of({"name": "regenerate", "base": "raster"}, "snake", "snake")
        assert [scan.at(i).stochastic for i in range(4)] == [True, False, False, True]
        slots = (ScanSlot((4, 4)),) * 4
        one, other = (OrderPlan(scan, slots, 0).draw(step) for step in (0, 1))
        same = [(a.index == b.index).all() for a, b in zip(one, other, strict=True)]
        assert same == [False, True, True, False]

    def test_scans_of_different_k_have_no_common_one(self) -> None:
        scan = self.of("cross", "snake")
        with pytest.raises(ConfigError, match="K is cross 4, snake 1"):
            scan.directions(2)
        assert [scan.at(i).directions(2) for i in range(2)] == [4, 1]

    def test_it_is_continuous_where_all_its_members_are(self) -> None:
        assert self.of("snake", "hilbert").continuous
        assert not self.of("snake", "raster").continuous


class TestRandom:
    def test_it_is_a_function_of_its_own_seed_and_the_slot(self) -> None:
        def table(seed: int, slot: int, run: int) -> bytes:
            scan = create("scan", "random", seed=seed)
            plan = OrderPlan(scan, (ScanSlot((5, 7)),) * 4, run)
            return plan.draw(step=run)[slot].index.tobytes()

        assert table(1, 2, run=0) == table(1, 2, run=9)
        assert len({table(seed, slot, 0) for seed in (1, 2) for slot in range(4)}) == 8

    def test_the_scan_without_a_slot_is_that_of_slot_0(self) -> None:
        scan = create("scan", "random", seed=3)
        assert (scan.order((4, 5)).index == scan.at(0).order((4, 5)).index).all()

    def test_its_tables_never_change(self) -> None:
        """Trained models depend on them: the raw stream of Philox is fixed."""
        scan = create("scan", "random", seed=0)
        assert [scan.at(i).order((2, 3)).index[0].tolist() for i in range(3)] == KNOWN

    def test_paths_are_independent(self) -> None:
        table = create("scan", "random", paths=3).order((8, 8)).index
        assert len({tuple(row) for row in table}) == 3


def test_shuffles_are_uniform() -> None:
    rng, scan = np.random.default_rng(0), create("scan", "shuffle")
    firsts = np.bincount([scan.order((2, 3), rng).index[0, 0] for _ in range(6000)])
    # Binomial(6000, 1/6): six standard deviations are 173.
    assert (np.abs(firsts - 1000) < 173).all()


KNOWN = [[2, 0, 1, 4, 5, 3], [1, 3, 2, 0, 5, 4], [1, 4, 3, 0, 2, 5]]
