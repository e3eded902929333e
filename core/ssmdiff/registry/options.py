"""Checks options against the typed parameters of a factory, and words what is wrong with them.

Values are checked as TOML or JSON gives them, strictly: ``"10"`` and ``true`` are not integers,
NaN is not a number, and a key that nobody knows is refused with the nearest one that is known.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar, get_type_hints

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PydanticUserError,
    ValidationError,
    create_model,
)

from ssmdiff.errors import ConfigError, ContractError, did_you_mean
from ssmdiff.registry.component import Kind

M = TypeVar("M", bound=BaseModel)

Seed = Annotated[int, Field(ge=0, lt=2**63, description="0 up to 2**63 - 1")]
"""The type of an option that seeds :func:`ssmdiff.orders.seeds.stream`."""

STRICT = ConfigDict(
    extra="forbid", strict=True, frozen=True, allow_inf_nan=False, validate_default=True
)


def resolve_options(
    factory: Any, kind: Kind, label: str, options: Mapping[str, Any], path: str = ""
) -> dict[str, Any]:
    """The options of ``factory``, checked, with its defaults filled in.

    Args:
        factory: A class or function whose parameters are all named and typed.
        kind: Says which parameters are wired and so are no options.
        label: How messages name the component.
        options: What the user set.
        path: Dotted path of the options in a configuration, for messages.

    Raises:
        ConfigError: A key is unknown, a value of the wrong type or out of range.
        ContractError: The factory's signature cannot be checked.
    """
    model = _options_model(factory, kind, label)
    return dict(validate(model, options, path or label))


@functools.lru_cache(maxsize=256)
def _options_model(factory: Any, kind: Kind, label: str) -> type[BaseModel]:
    target = factory.__init__ if inspect.isclass(factory) else factory
    try:
        hints = get_type_hints(target, include_extras=True)
        parameters = inspect.signature(factory).parameters
    except Exception as error:  # whatever evaluating a stranger's annotations raises
        raise ContractError(f"{label}: its signature cannot be resolved: {error}") from error
    fields: dict[str, Any] = {}
    for name, parameter in parameters.items():
        if name in kind.wired:
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ContractError(
                f"{label}: its factory takes *{name}; every option must be a named, typed "
                "parameter, or a misspelt one would be swallowed"
            )
        if name == "name":
            raise ContractError(
                f"{label}: an option cannot be called 'name', which is how a configuration names "
                "the component itself"
            )
        if name not in hints:
            raise ContractError(f"{label}: option {name!r} has no type in the factory's signature")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[name] = (hints[name], default)
    try:
        return create_model("Options", __config__=STRICT, **fields)
    except PydanticUserError as error:
        raise ContractError(f"{label}: its options cannot be checked: {error.message}") from error


def validate(model: type[M], values: Mapping[str, Any], path: str) -> M:
    """``values`` as an instance of ``model``, or one ConfigError that lists all that is wrong."""
    try:
        text = json.dumps(dict(values))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: options are plain values, as TOML has them: {error}") from error
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError("\n".join(_sentences(model, error.errors(), values, path))) from None


def _sentences(
    model: type[BaseModel], problems: Iterable[Any], values: Mapping[str, Any], path: str
) -> list[str]:
    """One sentence for each place where something is wrong, all members of a union together."""
    messages: dict[str, list[str]] = {}
    for problem in problems:
        location = _location(problem, values)
        what = messages.setdefault(_join(path, location), [])
        if problem["type"] == "extra_forbidden":
            known = _fields_at(model, location[:-1])
            what.append(f"unknown key; {did_you_mean(location[-1], known)}")
        elif problem["type"] == "missing":
            what.append("a value is required")
        else:
            said = problem["msg"].removeprefix("Value error, ")
            message = said[0].lower() + said[1:]
            whole = problem["type"] == "value_error" and isinstance(problem["input"], Mapping)
            got = "" if whole else f"got {problem['input']!r}; "  # a table says it better itself
            what.append(f"or {message}" if what else f"{got}{message}")
    return [f"{where}: {', '.join(what)}".removeprefix(": ") for where, what in messages.items()]


def _location(problem: Any, values: Any) -> list[str]:
    """The keys and indices that lead to the problem; pydantic names members of unions as well."""
    location = []
    of_key = problem["type"] in ("missing", "extra_forbidden")
    for i, part in enumerate(problem["loc"], start=1):
        if isinstance(values, Mapping):
            inside = part in values
        else:
            inside = isinstance(values, list | tuple) and isinstance(part, int)
        if inside:
            values = values[part]
        if inside or (of_key and i == len(problem["loc"])):
            location.append(str(part))
    return location


def _join(path: str, location: list[str]) -> str:
    """A dotted path in a configuration, or 'option of component' for a component's label."""
    if not location:
        return path
    if " " in path:
        return f"{path}, option {'.'.join(location)!r}"
    return ".".join([path, *location] if path else location)


def _fields_at(model: type[BaseModel], location: list[str]) -> list[str]:
    for part in location:
        field = model.model_fields.get(part)
        inner = field.annotation if field else None
        if not (inspect.isclass(inner) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)
