"""The figures of an order against loops over its tokens, its pictures, and the gallery page."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from scan_cases import NAMES, claims, order_of
from ssmdiff.errors import ConfigError
from ssmdiff.orders.scan import Grid, Scan, ScanOrder
from ssmdiff.registry.registry import Registry, create
from ssmdiff_cli.scan_figures import figures_of, measure, served_axes
from ssmdiff_cli.scan_pictures import Panel, ascii_path, ascii_times, draw, scattered

DOCS = Path(__file__).parents[2] / "docs"


def by_hand(order: ScanOrder, grid: Grid) -> tuple[int, list[dict[tuple[int, int], int]]]:
    """Jumps, and for each direction |dt| of the neighbours that meet; token by token."""
    places = list(itertools.product(*map(range, grid)))

    def share_a_side(p: int, q: int) -> bool:
        return sum(abs(a - b) for a, b in zip(places[p], places[q], strict=True)) == 1

    jumps, met = [], []
    for k, row in enumerate(order.index.tolist()):
        restart = [False] * len(row) if order.restart is None else order.restart[k].tolist()
        pairs = [(a, b) for (a, b), anew in zip(itertools.pairwise(row), restart[1:], strict=True)
                 if not anew]  # fmt: skip
        jumps.append(sum(not share_a_side(a, b) for a, b in pairs))
        dt = {}
        for s, t in itertools.combinations(range(len(row)), 2):
            if share_a_side(row[s], row[t]) and not any(restart[s + 1 : t + 1]):
                dt[min(row[s], row[t]), max(row[s], row[t])] = t - s
        met.append(dt)
    return max(jumps), met


@pytest.mark.parametrize("name", NAMES)
def test_figures_are_what_loops_over_the_tokens_count(name: str) -> None:
    grid = (4, 5) if 2 in claims({"name": name}) else (2, 3, 4)
    order = order_of(create("scan", name), grid)
    figures, (jumps, met) = measure(order, grid), by_hand(order, grid)
    assert (figures.directions, figures.jumps) == (order.directions, jumps)
    if name == "atrous":
        assert met == [{}] * 4
        assert (figures.mean_dt, figures.max_dt, figures.best_mean_dt) == (None, None, None)
        assert figures.apart == 1.0
        return
    first = list(met[0].values())
    best = [min(dt[pair] for dt in met) for pair in met[0]]
    assert figures.mean_dt == pytest.approx(np.mean(first))
    assert figures.best_mean_dt == pytest.approx(np.mean(best))
    assert (figures.max_dt, figures.best_max_dt) == (max(first), max(best))
    assert figures.apart == 0.0


def test_neighbours_that_a_restart_parts_in_some_directions_meet_in_others() -> None:
    tokens = np.array([[0, 1, 2, 3], [0, 1, 2, 3]])
    restart = np.array([[False, False, True, False], [False] * 4])
    figures = measure(ScanOrder(tokens, restart), (4,))
    assert (figures.mean_dt, figures.best_mean_dt, figures.apart) == (1.0, 1.0, 0.0)
    assert measure(ScanOrder(tokens[:1], restart[:1]), (4,)).apart == pytest.approx(1 / 3)


def test_figures_of_one_token() -> None:
    figures = measure(ScanOrder(np.array([[0]])), (1, 1))
    assert (figures.jumps, figures.mean_dt, figures.apart) == (0, None, 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_the_grids_that_are_told_are_those_that_are_served(name: str) -> None:
    assert set(served_axes(create("scan", name))) == claims({"name": name})


@pytest.mark.parametrize("name", NAMES)
def test_scans_that_call_themselves_continuous_are_measured_so(name: str) -> None:
    scan = create("scan", name)
    assert not getattr(scan, "continuous", False) or figures_of(scan)[1].jumps == 0


class Nowhere(Scan):
    """Serves no grid."""

    def directions(self, dims: int) -> int:
        return 1

    def order(self, grid: Grid, generator: np.random.Generator | None = None) -> ScanOrder:
        raise ConfigError("not here")


def test_a_scan_that_serves_none_of_the_grids_is_told() -> None:
    with pytest.raises(ConfigError, match="Nowhere serves none of the grids 16 x 16"):
        figures_of(Nowhere())


class TestCharacters:
    def test_a_snake(self) -> None:
        order = create("scan", "snake").order((3, 4))
        assert ascii_path(order, (3, 4)).splitlines() == [
            "S>o>o>o",
            "      v",
            "o<o<o<o",
            "v",
            "o>o>o>E",
        ]
        times = " 0  1  2  3\n 7  6  5  4\n 8  9 10 11"
        assert ascii_times(order, (3, 4)) == times

    def test_jumps_and_diagonals(self) -> None:
        raster = create("scan", "raster").order((2, 3))
        assert ascii_path(raster, (2, 3)).splitlines() == ["S>o>*", "", "o>o>E"]
        jpeg = create("scan", "jpeg").order((2, 3))
        assert ascii_path(jpeg, (2, 3)).splitlines() == ["S>o o", " / /v", "o>o E"]

    def test_nothing_leads_across_a_restart(self) -> None:
        order = ScanOrder(np.arange(4)[None], np.array([[True, False, True, False]]))
        assert ascii_path(order, (4,)) == "S>* o>E"

    def test_a_volume_has_none(self) -> None:
        order = create("scan", "raster").order((2, 2, 2))
        with pytest.raises(ConfigError, match="2 x 2 x 2 has no picture in characters"):
            ascii_path(order, (2, 2, 2))


class TestPictures:
    @pytest.mark.parametrize("grid", [(6, 6), (5, 12), (1, 64), (9,), (2, 3, 4), (1, 1), (40, 48)])
    def test_every_kind_of_grid_is_drawn(self, grid: Grid, tmp_path: Path) -> None:
        order = create("scan", "cross").order(grid)
        panels = [Panel(f"direction {k}", order, grid, k) for k in range(order.directions)]
        draw(panels, tmp_path / "cross.png", "cross")
        with Image.open(tmp_path / "cross.png") as image:
            assert len(image.convert("RGB").getcolors(1 << 20) or ()) > 50

    @pytest.mark.parametrize("name", ["atrous", "regenerate", "shuffle", "hilbert"])
    def test_restarts_and_random_paths_are_drawn(self, name: str, tmp_path: Path) -> None:
        order = order_of(create("scan", name), (8, 8))
        draw([Panel(name, order, (8, 8))], tmp_path / "scan.png")
        assert (tmp_path / "scan.png").stat().st_size > 1000

    def test_only_random_paths_are_drawn_as_tokens(self) -> None:
        grid = (16, 16)
        orders = {n: order_of(create("scan", n), grid) for n in NAMES if 2 in claims({"name": n})}
        drawn = [name for name, order in orders.items() if scattered(Panel(name, order, grid))]
        assert drawn == ["random", "regenerate", "shuffle"]

    @pytest.mark.parametrize("grid", [(300, 300), (2, 2, 2, 2)])
    def test_a_grid_that_no_picture_can_show_is_refused(self, grid: Grid, tmp_path: Path) -> None:
        order = create("scan", "raster").order(grid)
        with pytest.raises(ConfigError, match="cannot be drawn; expected up to three axes"):
            draw([Panel("", order, grid)], tmp_path / "large.png")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_scans", DOCS / "make_scans.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_of_the_page_are_what_the_script_makes(script: ModuleType) -> None:
    text = (DOCS / "scans.md").read_text(encoding="utf-8")
    made = script.page(text, script.tables(Registry(allowed=[])))
    assert made == text, "run: python docs/make_scans.py"


def test_the_gallery_is_small_and_shows_every_scan(script: ModuleType, tmp_path: Path) -> None:
    assert script.GALLERY.stat().st_size < 300_000
    script.gallery(Registry(allowed=[]), tmp_path / "gallery.png")
    with Image.open(script.GALLERY) as kept, Image.open(tmp_path / "gallery.png") as made:
        assert kept.size == made.size, "run: python docs/make_scans.py"


def test_every_scan_says_where_it_comes_from() -> None:
    for entry in Registry(allowed=[]).all("scan"):
        assert entry.component.cite, entry.component.name
