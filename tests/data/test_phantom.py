"""The built-in heads, against what is known of them: outline, axis, lesion, purity."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import ssmdiff
from ssmdiff.errors import ConfigError
from ssmdiff.orders.seeds import stream
from ssmdiff_data.heads import Head, draw_head, render
from ssmdiff_data.phantom import PhantomDataset
from torch.utils.data import DataLoader

SIZES = [(32, 32), (64, 64), (17, 33), (80, 24), (4, 4)]


def head(index: int, *, lesion: bool = False) -> Head:
    return draw_head(stream(0, "phantom", index), lesion=lesion)


def pixels(size: tuple[int, int], index: int, **options: int) -> np.ndarray:
    return PhantomDataset(size, **options)[index].image[0].numpy()


@pytest.mark.parametrize("size", SIZES)
def test_images_have_the_size_and_range_of_the_interface(size: tuple[int, int]) -> None:
    dataset = ssmdiff.create("dataset", "phantom", image_size=size, length=6)
    assert len(dataset) == 6
    for index in range(6):
        image, label, _ = dataset[index]
        assert image.shape == (dataset.channels, *size)
        assert str(image.dtype) == "torch.float32"
        assert image.min() >= -1
        assert image.max() <= 1
        assert dataset.class_names[label] == ("healthy", "lesion")[index % 2]


def test_an_image_is_a_pure_function_of_seed_and_index() -> None:
    dataset = PhantomDataset((32, 32), length=10)
    backwards = [dataset[i].image for i in reversed(range(10))][::-1]
    np.random.seed(1)
    for i in range(10):
        assert dataset[i].image.equal(backwards[i])
        assert pixels((32, 32), i, length=99).tobytes() == backwards[i].numpy().tobytes()
        assert pixels((32, 32), i, seed=1).tobytes() != backwards[i].numpy().tobytes()


def test_loader_workers_see_the_same_images() -> None:
    dataset = PhantomDataset((16, 16), length=6)
    loaded = [batch.image for batch in DataLoader(dataset, batch_size=None, num_workers=2)]
    assert all(a.equal(dataset[i].image) for i, a in enumerate(loaded))
    assert pickle.loads(pickle.dumps(dataset))[3].image.equal(dataset[3].image)


@pytest.mark.parametrize("index", range(8))
def test_every_size_shows_the_same_head(index: int) -> None:
    small = pixels((32, 32), index)
    averaged = pixels((128, 128), index).reshape(32, 4, 32, 4).mean((1, 3))
    assert np.corrcoef(small.ravel(), averaged.ravel())[0, 1] > 0.97
    assert abs(small.mean() - averaged.mean()) < 0.01


@pytest.mark.parametrize("index", range(8))
def test_outline_has_the_area_and_the_axis_that_were_drawn(index: int) -> None:
    drawn = head(index)._replace(shift=(0.1, -0.05), angle=math.radians(10 + index))
    image = render(drawn, (256, 256))
    rows, columns = np.nonzero(image > -1)
    # An egg's width varies about its mean, so its area is the ellipse's to second order.
    area = len(rows) / 128**2
    assert area == pytest.approx(math.pi * drawn.half_width * 0.92 * drawn.scale**2, rel=0.03)
    axis = np.linalg.eigh(np.cov(columns, rows))[1][:, -1]  # (x, y), the long axis
    clockwise = math.degrees(math.atan(-axis[0] / axis[1]))
    assert clockwise == pytest.approx(10 + index, abs=1)
    assert columns.mean() / 128 - 1 == pytest.approx(0.1, abs=0.07)


def test_heads_stay_inside_the_picture() -> None:
    for index in range(200):
        image = pixels((48, 48), index)
        border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        assert (border == -1).all(), index


def test_edges_are_anti_aliased() -> None:
    image = render(head(0)._replace(bias=(0.0, 0.0, 0.0)), (64, 64))
    scalp = 2 * head(0).scalp[1] - 1
    crossing = [row[row > -1][0] for row in image[20:44]]  # first pixel of the head, row by row
    between = [value for value in crossing if -0.999 < value < scalp - 0.001]
    assert len(between) > len(crossing) / 2
    assert len({round(float(value), 3) for value in between}) > 5


@pytest.mark.parametrize("size", [(32, 32), (96, 96)])
def test_a_lesion_shows_where_it_was_drawn(size: tuple[int, int]) -> None:
    for index in range(1, 80, 2):
        ill = head(index, lesion=True)
        change = np.abs(render(ill, size) - render(ill._replace(lesion=None), size))
        lesion = ill.lesion
        assert lesion is not None
        assert change.max() > 0.2, index
        area = (change > 0.02).mean() * 4 / ill.scale**2
        assert area < 2 * math.pi * lesion.half_u * lesion.half_v
        assert (change > 0.1).sum() >= 4


def test_healthy_heads_have_no_lesion_and_classes_are_balanced() -> None:
    dataset = PhantomDataset((8, 8), length=100)
    assert sum(dataset[i].label for i in range(100)) == 50
    assert head(0).lesion is None


def test_heads_differ() -> None:
    flat = np.stack([pixels((32, 32), i).ravel() for i in range(40)])
    alike = np.corrcoef(flat)
    np.fill_diagonal(alike, 0)
    assert alike.max() < 0.97
    assert flat.std(axis=0).max() > 0.3


def test_fingerprint_tells_options_apart_and_nothing_else() -> None:
    options = [{}, {"length": 7}, {"seed": 1}]
    digests = {PhantomDataset((32, 32), **o).fingerprint() for o in options}
    digests.add(PhantomDataset((32, 48)).fingerprint())
    assert len(digests) == 4
    assert PhantomDataset((32, 32)).fingerprint() in digests


@pytest.mark.parametrize("size", [(32, 32, 32), (32,), (3, 32), (32, 0)])
def test_sizes_that_cannot_be_drawn_are_refused(size: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"expected\s+\(height, width\), each at least 4"):
        PhantomDataset(size)


@pytest.mark.parametrize("options", [{"length": 0}, {"seed": -1}, {"lenght": 5}])
def test_bad_options_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        ssmdiff.create("dataset", "phantom", image_size=(32, 32), **options)


@pytest.mark.parametrize("index", [-1, 5])
def test_an_index_out_of_range_is_an_index_error(index: int) -> None:
    with pytest.raises(IndexError, match="of 5 phantoms"):
        PhantomDataset((8, 8), length=5)[index]
