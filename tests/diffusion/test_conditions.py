"""Conditions: their encoding against written-out values, what is refused, records."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ssmdiff import Condition, Conditions, ConfigError

LABEL = Condition("label", "label", ("healthy", "lesion"))
FINDINGS = Condition("findings", "labels", ("nodule", "effusion", "mass"))
ANGLE = Condition("angle", "number", low=-10.0, high=30.0, unit="degrees", moved_by=("flip",))
MASK = Condition("mask", "mask", ("background", "brain", "lesion"))
T1 = Condition("t1", "image", channels=2)
ALL = Conditions([LABEL, FINDINGS, ANGLE, MASK, T1])
OPTIONAL = ALL.chosen(ALL.names, optional=True)
SIZE = (2, 3)

PIXELS = np.array([[0, 1, 2], [2, 2, 0]], np.uint8)
IMAGE = np.linspace(-1, 1, 12, dtype=np.float32).reshape(2, *SIZE)
TOLD: dict[str, Any] = {
    "label": "lesion", "findings": {0, "mass"}, "angle": 0.0, "mask": PIXELS, "t1": IMAGE,
}  # fmt: skip


def test_every_kind_as_it_is_written_down() -> None:
    z = 2 * 10 / 40 - 1  # -0.5: an eighth, a quarter, a half and all of a turn back
    root = math.sqrt(0.5)
    waves = [-root, -1, 0, 0, root, 0, -1, 1]
    context, place = ALL.encoded([TOLD], SIZE)
    assert context.dtype == place.dtype == np.float32
    np.testing.assert_allclose(context[0], [0, 1, 1, 0, 1, z, *waves], atol=1e-6)
    planes = [[[1, 0, 0], [0, 0, 1]], [[0, 1, 0], [0, 0, 0]], [[0, 0, 1], [1, 1, 0]]]
    assert place[0, :3].tolist() == planes
    np.testing.assert_array_equal(place[0, 3:], IMAGE)
    assert (ALL.width, ALL.planes) == (2 + 3 + 9, 3 + 2)


def test_what_is_left_out_differs_from_all_that_can_be_told() -> None:
    context, place = OPTIONAL.encoded([TOLD, {}, {"angle": None}], SIZE)
    assert (OPTIONAL.width, OPTIONAL.planes) == (ALL.width + 3, ALL.planes + 1)
    assert context[0, [2, 6, 16]].tolist() == [0, 0, 0]
    assert context[1].nonzero()[0].tolist() == [2, 6, 16] == context[2].nonzero()[0].tolist()
    assert place[0, 5].tolist() == [[1] * 3] * 2
    assert not place[1].any()
    np.testing.assert_array_equal(context[0, [0, 1, 3, 4, 5]], [0, 1, 1, 0, 1])


def test_no_finding_is_not_the_same_as_none_told() -> None:
    [told] = Conditions([FINDINGS]).chosen(["findings"], True).encoded([{"findings": []}, {}], SIZE)
    assert told.tolist() == [[0, 0, 0, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize(
    "value", [[0, 2], {"nodule", 2}, np.array([1, 0, 1]), torch.tensor([1, 0, 1])]
)
def test_findings_by_name_number_and_bits(value: Any) -> None:
    assert FINDINGS.encoded(value, SIZE).tolist() == [1, 0, 1]


def test_there_are_as_many_arrays_as_are_told() -> None:
    assert [part.shape for part in ALL.chosen(["angle"]).encoded([{"angle": 1}], SIZE)] == [(1, 9)]
    assert [part.shape for part in ALL.chosen(["mask"]).encoded([{"mask": PIXELS}], SIZE)] == [
        (1, 3, *SIZE)
    ]
    assert Conditions().encoded([{}], SIZE) == ()


def test_nothing_keeps_what_the_model_cannot_be_left_without() -> None:
    mixed = Conditions([LABEL, *ALL.chosen(["angle"], optional=True)])
    told = [{"label": 1, "angle": 3}]
    [found] = mixed.nothing(told, SIZE)
    assert found.tolist() == mixed.encoded([{"label": 1}], SIZE)[0].tolist()
    assert found[0].nonzero()[0].tolist() == [1, 11]


def wrong(**told: Any) -> dict[str, Any]:
    return TOLD | told


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (wrong(lable=1), r"no condition 'lable'; did you mean 'label'\?"),
        ({k: v for k, v in TOLD.items() if k != "angle"}, "angle is missing.* -10 to 30 degrees"),
        (wrong(label=2), "label 2 is none of its numbers; expected 0 healthy, 1 lesion"),
        (wrong(label="leson"), r"there is no label 'leson'; did you mean 'lesion'\?"),
        (wrong(label=True), "label True is none of its numbers"),
        (wrong(findings="nodule"), "is 'nodule', neither a list nor as many"),
        (wrong(findings=np.array([0, 1])), "as many zeros and ones; expected 0 nodule"),
        (wrong(findings=[3]), "findings 3 is none of its numbers"),
        (wrong(angle=31), "angle is 31; expected -10 to 30 degrees"),
        (wrong(angle=math.nan), "angle is nan"),
        (wrong(angle="12"), "angle is '12'; expected -10"),
        (wrong(mask=np.zeros((4, 4), np.uint8)), "mask mask is 4 x 4; expected 2 x 3"),
        (wrong(mask=PIXELS + 1), "mask holds the number 3, which the model never saw"),
        (wrong(mask=PIXELS.astype(np.int8) - 1), "holds the number -1"),
        (wrong(mask=PIXELS / 2), "mask is of float64; expected 0 background"),
        (wrong(t1=IMAGE[:1]), "image t1 is 1 x 2 x 3; expected 2 x 2 x 3"),
        (wrong(t1=IMAGE * 2), "t1 holds other values; expected 2 channel"),
        (wrong(t1=IMAGE * np.nan), "t1 holds other values"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_one_sentence(told: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        ALL.encoded([TOLD, told], SIZE)
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize(
    "parts",
    [
        ("two words", "label", ("a",)),
        ("a", "class", ("a",)),
        ("a", "label"),
        ("a", "mask", ("x", "x")),
        ("a", "label", ["x"]),
        ("a", "label", ("",)),
        ("a", "number", (), 2.0, 1.0),
        ("a", "number", (), 0.0, math.inf),
        ("a", "image", (), 0.0, 0.0, "", 0),
    ],
)
def test_what_is_no_condition(parts: tuple[Any, ...]) -> None:
    with pytest.raises(
        ConfigError, match="is no condition; expected a word as its name, kind label"
    ):
        Condition(*parts)


def test_choosing() -> None:
    assert ALL.chosen(["mask", "label"]).names == ["mask", "label"]
    with pytest.raises(ConfigError, match=r"no condition 'maks'; did you mean 'mask'\?"):
        ALL.chosen(["maks"])
    with pytest.raises(ConfigError, match="two conditions of the name 'mask'"):
        ALL.chosen(["mask", "mask"])
    same = Conditions([Condition("age", "number", low=5.0, high=5.0)])
    with pytest.raises(ConfigError, match="age is 5 for every image"):
        same.chosen(["age"])


def test_records_are_json_and_come_back() -> None:
    for conditions in (ALL, OPTIONAL, Conditions()):
        assert Conditions.from_record(json.loads(json.dumps(conditions.record()))) == conditions
    assert Conditions([LABEL]).record() == [
        {"name": "label", "kind": "label", "names": ("healthy", "lesion")}
    ]


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(st.sampled_from(["name", "kind", "names", "low"]), inner)
        ),
        max_leaves=4,
    )
)
def test_a_strangers_record_is_read_or_refused(record: Any) -> None:
    with contextlib.suppress(ConfigError):
        Conditions.from_record(record)


def test_what_an_image_was_told_in_json_and_in_words() -> None:
    told = OPTIONAL.recorded(TOLD | {"t1": None})
    assert json.loads(json.dumps(told)) == told
    assert told["label"] == 1
    assert told["findings"] == [0, 2]
    assert told["t1"] is None
    assert told["mask"].startswith("sha256:")
    assert len(told["mask"]) == 7 + 64
    assert OPTIONAL.captions([TOLD, {"findings": []}]) == [
        "lesion, nodule+mass, angle 0",
        "label left out, no findings, angle left out, mask left out, t1 left out",
    ]


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([12.3456, None, -4], ["angle 12.3", "angle left out", "angle -4"]),
        ([12.31, 12.34, 12.31], ["angle 12.31", "angle 12.34", "angle 12.31"]),
        ([0.1 + 0.2, 0.3], ["angle 0.30000000000000004", "angle 0.29999999999999999"]),
    ],
)
def test_numbers_in_words_have_as_many_digits_as_tell_them_apart(values, shown) -> None:
    assert ANGLE.captions(values) == shown


def test_names_that_grids_cannot_show_are_numbers_in_words() -> None:
    """They were question marks, all alike."""
    organs = Condition("organ", "label", ("肺", "心臓", "Kühlung"))
    assert organs.captions([0, 1, 2]) == ["organ 0", "organ 1", "Kühlung"]
