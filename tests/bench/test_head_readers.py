"""What benchmarks/head_readers.py counts, against counts by hand; and the readers on heads."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from ssmdiff_data.phantom import PhantomDataset

SCRIPT = Path(__file__).parents[2] / "benchmarks/head_readers.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("head_readers", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["head_readers"] = module
    spec.loader.exec_module(module)
    return module


def test_dice_is_that_of_the_pixels(script: ModuleType) -> None:
    given = np.array([[[0, 0, 1], [1, 6, 6]]])
    read = np.array([[[0, 1, 1], [1, 6, 0]]])
    found = script.dice(read, given)
    assert found == {
        "mean": pytest.approx((2 / 4 + 4 / 5 + 2 / 3) / 3, abs=1e-4),
        "outside": 0.5,
        "scalp": 0.8,
        "lesion": pytest.approx(2 / 3, abs=1e-4),
    }
    assert script.dice(given, given)["mean"] == 1


def test_findings_and_numbers_are_held_against_what_was_given(script: ModuleType) -> None:
    given = np.array([[1, 0, 1], [0, 0, 1], [1, 1, 1], [0, 1, 0]], bool)
    read = given.copy()
    read[0, 0] = False
    read[:2, 2] = False
    assert list(script.accuracies(read, given).values()) == [0.75, 1.0, 0.5]
    scores = np.array([[3.0, 1, 0], [1, 2, 0], [2, 3, 0], [0, 4, 1]])  # pairs in order, by hand
    assert list(script.areas(scores, given).values()) == [1.0, 1.0, 0.0]
    scores[1, 0] = 2.5
    scores[2, 0], scores[3, 2] = 2.5, 0  # one pair of four tied; all of the last are
    assert list(script.areas(scores, given).values()) == [0.875, 1.0, 0.5]
    angles = np.array([-10.0, 0, 10, 14])
    assert script.correlations({"angle": 3 * angles + 1}, {"angle": list(angles)}) == {"angle": 1}
    for name in script.NUMBERS:
        values = np.linspace(-1, 1, 5)
        np.testing.assert_allclose(script.on_range(name, script.off_range(name, values)), values)


def test_readers_are_trained_on_what_the_heads_tell(script: ModuleType) -> None:
    images, targets = script.heads(7, 4, "values", first=2)
    assert images.shape == (4, 1, script.SIDE, script.SIDE)
    item = PhantomDataset((script.SIDE, script.SIDE), seed=7)[3]
    assert images[1].equal(item.image)
    angle = script.off_range("angle", targets[1, script.NUMBERS.index("angle")])
    assert float(angle) == pytest.approx(item.told["angle"], abs=1e-4)
    bits = targets[1, len(script.NUMBERS) :]
    assert tuple(bits.nonzero().flatten().tolist()) == item.told["findings"]
    _, masks = script.heads(7, 1, "mask", first=3)
    assert masks[0].equal(item.told["mask"].long())


def test_a_perfect_mask_loses_nothing_and_a_wrong_one_a_lot(script: ModuleType) -> None:
    _, masks = script.heads(7, 2, "mask")
    right = 50.0 * torch.nn.functional.one_hot(masks, len(script.TISSUES)).movedim(-1, 1)
    assert script.mask_loss(right, masks) < 0.05
    assert script.mask_loss(right.flip(1), masks) > 1


@pytest.mark.night
def test_the_readers_read_real_heads(script: ModuleType, tmp_path: Path) -> None:
    found = script.on_real(script.Readers(tmp_path / "readers.pt"), 512)
    assert found["dice"]["mean"] >= 0.95
    assert min(found["correlation"].values()) >= 0.98
    assert min(found["area"].values()) >= 0.98
    assert min(found["accuracy"].values()) >= 0.94
