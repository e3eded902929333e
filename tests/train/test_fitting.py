"""Weights for other channels and other classes: by what the networks answer, and by names."""

from __future__ import annotations

import pytest
import torch
from other_runs import begun, written
from ssmdiff import load_run, order_tensors
from ssmdiff_train import init_from
from ssmdiff_train.fitting import for_channels, for_rows, in_words, rows_of
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
        "classes kept by name: lesion, healthy; new, the mean of the old: tumour; left out: other"
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


@pytest.mark.slow
def test_a_row_besides_the_classes_is_found_by_its_shape(tiny, tmp_path, monkeypatch):
    """A network that has a row more, for images of no class: the same classes, another shape."""
    from ssmdiff.nn import ImageBackbone

    plain = ImageBackbone.__init__

    def with_one_more(self, in_channels, scan, num_classes, channels, time_channels):
        more = num_classes + 1 if num_classes else 0
        plain(self, in_channels, scan, more, channels, time_channels)

    conditional = {"class_conditional": True}
    tensors = written(tmp_path / "old", model(tiny, model=conditional), classes=OLD)["ema"]
    config = model(tiny, model=conditional, train={"init_from": str(tmp_path / "old")})
    old = tensors["embedding.label.weight"]
    loaded = init_from.load_run

    def as_it_was(*arguments):
        monkeypatch.undo()
        run = loaded(*arguments)
        monkeypatch.setattr(ImageBackbone, "__init__", with_one_more)
        return run

    for new in (OLD, OLD[::-1], OLD[:2]):
        monkeypatch.setattr(ImageBackbone, "__init__", with_one_more)
        monkeypatch.setattr(init_from, "load_run", as_it_was)
        method, found = begun(config, tmp_path / "new", classes=new)
        monkeypatch.undo()
        rows = method.model.embedding.label.weight.detach()
        torch.testing.assert_close(rows[:-1], torch.stack([old[OLD.index(c)] for c in new]))
        torch.testing.assert_close(rows[-1], old.mean(0))
        (how,) = found.record["mapped"].values()
        assert "new, the mean of the old: of none" in how


# The rules by themselves


def test_rows_go_by_name_and_those_besides_by_their_place():
    """A row after the classes, such as that of no class being told, stays what it is."""
    values = torch.arange(8.0).reshape(4, 2)  # a, b, c, not told
    old = rows_of("abc", 1)
    assert for_rows(values, 0, old, rows_of("cxa", 1)).tolist() == [[4, 5], [2, 3], [0, 1], [6, 7]]
    assert for_rows(values, 0, old, rows_of("b", 0)).tolist() == [[2, 3]]
    first = values[:3]
    assert for_rows(first, 0, rows_of("abc", 0), rows_of("ab", 1)).tolist() == [
        [0, 1], [2, 3], [2, 3],
    ]  # fmt: skip
    columns = for_rows(values.T.contiguous(), 1, old, rows_of("ca", 1))
    assert columns.tolist() == [[4, 0, 6], [5, 1, 7]]
    assert in_words(old, rows_of("xa", 0)) == (
        "classes kept by name: a; new, the mean of the old: x; left out: b, c, of none"
    )


def test_pixels_of_a_channel_stay_together():
    """Where a weight gives several pixels of each channel, as pixel_shuffle takes them."""
    values = torch.arange(4.0)[:, None]  # one channel of 2 x 2 pixels
    three = for_channels(values, 0, 1, 3, reads=False)
    assert three[:, 0].tolist() == [0, 1, 2, 3] * 3
    assert torch.equal(for_channels(three, 0, 3, 1, reads=False), values)
    linear = nn.functional.linear(torch.ones(3), for_channels(torch.ones(2, 1), 1, 1, 3, True))
    torch.testing.assert_close(linear, torch.ones(2))
