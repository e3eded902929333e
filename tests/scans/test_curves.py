"""The curves against their definitions, walked token by token or written down by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest
from scan_cases import path, rows
from ssmdiff.registry.registry import create

SHAPES = [(1, 1), (1, 6), (6, 1), (2, 3), (3, 2), (4, 4), (5, 12), (7, 5), (8, 6), (9, 9)]
images = pytest.mark.parametrize(("H", "W"), SHAPES)


def sorted_tokens(H: int, W: int, key: Callable[[int, int], object]) -> list[int]:
    """The tokens of an H x W grid in ascending order of a key of (h, w)."""
    places = sorted(((h, w) for h in range(H) for w in range(W)), key=lambda p: key(*p))
    return [h * W + w for h, w in places]


@images
class TestByAxes:
    def test_raster_goes_row_by_row_and_column_column_by_column(self, H: int, W: int) -> None:
        assert path("raster", (H, W)) == [h * W + w for h in range(H) for w in range(W)]
        assert path("column", (H, W)) == [h * W + w for w in range(W) for h in range(H)]

    def test_bidirectional_is_raster_and_its_reverse(self, H: int, W: int) -> None:
        there = [h * W + w for h in range(H) for w in range(W)]
        assert rows("bidirectional", (H, W)) == [there, there[::-1]]

    def test_cross_is_the_cross_scan_of_vmamba(self, H: int, W: int) -> None:
        by_row = [h * W + w for h in range(H) for w in range(W)]
        by_column = [h * W + w for w in range(W) for h in range(H)]
        assert rows("cross", (H, W)) == [by_row, by_column, by_row[::-1], by_column[::-1]]

    def test_axis_cross_alternates_each_axis_order_with_its_reverse(self, H: int, W: int) -> None:
        by_row = [h * W + w for h in range(H) for w in range(W)]
        by_column = [h * W + w for w in range(W) for h in range(H)]
        side_by_side = [by_row, by_row[::-1], by_column, by_column[::-1]]
        assert rows("axis-cross", (H, W)) == side_by_side
        scan = create("scan", "axis-cross", by_layer=True)
        by_layer = [scan.at(i).order((H, W)).index[0].tolist() for i in range(6)]
        assert by_layer == side_by_side + side_by_side[:2]


class TestVolumes:
    D, H, W = 2, 3, 4

    def token(self, d: int, h: int, w: int) -> int:
        return (d * self.H + h) * self.W + w

    def orders(self) -> tuple[list[int], list[int], list[int]]:
        D, H, W = range(self.D), range(self.H), range(self.W)
        return (
            [self.token(d, h, w) for d in D for h in H for w in W],
            [self.token(d, h, w) for d in D for w in W for h in H],
            [self.token(d, h, w) for h in H for w in W for d in D],
        )

    def test_cross_takes_each_axis_as_the_fastest(self) -> None:
        forward = list(self.orders())
        grid = (self.D, self.H, self.W)
        assert rows("cross", grid) == forward + [row[::-1] for row in forward]
        assert rows("axis-cross", grid) == [row[::way] for row in forward for way in (1, -1)]

    def test_tri_is_the_three_orders_of_segmamba(self) -> None:
        by_width, _, by_depth = self.orders()
        assert rows("tri", (self.D, self.H, self.W)) == [by_width, by_width[::-1], by_depth]

    def test_the_snake_turns_in_every_plane(self) -> None:
        there, back = [0, 1, 2, 3, 7, 6, 5, 4], [12, 13, 14, 15, 11, 10, 9, 8]
        assert path("snake", (2, 2, 4)) == there + back

    def test_diagonals_are_planes_of_equal_sum(self) -> None:
        assert path("diagonal", (2, 2, 2)) == [0, 1, 2, 4, 3, 5, 6, 7]

    def test_morton_visits_octants(self) -> None:
        first = path("morton", (4, 4, 4))[:8]
        assert first == [16 * d + 4 * h + w for d in (0, 1) for h in (0, 1) for w in (0, 1)]


def test_cross_on_a_line_is_bidirectional() -> None:
    assert rows("cross", (6,)) == rows("bidirectional", (6,)) == [[*range(6)], [*range(6)][::-1]]


@images
class TestSnakesAndDiagonals:
    def test_snake(self, H: int, W: int) -> None:
        walked = []
        for h in range(H):
            line = [h * W + w for w in range(W)]
            walked += line[::-1] if h % 2 else line
        assert path("snake", (H, W)) == walked

    def test_snake_by_columns(self, H: int, W: int) -> None:
        walked = []
        for w in range(W):
            line = [h * W + w for h in range(H)]
            walked += line[::-1] if w % 2 else line
        assert path("snake", (H, W), along="column") == walked

    def test_diagonal_and_antidiagonal(self, H: int, W: int) -> None:
        assert path("diagonal", (H, W)) == sorted_tokens(H, W, lambda h, w: (h + w, h))
        mirrored = sorted_tokens(H, W, lambda h, w: (h + W - 1 - w, h))
        assert path("antidiagonal", (H, W)) == mirrored

    def test_jpeg_alternates_along_the_diagonals(self, H: int, W: int) -> None:
        walked = []
        for s in range(H + W - 1):
            diagonal = [h * W + s - h for h in range(H) if 0 <= s - h < W]
            walked += diagonal if s % 2 else diagonal[::-1]
        assert path("jpeg", (H, W)) == walked


def test_jpeg_is_the_table_of_the_standard() -> None:
    """ITU-T T.81, figure A.6, its first four diagonals, and an odd side (the known fault)."""
    assert path("jpeg", (8, 8))[:10] == [0, 1, 8, 16, 9, 2, 3, 10, 17, 24]
    assert path("jpeg", (3, 3)) == [0, 1, 3, 6, 4, 2, 5, 7, 8]


@images
def test_morton_compares_interleaved_bits(H: int, W: int) -> None:
    def code(h: int, w: int) -> str:
        return "".join(a + b for a, b in zip(f"{h:08b}", f"{w:08b}", strict=True))

    assert path("morton", (H, W)) == sorted_tokens(H, W, code)


class TestHilbert:
    def test_four_by_four(self) -> None:
        assert path("hilbert", (4, 4)) == [0, 1, 5, 4, 8, 12, 13, 9, 10, 14, 15, 11, 7, 6, 2, 3]

    @pytest.mark.parametrize("side", [2, 4, 8, 16, 32])
    def test_on_powers_of_two_it_is_hilberts_own(self, side: int) -> None:
        """Each quadrant is visited as a whole, and inside each the same holds again."""

        def check(places: np.ndarray, side: int) -> None:
            if side == 1:
                return
            for quarter in np.split(places, 4):
                assert len(np.unique(quarter // (side // 2) * (side // 2), axis=0)) == 1
                check(quarter % (side // 2), side // 2)

        check(np.stack(np.divmod(path("hilbert", (side, side)), side), axis=1), side)

    @pytest.mark.parametrize(
        "grid", [*SHAPES, (1, 7), (6, 4), (5, 7), (9, 6), (6, 9), (14, 14), (12, 31)]
    )
    def test_elsewhere_it_is_the_recursion_over_rectangles(self, grid: tuple[int, int]) -> None:
        H, W = grid
        width, height = np.array([W, 0]), np.array([0, H])
        edges = (width, height) if W >= H else (height, width)
        walked = [int(y * W + x) for x, y in rectangle(np.zeros(2, dtype=int), *edges)]
        assert path("hilbert", grid) == walked

    @pytest.mark.parametrize("grid", [(4, 4), (6, 10), (5, 8), (7, 7), (2, 4, 6), (8, 8, 8)])
    def test_it_runs_along_the_longest_side(self, grid: tuple[int, ...]) -> None:
        walked = path("hilbert", grid)
        end = np.array(np.unravel_index(walked[-1], grid))
        longest = max(range(len(grid)), key=lambda axis: (grid[axis], axis))
        assert walked[0] == 0
        assert end.tolist() == [n - 1 if a == longest else 0 for a, n in enumerate(grid)]

    def test_neighbours_in_the_cube_stay_near(self) -> None:
        places = np.stack(np.unravel_index(path("hilbert", (4, 4, 4)), (4, 4, 4)), axis=1)
        assert {tuple(p // 2) for p in places[:8]} == {(0, 0, 0)}
        assert all(np.abs(b - a).sum() == 1 for a, b in pairwise(places))


def rectangle(p: np.ndarray, a: np.ndarray, b: np.ndarray) -> Iterator[np.ndarray]:
    """Cerveny's recursion as he states it, one rectangle at a time; (x, y) of each token."""
    w, h = abs(a.sum()), abs(b.sum())
    da, db = np.sign(a), np.sign(b)
    if h == 1:
        yield from (p + i * da for i in range(w))
    elif w == 1:
        yield from (p + i * db for i in range(h))
    elif 2 * w > 3 * h:
        a2 = a // 2
        if abs(a2.sum()) % 2 and w > 2:
            a2 = a2 + da
        yield from rectangle(p, a2, b)
        yield from rectangle(p + a2, a - a2, b)
    else:
        a2, b2 = a // 2, b // 2
        if abs(b2.sum()) % 2 and h > 2:
            b2 = b2 + db
        yield from rectangle(p, b2, a2)
        yield from rectangle(p + b2, a, b - b2)
        yield from rectangle(p + (a - da) + (b2 - db), -b2, -(a - a2))


