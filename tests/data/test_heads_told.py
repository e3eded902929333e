"""What the built-in heads tell, against their pixels and the numbers that they are made of."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import ssmdiff
import torch
from ssmdiff.orders.seeds import stream
from ssmdiff_data import phantom
from ssmdiff_data.heads import Tissue, draw_head, render, tissues
from ssmdiff_data.phantom import PhantomDataset, findings_of

BIG = (256, 256)


def condition(name: str) -> ssmdiff.Condition:
    return next(one for one in PhantomDataset.conditions if one.name == name)


def test_what_is_costly_is_made_only_when_it_is_asked_for(monkeypatch) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("made without being asked for")

    dataset = PhantomDataset((32, 32), length=4)
    monkeypatch.setattr(phantom, "tissues", never)
    monkeypatch.setattr(phantom, "lowered", never)
    told = dataset[1].told
    assert list(told) == [one.name for one in dataset.conditions]
    assert "mask" in told
    assert "age" not in told
    assert told["findings"][0] == 0
    with pytest.raises(AssertionError, match="without being asked"):
        told["mask"]


def test_between_processes_it_is_a_plain_dict() -> None:
    told = PhantomDataset((32, 32))[3].told
    sent = pickle.loads(pickle.dumps(told))
    assert type(sent) is dict
    assert sent.keys() == set(told)
    assert sent["mask"].equal(told["mask"])
    assert sent["angle"] == told["angle"]


@pytest.mark.parametrize("index", range(6))
def test_size_and_angle_are_those_of_the_outline(index: int) -> None:
    dataset = PhantomDataset(BIG)
    image, _, told = dataset[index]
    rows, columns = np.nonzero(image[0].numpy() > -1)
    axis = np.linalg.eigh(np.cov(columns, rows))[1][:, -1]
    assert told["angle"] == pytest.approx(math.degrees(math.atan(-axis[0] / axis[1])), abs=1)
    along = np.stack([columns, rows], 1) @ axis
    length = (along.max() - along.min() + 1) / 256
    assert told["size"] == pytest.approx(length, abs=0.02)
    mirrored = np.linalg.eigh(np.cov(-columns, rows))[1][:, -1]
    assert math.atan(-mirrored[0] / mirrored[1]) == pytest.approx(
        -math.radians(told["angle"]), abs=math.radians(1)
    )  # hence moved_by flip


def test_numbers_reach_over_their_ranges_and_never_beyond() -> None:
    dataset = PhantomDataset((8, 8), length=600)
    for name in ("size", "angle"):
        one = condition(name)
        values = [dataset[i].told[name] for i in range(300)]
        assert one.low <= min(values) < one.low + 0.03 * (one.high - one.low)
        assert one.high - 0.03 * (one.high - one.low) < max(values) <= one.high


@pytest.mark.parametrize("index", range(1, 9))
def test_a_mask_lies_where_the_picture_says(index: int) -> None:
    head = draw_head(stream(0, "phantom", index), lesion=True)
    flat = head._replace(bias=(0.0, 0.0, 0.0))
    image, mask = (render(flat, BIG) + 1) / 2, tissues(head, BIG)
    assert set(np.unique(mask)) == set(Tissue)
    outside = mask == Tissue.OUTSIDE
    assert (image[outside] < head.scalp[1] / 2 + 0.01).all()
    assert outside.mean() == pytest.approx((image == 0).mean(), abs=0.01)
    # Inside of each tissue, away from its edges, the picture has the grey that was drawn.
    kernel = torch.ones(1, 1, 5, 5)

    def inner(tissue: Tissue) -> np.ndarray:
        there = torch.from_numpy((mask == tissue).astype(np.float32))[None, None]
        return (torch.nn.functional.conv2d(there, kernel, padding=2) == 25)[0, 0].numpy()

    greys = {
        Tissue.SCALP: [head.scalp[1]],
        Tissue.FLUID: [head.fluid[1]],
        Tissue.WHITE_MATTER: [head.white],
        Tissue.GREY_MATTER: [head.grey, head.grey + 0.04],
    }
    for tissue, known in greys.items():
        found = image[inner(tissue)]
        assert len(found) > 20, tissue
        off = np.min([np.abs(found - grey) for grey in known], axis=0)
        assert np.median(off) < 0.02, tissue
    changed = np.abs(render(flat, BIG) - render(flat._replace(lesion=None), BIG)) > 0.01
    assert (changed[mask == Tissue.LESION]).mean() > 0.9
    without = tissues(head._replace(lesion=None), BIG)
    assert (without != Tissue.LESION).all()
    assert (without[mask != Tissue.LESION] == mask[mask != Tissue.LESION]).all()


def test_the_same_mask_at_every_size() -> None:
    for index in range(4):
        head = draw_head(stream(0, "phantom", index), lesion=index % 2 == 1)
        small, large = tissues(head, (64, 64)), tissues(head, BIG)
        assert (small == large[2::4, 2::4]).mean() > 0.85


def test_findings_are_what_was_drawn_and_do_not_hang_together() -> None:
    dataset = PhantomDataset((8, 8), length=500)
    bits = np.zeros((500, len(phantom.FINDINGS)))
    for i in range(500):
        item = dataset[i]
        bits[i, list(item.told["findings"])] = 1
        assert (0 in item.told["findings"]) == (item.label == 1)
    assert (abs(bits.mean(0) - 0.5) < 0.08).all()
    assert (abs(np.corrcoef(bits.T)) - np.eye(bits.shape[1]) < 0.12).all()
    head = draw_head(stream(0, "phantom", 0), lesion=False)
    narrow = head._replace(half_width=0.7, ventricle=(0.05, 0.2))
    assert findings_of(narrow) == (2,)
    assert findings_of(narrow._replace(half_width=0.8, ventricle=(0.1, 0.35))) == (1,)


@pytest.mark.parametrize("size", [(32, 32), (17, 33)])
def test_low_is_the_picture_without_what_is_fine(size: tuple[int, int]) -> None:
    image, _, told = PhantomDataset(size)[3]
    low = told["low"]
    assert low.shape == image.shape
    assert low.dtype == torch.float32
    assert low.abs().max() <= 1
    if size == (32, 32):
        means = image[0].numpy().reshape(8, 4, 8, 4).mean((1, 3))
        again = low[0].numpy().reshape(8, 4, 8, 4).mean((1, 3))
        assert np.corrcoef(means.ravel(), again.ravel())[0, 1] > 0.98
        waves = [np.abs(np.fft.fft2(x[0].numpy())) ** 2 for x in (image, low)]
        fine = np.maximum(*np.abs(np.meshgrid(*[np.fft.fftfreq(32)] * 2))) > 1 / 6
        assert waves[1][fine].sum() < 0.05 * waves[0][fine].sum()


def test_what_is_told_with_the_class_is_as_lazy(monkeypatch) -> None:
    dataset = PhantomDataset((32, 32))
    monkeypatch.setattr(phantom, "tissues", None)
    told = ssmdiff.told_of(dataset, dataset[1])
    assert told["label"] == 1
    assert "mask" in told
    assert told.get("age") is None
    assert told["angle"] == dataset[1].told["angle"]
