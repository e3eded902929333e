"""Augmentation: what is done to image i is a function of (seed, i); data sets declare it."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import ssmdiff
import torch
from scipy import ndimage
from ssmdiff import ConfigError
from ssmdiff.runs.diffusion_method import DiffusionDraws
from ssmdiff_train.augment import Augmentation, settled
from ssmdiff_train.job import train
from ssmdiff_train.stream import TrainingStream

SMALL = {
    "train": {"steps": 2, "batch_size": 2, "callbacks": [], "bound_images": 0, "sample_every": 0},
    "data": {"image_size": 16},
    "model": {
        "scan": {"name": "raster"},
        "backbone": {"name": "vmddpm", "channels": 8, "widths": [1], "layers": 1, "stem_stride": 4},
    },
    "sample": {"steps": 2, "count": 1},
}  # fmt: skip


def smooth(height: int, width: int) -> torch.Tensor:
    draw = np.random.default_rng(0).normal(size=(height, width))
    image = ndimage.gaussian_filter(draw, 2)
    return torch.from_numpy((image / abs(image).max()).astype(np.float32))[None]


@pytest.mark.parametrize("size", [(24, 24), (20, 30)])
def test_it_is_the_affine_map_that_it_says(size: tuple[int, int]) -> None:
    """Against scipy's, worked out in pixels: turned about the middle, zoomed, then moved."""
    change, image = Augmentation(rotate_deg=30, shift=0.1, zoom=0.2), smooth(*size)
    for number in range(4):
        turn, across, down, zoom = 2 * ssmdiff.stream(5, "augmentation", number).random(4) - 1
        angle, scale = np.deg2rad(30 * turn), 1 + 0.2 * zoom
        middle = (np.array(size) - 1) / 2
        # (row, column) of the source of each pixel.
        matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / scale
        moved = np.array([0.1 * down * size[0], 0.1 * across * size[1]])
        expected = ndimage.affine_transform(
            image[0].double().numpy() + 1, matrix, middle - matrix @ middle + moved, order=1,
            mode="grid-constant", cval=0,
        ) - 1  # fmt: skip
        found = change.drawn(5, number)(image)[0].numpy()
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_it_is_a_function_of_seed_and_number_alone() -> None:
    change, image = Augmentation(10, 0.1, 0.1), smooth(16, 16)
    before = torch.get_rng_state()
    first = change.drawn(0, 7)(image)
    assert torch.equal(first, change.drawn(0, 7)(image))
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first, change.drawn(0, 8)(image))
    assert not torch.equal(first, change.drawn(1, 7)(image))
    assert Augmentation().drawn(0, 7)(image) is image
    assert float(first.min()) >= -1


def test_without_it_the_images_of_a_run_are_those_that_they_were() -> None:
    """The draws of flips, timesteps and noise do not move when it is turned on."""
    data = ssmdiff.create("dataset", "phantom", image_size=(16, 16))
    plain = TrainingStream(data, 3, DiffusionDraws(100), True)
    changed = TrainingStream(data, 3, DiffusionDraws(100), True, Augmentation(rotate_deg=20))
    for number in range(6):
        a, b = plain[number], changed[number]
        assert torch.equal(a["noise"], b["noise"])
        assert torch.equal(a["timestep"], b["timestep"])
        assert not torch.equal(a["x_0"], b["x_0"])


class Declares:
    augmentation: ClassVar = {"flip": True, "rotate_deg": 10.0}


@pytest.mark.parametrize(
    ("given", "dataset", "flip", "rotate"),
    [
        ({}, object(), False, 0.0),  # a user's data: nothing unasked
        ({}, Declares(), True, 10.0),
        ({"flip": False}, Declares(), False, 10.0),
        ({"flip": True, "augment": {"rotate_deg": 0}}, Declares(), True, 0.0),
        ({"augment": {"rotate_deg": 5}}, object(), False, 5.0),
    ],
)
def test_what_is_not_given_is_what_the_data_set_declares(
    given: dict, dataset: object, flip: bool, rotate: float
) -> None:
    config = settled(ssmdiff.resolve({"data": given}), dataset)
    assert (config.data.flip, config.data.augment.rotate_deg) == (flip, rotate)
    assert config.data.augment.shift == config.data.augment.zoom == 0
    assert settled(config, dataset) == config


def test_volumes_are_not_augmented() -> None:
    config = ssmdiff.resolve({"data": {"image_size": [8, 8, 8], "augment": {"zoom": 0.1}}})
    with pytest.raises(ConfigError, match="3 axes"):
        settled(config, object())


@pytest.mark.slow
def test_a_run_records_it_and_a_resumed_one_is_the_one_never_stopped(tmp_path) -> None:
    asked = ssmdiff.merge(SMALL, {"data": {"augment": {"rotate_deg": 10.0}}})
    whole = train(ssmdiff.merge(asked, {"train": {"steps": 4}}), tmp_path / "whole")
    half = train(asked, tmp_path / "half")
    recorded = half.config().data
    assert (recorded.flip, recorded.augment.rotate_deg, recorded.augment.zoom) == (True, 10.0, 0.0)
    train({"train": {"steps": 4}}, tmp_path / "half", resume=True)
    a, b = (run.checkpoint().tensors("model") for run in (whole, half))
    assert all(torch.equal(a[key], b[key]) for key in a)
    with pytest.raises(ConfigError, match=r"data\.augment\.rotate_deg: 10\.0 -> 5\.0"):
        train({"data": {"augment": {"rotate_deg": 5.0}}}, tmp_path / "half", resume=True)
