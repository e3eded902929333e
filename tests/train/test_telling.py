"""What a run tells its model of each image: moved as the image is, left out as often as it says."""

from __future__ import annotations

import pickle
from typing import Any, ClassVar

import numpy as np
import pytest
import ssmdiff
import torch
from ssmdiff import Condition, Conditions, ConfigError, DataError, ImageItem
from ssmdiff.runs.datasets import told_by
from ssmdiff.runs.diffusion_method import DiffusionDraws
from ssmdiff_train.augment import Augmentation, left_out, settled
from ssmdiff_train.job import train
from ssmdiff_train.stream import TrainingStream, Unread
from ssmdiff_train.telling import Telling

SIZE = (24, 24)
ANGLE = Condition("angle", "number", low=0.0, high=9.0, moved_by=("flip", "rotate_deg"))
MASK = Condition("mask", "mask", ("out", "in"))
SAME = Condition("same", "image")


class Blobs:
    """Image i is a disc off the middle, with its mask, itself once more, and its number."""

    channels = 1
    class_names = ("even", "odd")
    conditions = (ANGLE, MASK, SAME)
    augmentation: ClassVar = {"flip": True, "rotate_deg": 10.0, "shift": 0.1}

    def __init__(self, size: tuple[int, int] = SIZE, **wrong: Any) -> None:
        self.size, self.wrong = size, wrong

    def __len__(self) -> int:
        return 10

    def __getitem__(self, i: int) -> ImageItem:
        y, x = np.indices(self.size)
        inside = (y - 8 - i / 3) ** 2 + (x - 6) ** 2 < 30
        image = torch.from_numpy(np.where(inside, 1, -1).astype(np.float32))[None]
        told = {"angle": float(i), "mask": inside.astype(np.uint8), "same": image}
        return ImageItem(image, i % 2, {**told, **self.wrong})

    def fingerprint(self) -> str:
        return "blobs"


def stream_of(names: list[str], dropout: float = 0.0, data: Any = None, **change: Any) -> Any:
    data = data or Blobs()
    told = ssmdiff.conditions_of(data).chosen(names, optional=dropout > 0)
    shape = Augmentation(**{k: v for k, v in change.items() if k != "flip"})
    draws = DiffusionDraws(100)
    return TrainingStream(data, 3, draws, change.get("flip", False), shape, Telling(told, dropout))


def test_masks_and_images_go_where_the_image_goes() -> None:
    moved = stream_of(["mask", "same"], flip=True, rotate_deg=25.0, shift=0.1, zoom=0.2)
    mirrored = set()
    for i in range(20):
        batch = moved[i]
        assert "told_context" not in batch
        outside, inside, same = batch["told_place"]
        assert torch.equal(same, batch["x_0"][0])
        assert torch.equal(outside + inside, torch.ones(SIZE))
        agree = ((batch["x_0"][0] > 0) == (inside > 0.5)).float().mean()
        assert agree > 0.97, "the nearest pixel and the bilinear one differ at the edge alone"
        mirrored.add(bool(inside[:, 12:].sum() > inside[:, :12].sum()))
    assert mirrored == {False, True}


def test_what_is_told_moves_no_other_draw_and_is_a_function_of_seed_and_number() -> None:
    change = {"flip": True, "rotate_deg": 5.0}
    untold = TrainingStream(Blobs(), 3, DiffusionDraws(100), True, Augmentation(rotate_deg=5.0))
    told = stream_of(["label", "angle", "mask"], 0.5, **change)
    sent = pickle.loads(pickle.dumps(told))
    for i in (7, 0, 31):
        a, b, again = untold[i], told[i], sent[i]
        for name in a:
            assert torch.equal(a[name], b[name])
        assert set(b) - set(a) == {"told_context", "told_place"}
        for name in b:
            assert torch.equal(b[name], again[name])


def test_it_is_left_out_as_often_as_it_says() -> None:
    """All at once with probability p, and each alone as often: p + (1 - p) p of the images."""
    p, count = 0.3, 500
    images = stream_of(["label", "angle", "mask"], p, Blobs((4, 4)))
    gone = []
    for i in range(count):
        context, place = images[i]["told_context"], images[i]["told_place"]
        assert context[:3].sum() == 1
        gone.append([context[2] == 1, context[12] == 1, not place.any()])
    found = np.array(gone, dtype=float)
    each, all_three = p + (1 - p) * p, p + (1 - p) * p**3
    for share, expected in [*((s, each) for s in found.mean(0)), (found.all(1).mean(), all_three)]:
        assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / count)
    alone = stream_of(["label"], p, Blobs((4, 4)))
    share = np.mean([float(alone[i]["told_context"][2]) for i in range(count)])
    assert abs(share - p) < 4 * np.sqrt(p * (1 - p) / count), "one alone is not left out twice"


