"""PNG files that the core writes by itself, read by Pillow."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from ssmdiff.errors import ConfigError
from ssmdiff.runs.pictures import to_png, to_uint8, write_grid, write_image


@given(
    st.integers(1, 20), st.integers(1, 20), st.sampled_from([(), (3,)]), st.integers(0, 2**32 - 1)
)
def test_pillow_reads_the_levels_that_were_written(height, width, channels, seed) -> None:
    shape = (height, width, *channels)
    levels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    with Image.open(io.BytesIO(to_png(levels))) as image:
        assert image.mode == ("RGB" if channels else "L")
        image.verify()
    with Image.open(io.BytesIO(to_png(levels))) as image:
        np.testing.assert_array_equal(np.asarray(image), levels)


def test_an_image_is_rounded_to_the_nearest_level(tmp_path) -> None:
    image = torch.tensor([[[-1.0, -0.999, 0.0, 0.5, 1.0, 1.5]]])
    write_image(tmp_path / "a.png", image)
    with Image.open(tmp_path / "a.png") as read:
        assert np.asarray(read).tolist() == [[0, 0, 128, 191, 255, 255]]


def test_a_grid_holds_every_image_in_its_place(tmp_path) -> None:
    images = torch.linspace(-1, 1, 5).reshape(5, 1, 1, 1).expand(5, 1, 96, 96)
    write_grid(tmp_path / "grid.png", images)
    with Image.open(tmp_path / "grid.png") as read:
        sheet = np.asarray(read)
    assert sheet.shape == (2 * 98 + 2, 3 * 98 + 2)
    shown = [sheet[2 + 98 * (i // 3), 2 + 98 * (i % 3)] for i in range(6)]
    assert shown == [0, 64, 128, 191, 255, 0]


def test_two_channels_are_no_picture() -> None:
    with pytest.raises(ConfigError, match=r"got \(2, 4, 4\); write .npy instead"):
        to_uint8(torch.zeros(2, 4, 4))
