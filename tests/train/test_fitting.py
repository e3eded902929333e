"""Weights for other channels and other classes: by what the networks answer, and by names."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from other_runs import begun, written
from ssmdiff import Condition, Conditions, load_run, order_tensors
from ssmdiff_train.fitting import Row, for_channels, for_rows, in_words
from torch import nn

NETWORKS = {
    "vmddpm": {"name": "vmddpm", "channels": 8, "widths": [1, 2], "layers": 1, "stem_stride": 2},
    "vmunet": {"name": "vmunet", "channels": 8, "widths": [1], "layers": 1, "stem_stride": 2},
    "isotropic": {"name": "isotropic", "channels": 16, "depth": 2, "patch": 2},
    "unet": {"name": "unet", "channels": 8, "widths": [1, 1], "layers": 1, "attention": []},
}
SLOW = pytest.mark.slow
OLD = ("healthy", "lesion", "other")


def answer(method, x, label=None):
    """Of a network in evaluation mode, at one step's orders."""
    network = method.networks[method.drawing].eval()
    orders = order_tensors(method.plan.draw(0), torch.device("cpu"))
    context = None if label is None else torch.full((len(x),), label)
    with torch.no_grad():
        return network(x=x, timesteps=torch.tensor(40), context=context, orders=orders)


def model(tiny, name="vmddpm", **changes):
    """A configuration of one of the networks."""
    return tiny(model={"backbone": NETWORKS[name], **changes.pop("model", {})}, **changes)


@pytest.mark.parametrize(
    "name", ["vmddpm", *(pytest.param(n, marks=SLOW) for n in NETWORKS if n != "vmddpm")]
)
@pytest.mark.parametrize(
    ("old", "new"), [(1, 3), pytest.param(3, 1, marks=SLOW), pytest.param(3, 4, marks=SLOW)]
)
def test_equal_channels_get_the_answer_that_they_had(tiny, tmp_path, name, old, new):
    """In all channels; of one channel instead of three, the mean of the three answers."""
    written(tmp_path / "old", model(tiny, name), channels=old)
    config = model(tiny, name, train={"init_from": str(tmp_path / "old")})
    method, found = begun(config, tmp_path / "new", channels=new)
    grey = torch.randn(2, 1, 16, 16)
    before = load_run(tmp_path / "old")
    expected = answer(before.method, grey.expand(-1, old, -1, -1)).mean(1, keepdim=True)
    got = answer(method, grey.expand(-1, new, -1, -1))
    assert expected.std() > 0.01, "a network that answers something"
    torch.testing.assert_close(got, expected.expand(-1, new, -1, -1), rtol=1e-4, atol=1e-5)
    assert set(found.record["mapped"].values()) == {f"{old} -> {new} channels"}
    assert len(found.record["mapped"]) == 3, "a weight that reads, a weight and a bias that give"


def test_classes_go_by_name_in_another_order_added_and_left_out(tiny, tmp_path):
    config = model(tiny, model={"class_conditional": True})
    tensors = written(tmp_path / "old", config, classes=OLD)["ema"]
    new = ("lesion", "tumour", "healthy")
    config = model(
        tiny,
        model={"class_conditional": True},
        train={"init_from": str(tmp_path / "old")},
    )
    method, found = begun(config, tmp_path / "new", classes=new)
    before, x = load_run(tmp_path / "old"), torch.randn(2, 1, 16, 16)
    for name in ("lesion", "healthy"):
        expected = answer(before.method, x, OLD.index(name))
        assert torch.equal(answer(method, x, new.index(name)), expected), name
    rows, old = method.model.embedding.label.weight, tensors["embedding.label.weight"]
    assert torch.equal(rows[0], old[1])
    assert torch.equal(rows[2], old[0])
    torch.testing.assert_close(rows[1].detach(), old.mean(0))
    (how,) = found.record["mapped"].values()
    assert how == (
        "label: kept by name lesion, healthy / new, the mean of the old tumour / left out other"
    )
    assert "new" not in found.record


@pytest.mark.slow
@pytest.mark.parametrize("new", [OLD[:2], (*OLD, "d"), OLD[::-1], ("x", "y", "z")])
@pytest.mark.parametrize("name", ["isotropic", "unet"])
def test_classes_of_any_backbone(tiny, tmp_path, name, new):
    """Fewer, more, as many in another order, as many others: found by shape, mapped by name."""
    conditional = {"class_conditional": True}
    written(tmp_path / "old", model(tiny, name, model=conditional), classes=OLD)
    config = model(tiny, name, model=conditional, train={"init_from": str(tmp_path / "old")})
    method, _ = begun(config, tmp_path / "new", classes=new)
    before, x = load_run(tmp_path / "old"), torch.randn(1, 1, 16, 16)
    for label in set(new) & set(OLD):
        expected = answer(before.method, x, OLD.index(label))
        assert torch.equal(answer(method, x, new.index(label)), expected), label


