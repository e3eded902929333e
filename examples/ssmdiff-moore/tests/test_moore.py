import numpy as np
import pytest
import ssmdiff
from ssmdiff import ConfigError
from ssmdiff.testing import check_scan


@pytest.mark.parametrize("start", [0.0, 0.3])
def test_it_keeps_the_contract_of_scans(start):
    check_scan({"name": "moore", "start": start}).raise_for_failures()


def test_the_four_by_four_curve_is_moores():
    order = ssmdiff.create("scan", "moore").order((4, 4))
    assert order.index.tolist() == [[4, 0, 1, 5, 6, 2, 3, 7, 11, 15, 14, 10, 9, 13, 12, 8]]


@pytest.mark.parametrize("side", [2, 4, 8, 64])
def test_it_is_closed(side):
    order = ssmdiff.create("scan", "moore").order((side, side)).index[0]
    places = np.stack(np.unravel_index(order, (side, side)))
    steps = np.abs(places - np.roll(places, 1, axis=1)).sum(0)
    assert (steps == 1).all()


def test_start_moves_along_the_loop():
    whole = ssmdiff.create("scan", "moore").order((8, 8)).index[0]
    later = ssmdiff.create("scan", "moore", start=0.25).order((8, 8)).index[0]
    assert (later == np.roll(whole, -16)).all()


@pytest.mark.parametrize("grid", [(7, 5), (6, 6), (8, 4), (1, 1), (4, 4, 4), (16,)])
def test_other_grids_are_refused_by_name(grid):
    with pytest.raises(ConfigError, match=f"got {' x '.join(map(str, grid))}. Try scan 'hilbert'"):
        ssmdiff.create("scan", "moore").order(grid)