def test_without_dropout_all_is_told() -> None:
    images = stream_of(["label", "angle"])
    seen = set()
    for i in range(10):
        context = images[i]["told_context"]
        assert context.shape == (2 + 9,)
        angle = round(float(context[2] + 1) * 4.5)
        assert context[:2].tolist() == [1 - angle % 2, angle % 2]
        seen.add(angle)
    assert seen == set(range(10))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"mask": np.zeros((3, 3), np.uint8)}, "mask mask is 3 x 3; expected 24 x 24"),
        ({"mask": np.full(SIZE, 2)}, "mask holds the number 2, which the model never saw"),
        ({"angle": 10.5}, "angle is 10.5; expected 0 to 9"),
        ({"angle": None}, "angle is missing, and the model needs it"),
    ],
)
def test_what_a_data_set_tells_wrongly_is_said_of_the_image(wrong: Any, said: str) -> None:
    found = stream_of(["angle", "mask"], data=Blobs(**wrong))[4]
    assert isinstance(found, Unread)
    assert isinstance(found.error, DataError)
    assert said in str(found.error)


def config(**data: Any) -> Any:
    return ssmdiff.resolve({"data": data, "model": {"conditions": ["angle", "mask"]}})


def test_what_would_make_it_untrue_is_left_out_or_refused() -> None:
    found = settled(config(), Blobs())
    assert found.data.flip is False
    assert found.data.augment.rotate_deg == 0
    assert found.data.augment.shift == 0.1, "an angle stays as it is"
    sentences = left_out(found, Blobs())
    assert [s.split(",")[0] for s in sentences] == ["left out: flip", "left out: rotate_deg"]
    assert settled(found, Blobs()) == found
    turned: Any = {"augment": {"rotate_deg": 5.0}}
    for given, name in (
        ({"flip": True}, "data.flip = true"),
        (turned, r"data\.augment\.rotate_deg = 5.0"),
    ):
        with pytest.raises(ConfigError, match=f"{name} would make untrue .* as 'angle'"):
            settled(config(**given), Blobs())
    untold = settled(ssmdiff.resolve({}), Blobs())
    assert (untold.data.flip, untold.data.augment.rotate_deg) == (True, 10.0)


@pytest.mark.slow
def test_a_run_does_not_go_on_when_other_names_are_told(tiny, tmp_path, monkeypatch) -> None:
    config = tiny(train={"steps": 1, "bound_images": 0}, model={"conditions": ["label"]})
    train(config, tmp_path / "run")
    monkeypatch.setattr("ssmdiff_data.phantom.PhantomDataset.class_names", ("healthy", "sick"))
    longer = tiny(train={"steps": 2, "bound_images": 0}, model={"conditions": ["label"]})
    with pytest.raises(ConfigError, match=r"'lesion'.* now; expected the same names"):
        train(longer, tmp_path / "run", resume=True)


def test_what_a_model_is_told_by_its_configuration() -> None:
    def told(**model: Any) -> Conditions:
        given = {"model": model, "train": {"condition_dropout": model.pop("dropout", 0.1)}}
        return ssmdiff.told_conditions(ssmdiff.resolve(given), Blobs())

    assert told() == Conditions()
    assert told(class_conditional=True).record() == [
        {"name": "label", "kind": "label", "names": ("even", "odd")}
    ]
    assert [one.optional for one in told(conditions=["mask", "label"])] == [True, True]
    assert [one.optional for one in told(conditions=["mask"], dropout=0.0)] == [False]
    assert told(conditions=["label"], class_conditional=True).names == ["label"]
    with pytest.raises(ConfigError, match=r"model.conditions: .* 'maks'; did you mean 'mask'\?"):
        told(conditions=["maks"])
    with pytest.raises(ConfigError, match=r"model\.conditions have no 'label'"):
        told(conditions=["mask"], class_conditional=True)
    assert Telling.of(ssmdiff.resolve({"model": {"class_conditional": True}}), Blobs()).dropout == 0


def test_masks_for_samples_are_those_of_every_image_once() -> None:
    """Their beginning is spread over the data set, and they end."""
    values = told_by(Blobs(), ssmdiff.conditions_of(Blobs()))
    assert list(values) == ["mask", "same"], "what has a place in the image"
    masks = [mask.tobytes() for mask in values["mask"]]
    assert sorted(masks) == sorted(Blobs()[i].told["mask"].tobytes() for i in range(10))
    assert masks[:2] == [Blobs()[i].told["mask"].tobytes() for i in (0, values["mask"].stride)]