def test_without_classes_to_classes_answers_as_before_whatever_the_class(tiny, tmp_path):
    written(tmp_path / "old", model(tiny))
    config = model(
        tiny, model={"class_conditional": True}, train={"init_from": str(tmp_path / "old")}
    )
    method, found = begun(config, tmp_path / "new", classes=("a", "b"))
    x = torch.randn(2, 1, 16, 16)
    expected = answer(load_run(tmp_path / "old").method, x)
    for label in (0, 1):
        assert torch.equal(answer(method, x, label), expected)
    assert found.record["new"] == ["embedding.label.weight"]
    assert any("new, at zero" in line and "embedding.label.weight" in line for line in found.lines)


@pytest.mark.slow
def test_with_classes_to_none_says_what_is_left_out(tiny, tmp_path):
    config = model(tiny, model={"class_conditional": True})
    tensors = written(tmp_path / "old", config, classes=("a", "b"))["ema"]
    method, found = begun(model(tiny, train={"init_from": str(tmp_path / "old")}), tmp_path / "new")
    assert found.record["left_out"] == ["embedding.label.weight"]
    own = method.model.state_dict()
    assert own.keys() == tensors.keys() - {"embedding.label.weight"}
    assert all(torch.equal(value, tensors[name]) for name, value in own.items())
    assert "  left out: embedding.label.weight" in found.lines


@pytest.mark.slow
def test_channels_and_classes_at_once(tiny, tmp_path):
    conditional = {"class_conditional": True}
    written(tmp_path / "old", model(tiny, model=conditional), channels=3, classes=OLD)
    config = model(tiny, model=conditional, train={"init_from": str(tmp_path / "old")})
    method, found = begun(config, tmp_path / "new", channels=1, classes=("other",))
    grey = torch.randn(2, 1, 16, 16)
    expected = answer(load_run(tmp_path / "old").method, grey.expand(-1, 3, -1, -1), 2)
    got = answer(method, grey, 0)
    torch.testing.assert_close(got, expected.mean(1, keepdim=True), rtol=1e-4, atol=1e-5)
    assert found.record["taken"]["tensors"] + len(found.record["mapped"]) == len(
        method.model.state_dict()
    )


def told(method, conditions, x, **values):
    """The answer to images that are told this; what is missing is left out."""
    arrays = conditions.encoded([values] * len(x), tuple(x.shape[2:]))
    network = method.networks[method.drawing].eval()
    orders = order_tensors(method.plan.draw(0), torch.device("cpu"))
    with torch.no_grad():
        t = torch.full((len(x),), 40)
        return method.denoiser(network)(x, t, orders, *map(torch.from_numpy, arrays))


LABEL = Condition("label", "label", OLD)
AGE = Condition("age", "number", low=0, high=80, unit="years")
TISSUE = Condition("tissue", "mask", ("air", "bone", "brain"))
OTHER = Condition("t2", "image")
MASK = np.arange(256).reshape(16, 16) % 3
PICTURE = np.linspace(-1, 1, 256, dtype=np.float32).reshape(1, 16, 16)
EVERYTHING = {"label": "other", "age": 70, "tissue": MASK, "t2": PICTURE}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ([LABEL], [AGE, LABEL, TISSUE]),
        pytest.param([], [AGE, OTHER], marks=SLOW),
        pytest.param([TISSUE], [OTHER, TISSUE, AGE], marks=SLOW),
        pytest.param([AGE, TISSUE, LABEL], [LABEL, OTHER, TISSUE, AGE], marks=SLOW),
    ],
)
@pytest.mark.parametrize(
    "name", ["vmddpm", pytest.param("isotropic", marks=SLOW), pytest.param("unet", marks=SLOW)]
)
def test_conditions_that_are_new_change_no_answer_and_the_others_keep_theirs(
    tiny, tmp_path, name, old, new
):
    """In any order, whatever they are told."""
    before, now = Conditions(old), Conditions(new)
    written(tmp_path / "old", model(tiny, name), conditions=before)
    config = model(tiny, name, train={"init_from": str(tmp_path / "old")})
    method, found = begun(config, tmp_path / "new", conditions=now)
    x, run = torch.randn(2, 1, 16, 16), load_run(tmp_path / "old")
    for label, age in (("lesion", 3), ("other", 77)):
        values = {**EVERYTHING, "label": label, "age": age}
        expected = told(run.method, before, x, **{c.name: values[c.name] for c in old})
        got = told(method, now, x, **{c.name: values[c.name] for c in new})
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert not found.record.keys() & {"left_out"}
    said = " ".join([*found.record["mapped"].values(), *found.record.get("new", [])])
    for one in set(now.names) - set(before.names):
        assert f"{one} new, at zero" in said or found.record["new"], said