@images
class TestSpiralAndRings:
    def test_spiral_turns_right_where_it_is_blocked(self, H: int, W: int) -> None:
        walked, h, w, dh, dw = [0], 0, 0, 0, 1
        while len(walked) < H * W:
            free = 0 <= h + dh < H and 0 <= w + dw < W and (h + dh) * W + w + dw not in walked
            if free:
                h, w = h + dh, w + dw
                walked.append(h * W + w)
            else:
                dh, dw = dw, -dh
        assert path("spiral", (H, W)) == walked
        assert path("spiral", (H, W), start="centre") == walked[::-1]
        assert rows("spiral", (H, W), paths=2) == [walked, walked[::-1]]

    def test_rings_go_by_distance_to_the_border_then_by_angle(self, H: int, W: int) -> None:
        def key(h: int, w: int) -> tuple[int, float]:
            angle = math.atan2(h - (H - 1) / 2, w - (W - 1) / 2)
            return min(h, w, H - 1 - h, W - 1 - w), angle if angle >= 0 else angle + 2 * math.pi

        assert path("rings", (H, W)) == sorted_tokens(H, W, key)


def test_spiral_of_three_by_four() -> None:
    assert path("spiral", (3, 4)) == [0, 1, 2, 3, 7, 11, 10, 9, 8, 4, 5, 6]


