"""Options: what a factory's signature accepts, and how a wrong value is told."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from ssmdiff.errors import ConfigError, ContractError
from ssmdiff.registry.component import Kind
from ssmdiff.registry.options import STRICT, resolve_options, validate

KIND = Kind("part", "ssmdiff_parts", wired=("channels",))
LABEL = "part 'demo' (ssmdiff-demo 1.0)"


def demo(
    channels: int,
    width: Annotated[int, Field(ge=1, le=64)] = 4,
    rate: Annotated[float, Field(gt=0)] = 0.5,
    mode: Literal["add", "concat"] = "add",
    sizes: tuple[int, ...] = (1, 2),
    grid: tuple[tuple[int, int], ...] = ((1, 2),),
    deep: bool = False,
    title: str | None = None,
) -> None:
    """A factory with one option of each type that the plugins use."""


DEFAULTS = {
    "width": 4,
    "rate": 0.5,
    "mode": "add",
    "sizes": (1, 2),
    "grid": ((1, 2),),
    "deep": False,
    "title": None,
}


def resolve(factory: Callable[..., Any] = demo, path: str = "", **options: Any) -> dict[str, Any]:
    return resolve_options(factory, KIND, LABEL, options, path)


def test_defaults_are_filled_in() -> None:
    assert resolve() == DEFAULTS


def test_a_value_takes_the_place_of_its_default() -> None:
    assert resolve(width=8) == {**DEFAULTS, "width": 8}


def test_lists_become_tuples_also_inside_lists() -> None:
    resolved = resolve(sizes=[3, 4, 5], grid=[[1, 2], [3, 4]])
    assert resolved["sizes"] == (3, 4, 5)
    assert resolved["grid"] == ((1, 2), (3, 4))


def test_a_whole_number_is_a_float() -> None:
    assert resolve(rate=2)["rate"] == 2.0


def test_an_unknown_key_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="option 'widht': unknown key; did you mean 'width'"):
        resolve(widht=3)


def test_a_key_in_another_case_is_unknown() -> None:
    with pytest.raises(ConfigError, match="option 'Width': unknown key; did you mean 'width'"):
        resolve(Width=3)


def test_a_wired_parameter_is_no_option() -> None:
    with pytest.raises(ConfigError, match="option 'channels': unknown key"):
        resolve(channels=3)


def test_a_required_option_is_asked_for() -> None:
    def factory(root: str) -> None: ...

    with pytest.raises(ConfigError, match="option 'root': a value is required"):
        resolve(factory)


def test_messages_name_the_component_and_its_distribution() -> None:
    with pytest.raises(ConfigError, match=r"^part 'demo' \(ssmdiff-demo 1\.0\), option 'width'"):
        resolve(width=0)


def test_messages_name_the_place_in_a_configuration() -> None:
    with pytest.raises(ConfigError, match=r"^model\.block\.width: got 0"):
        resolve(path="model.block", width=0)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        resolve(width=0, rate=-1, mod="add")
    assert len(str(raised.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("width", True),
        ("width", "10"),
        ("width", 10.0),
        ("width", 1.5),
        ("width", None),
        ("width", 0),
        ("width", -1),
        ("width", 65),
        ("rate", True),
        ("rate", "0.5"),
        ("rate", math.nan),
        ("rate", math.inf),
        ("rate", float("1e400")),
        ("rate", 0),
        ("mode", "ADD"),
        ("mode", "multiply"),
        ("mode", 1),
        ("sizes", 3),
        ("sizes", [1, "2"]),
        ("sizes", [1, True]),
        ("sizes", "12"),
        ("grid", [1, 2]),
        ("grid", [[1, 2, 3]]),
        ("deep", 1),
        ("deep", "true"),
        ("title", 3),
    ],
)
def test_a_value_of_another_type_or_range_is_refused(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"option '{option}"):
        resolve(**{option: value})


@pytest.mark.parametrize("value", [np.float32(0.5), np.arange(3), {1}, object(), b"x", 1 + 2j])
def test_a_value_that_toml_does_not_have_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="options are plain values"):
        resolve(rate=value)


def test_a_literal_lists_what_is_allowed() -> None:
    with pytest.raises(ConfigError, match="'add' or 'concat'"):
        resolve(mode="multiply")


VALID = st.fixed_dictionaries(
    {},
    optional={
        "width": st.integers(1, 64),
        "rate": st.floats(0, exclude_min=True, allow_infinity=False),
        "mode": st.sampled_from(["add", "concat"]),
        "sizes": st.lists(st.integers(-(2**60), 2**60)),
        "grid": st.lists(st.tuples(st.integers(), st.integers()).map(list)),
        "deep": st.booleans(),
        "title": st.none() | st.text(st.characters(codec="utf-8")),
    },
)


@given(VALID)
def test_valid_options_are_kept_to_the_bit(options: dict[str, Any]) -> None:
    def tuples(value: Any) -> Any:
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    assert resolve(**options) == {**DEFAULTS, **{k: tuples(v) for k, v in options.items()}}


@given(VALID)
def test_resolved_options_resolve_to_themselves(options: dict[str, Any]) -> None:
    resolved = resolve(**options)
    assert resolve(**resolved) == resolved


@given(st.none() | st.booleans() | st.floats() | st.text() | st.lists(st.integers(1, 64)))
def test_nothing_but_an_integer_is_an_integer(value: Any) -> None:
    with pytest.raises(ConfigError, match="option 'width'"):
        resolve(width=value)


@given(st.integers().filter(lambda i: not 1 <= i <= 64))
def test_an_integer_out_of_range_is_refused(value: int) -> None:
    with pytest.raises(ConfigError, match="option 'width'"):
        resolve(width=value)


@given(st.text(st.characters(codec="utf-8")).filter(lambda key: key not in DEFAULTS))
def test_no_unknown_key_passes(key: str) -> None:
    with pytest.raises(ConfigError, match="unknown key"):
        resolve_options(demo, KIND, LABEL, {key: 1}, "")


def swallows_keywords(width: int = 1, **rest: Any) -> None: ...


def swallows_positions(*rest: int) -> None: ...


def untyped(width=1): ...


def names_an_absent_type(width: Absent = 1) -> None: ...  # noqa: F821


def names_an_absent_attribute(width: np.absent = 1) -> None: ...


def takes_an_array(table: np.ndarray) -> None: ...


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (swallows_keywords, r"its factory takes \*rest; every option must be a named, typed"),
        (swallows_positions, r"its factory takes \*rest"),
        (untyped, "option 'width' has no type"),
        (names_an_absent_type, "its signature cannot be resolved: name 'Absent'"),
        (names_an_absent_attribute, "its signature cannot be resolved: .*'absent'"),
        (takes_an_array, "its options cannot be checked"),
        (dict, "its signature cannot be resolved"),
        (functools.partial(demo, width=2), "its signature cannot be resolved"),
    ],
)
def test_a_signature_that_cannot_be_checked_is_the_plugins_fault(factory, message: str) -> None:
    with pytest.raises(ContractError, match=message) as raised:
        resolve(factory)
    assert LABEL in str(raised.value)


def test_a_class_is_checked_by_its_constructor() -> None:
    class Part:
        def __init__(self, width: int = 2) -> None: ...

    assert resolve(Part) == {"width": 2}
    with pytest.raises(ConfigError, match="option 'width'"):
        resolve(Part, width="2")


def test_a_class_without_options_takes_none() -> None:
    class Part: ...

    assert resolve(Part) == {}
    with pytest.raises(ConfigError, match="option 'width': unknown key; none is known here"):
        resolve(Part, width=2)


class Inner(BaseModel):
    model_config = STRICT
    width: int = 1


class Outer(BaseModel):
    model_config = STRICT
    inner: Inner = Inner()


class Sizes(BaseModel):
    model_config = STRICT
    sizes: tuple[int, ...]


def test_a_nested_model_names_the_dotted_path_and_the_near_key() -> None:
    with pytest.raises(ConfigError, match=r"^run\.inner\.widht: unknown key; did you mean 'width'"):
        validate(Outer, {"inner": {"widht": 2}}, "run")


def test_without_a_path_a_model_names_the_key_alone() -> None:
    with pytest.raises(ConfigError, match=r"^inner\.width: got '2'"):
        validate(Outer, {"inner": {"width": "2"}}, "")


def test_a_union_is_told_as_one_value_at_its_own_place() -> None:
    def factory(base: str | dict[str, Any] = "cross") -> None: ...

    with pytest.raises(ConfigError, match="option 'base': got 5") as raised:
        resolve(factory, base=5)
    assert len(str(raised.value).splitlines()) == 1


def test_a_key_that_is_no_string_is_unknown() -> None:
    with pytest.raises(ConfigError, match=r"^run\.1: unknown key"):
        validate(Outer, {1: 2}, "run")  # type: ignore[dict-item]


def test_a_wrong_item_of_a_list_is_told_by_its_index() -> None:
    with pytest.raises(ConfigError, match=r"^sizes\.1: got '2'"):
        validate(Sizes, {"sizes": [1, "2"]}, "")