@pytest.mark.slow
def test_conditions_that_may_be_left_out_from_now_on(tiny, tmp_path):
    """Left out, a class has the mean of the classes; what was told is answered as before."""
    before = Conditions([LABEL, AGE, TISSUE, OTHER])
    now = before.chosen(["t2", "tissue", "age", "label"], optional=True)
    tensors = written(tmp_path / "old", model(tiny), conditions=before)["ema"]
    config = model(tiny, train={"init_from": str(tmp_path / "old")})
    method, found = begun(config, tmp_path / "new", conditions=now)
    x = torch.randn(2, 1, 16, 16)
    expected = told(load_run(tmp_path / "old").method, before, x, **EVERYTHING)
    got = told(method, now, x, **EVERYTHING)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    rows = method.model.embedding.label.weight.detach()  # age 9 + 1, label 3 + 1
    assert torch.equal(rows[9], torch.zeros_like(rows[9]))
    torch.testing.assert_close(rows[13], tensors["embedding.label.weight"][:3].mean(0))
    assert "t2: kept by name image 0 / new, at zero image 1" in str(found.record["mapped"])


@pytest.mark.slow
def test_conditions_that_are_no_more_are_left_out_and_said_to_be(tiny, tmp_path):
    before, now = Conditions([LABEL, TISSUE, OTHER, AGE]), Conditions([OTHER])
    tensors = written(tmp_path / "old", model(tiny), channels=3, conditions=before)["ema"]
    config = model(tiny, train={"init_from": str(tmp_path / "old")})
    method, found = begun(config, tmp_path / "new", channels=3, conditions=now)
    stem = tensors["stem.weight"]
    assert torch.equal(method.model.stem.weight, stem[:, [0, 1, 2, 6]])
    assert found.record["left_out"] == ["embedding.label.weight"]
    assert found.record["mapped"]["stem.weight"] == "t2 kept; tissue left out"


@pytest.mark.slow
def test_channels_and_planes_at_once(tiny, tmp_path):
    before, now = Conditions([TISSUE]), Conditions([OTHER, TISSUE])
    written(tmp_path / "old", model(tiny), conditions=before)
    config = model(tiny, train={"init_from": str(tmp_path / "old")})
    method, found = begun(config, tmp_path / "new", channels=3, conditions=now)
    grey = torch.randn(2, 1, 16, 16)
    expected = told(load_run(tmp_path / "old").method, before, grey, tissue=MASK)
    got = told(method, now, grey.expand(-1, 3, -1, -1), tissue=MASK, t2=PICTURE)
    torch.testing.assert_close(got, expected.expand(-1, 3, -1, -1), rtol=1e-4, atol=1e-5)
    how = found.record["mapped"]["stem.weight"]
    assert how == "1 -> 3 channels; t2 new, at zero; tissue kept"


def test_another_range_of_a_number_is_told(tiny, tmp_path):
    written(tmp_path / "old", model(tiny), conditions=Conditions([AGE]))
    config = model(tiny, train={"init_from": str(tmp_path / "old")})
    older = Conditions([dataclasses.replace(AGE, low=20)])
    _, found = begun(config, tmp_path / "new", conditions=older)
    assert found.record["differs"] == ["range of age: '0 to 80 years' -> '20 to 80 years'"]


# The rules by themselves


def rows(words, *more):
    """Of a label's classes, and others after them."""
    return [*(Row("label", word, True) for word in words), *(Row("label", w, False) for w in more)]


def test_rows_go_by_name():
    """A row of no class, such as that of a class that is not told, goes by its name too."""
    values = torch.arange(8.0).reshape(4, 2)  # a, b, c, not told
    old = rows("abc", "not")
    found = for_rows(values, 0, old, rows("cxa", "not"))
    assert found.tolist() == [[4, 5], [2, 3], [0, 1], [6, 7]]
    assert for_rows(values, 0, old, rows("b")).tolist() == [[2, 3]]
    assert for_rows(values, 0, old, []).shape == (0, 2)
    first = for_rows(values[:3], 0, rows("abc"), rows("ab", "not"))
    assert first.tolist() == [[0, 1], [2, 3], [2, 3]]
    columns = for_rows(values.T.contiguous(), 1, old, rows("ca", "not"))
    assert columns.tolist() == [[4, 0, 6], [5, 1, 7]]
    other = [Row("age", "number 0", False)]
    assert for_rows(values, 0, old, [*other, *rows("a")]).tolist() == [[0, 0], [0, 1]]
    assert in_words(old, [*other, *rows("xa")]) == (
        "age new, at zero; label: kept by name a / new, the mean of the old x / left out b, c, not"
    )


def test_pixels_of_a_channel_stay_together():
    """Where a weight gives several pixels of each channel, as pixel_shuffle takes them."""
    values = torch.arange(4.0)[:, None]  # one channel of 2 x 2 pixels
    three = for_channels(values, 0, 1, 3, reads=False)
    assert three[:, 0].tolist() == [0, 1, 2, 3] * 3
    assert torch.equal(for_channels(three, 0, 3, 1, reads=False), values)
    linear = nn.functional.linear(torch.ones(3), for_channels(torch.ones(2, 1), 1, 1, 3, True))
    torch.testing.assert_close(linear, torch.ones(2))