@images
@pytest.mark.parametrize("k", [1, 2, 3, 4])
class TestWindows:
    def test_local_goes_window_by_window(self, H: int, W: int, k: int) -> None:
        by_row = sorted_tokens(H, W, lambda h, w: (h // k, w // k, h % k, w % k))
        by_column = sorted_tokens(H, W, lambda h, w: (w // k, h // k, w % k, h % k))
        assert rows("local", (H, W), window=k) == [
            by_row, by_column, by_row[::-1], by_column[::-1]
        ]  # fmt: skip

    @pytest.mark.parametrize("shift", [0, 1, 2])
    def test_stripes_are_snakes_to_and_fro(self, H: int, W: int, k: int, shift: int) -> None:
        """The stripes as MaIR cuts them, the first one ``shift`` wide where that is set."""
        if shift >= k:
            return
        edges = [0, *range(shift or k, W, k), W]
        walked: list[int] = []
        for i, (left, right) in enumerate(pairwise(edges)):
            down = [[h * W + w for w in range(left, right)] for h in range(H)]
            for j, line in enumerate(reversed(down) if i % 2 else down):
                walked += line[::-1] if j % 2 else line
        assert path("stripes", (H, W), width=k, shift=shift, paths=1) == walked


def test_stripes_of_an_odd_number_of_rows_are_one_unbroken_path() -> None:
    places = np.stack(np.divmod(path("stripes", (5, 12), width=3, paths=1), 12), axis=1)
    assert all(np.abs(b - a).sum() == 1 for a, b in pairwise(places))


@images
@pytest.mark.parametrize("d", [2, 3, 5])
def test_atrous_is_d_by_d_sub_grids_each_begun_anew(H: int, W: int, d: int) -> None:
    def check(row: np.ndarray, restart: np.ndarray, sequences: list[list[int]]) -> None:
        assert row.tolist() == [token for sequence in sequences for token in sequence]
        begun = np.cumsum([0, *map(len, sequences)])[:-1]
        assert np.flatnonzero(restart).tolist() == begun.tolist()

    tokens = np.arange(H * W).reshape(H, W)
    by_row = [tokens[i::d, j::d].ravel().tolist() for i in range(d) for j in range(d)]
    by_column = [tokens[i::d, j::d].T.ravel().tolist() for j in range(d) for i in range(d)]
    order = create("scan", "atrous", step=d).order((H, W))
    for k, sequences in enumerate((by_row, by_column)):
        present = [s for s in sequences if s]
        check(order.index[k], order.restart[k], present)
        check(order.index[k + 2], order.restart[k + 2], [s[::-1] for s in present[::-1]])
