"""Checks options against the typed parameters of a factory, and words what is wrong with them.

Values are checked as TOML or JSON gives them, strictly: ``"10"`` and ``true`` are not integers,
NaN is not a number, and a key that nobody knows is refused with the nearest one that is known.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from ssmdiff.component import Kind
from ssmdiff.errors import ConfigError, ContractError, did_you_mean

M = TypeVar("M", bound=BaseModel)

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
    except NameError as error:
        raise ContractError(f"{label}: a type in its signature cannot be resolved: {error}") from error
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(factory).parameters.items():
        if name in kind.wired:
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ContractError(
                f"{label}: its factory takes *{name}; every option must be a named, typed parameter, "
                "or a misspelt one would be swallowed"
            )
        if name not in hints:
            raise ContractError(f"{label}: option {name!r} has no type in the factory's signature")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[name] = (hints[name], default)
    return create_model("Options", __config__=STRICT, **fields)


def validate(model: type[M], values: Mapping[str, Any], path: str) -> M:
    """``values`` as an instance of ``model``, or one ConfigError that lists all that is wrong."""
    try:
        text = json.dumps(dict(values))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: options are plain values, as TOML has them: {error}") from error
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        lines = [_sentence(model, problem, path) for problem in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def _sentence(model: type[BaseModel], problem: Any, path: str) -> str:
    location = [str(part) for part in problem["loc"]]
    where = _join(path, location)
    if problem["type"] == "extra_forbidden":
        known = _fields_at(model, location[:-1])
        return f"{where}: unknown key; {did_you_mean(location[-1], known)}"
    if problem["type"] == "missing":
        return f"{where}: a value is required"
    message = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{where}: got {problem['input']!r}; {message}"


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
