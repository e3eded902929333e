"""The options of a component in words: their types, ranges and defaults."""

from __future__ import annotations

import json
from typing import Any

from pydantic.errors import PydanticInvalidForJsonSchema
from ssmdiff.errors import SsmdiffError
from ssmdiff.registry.options import _options_model
from ssmdiff.registry.plugin import Registered

_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
_BOUNDS |= {"multipleOf": "multiple of", "minItems": "length >=", "maxItems": "length <="}


def describe_component(entry: Registered) -> dict[str, Any]:
    """A component as plain values: what it is, where it comes from, its options.

    ``options`` gives for each its ``type`` in words, whether it is ``required``, and its
    ``default``; ``error`` stands in their place when the component cannot be imported.
    """
    component = entry.component
    factory = component.factory
    row: dict[str, Any] = {
        "kind": entry.kind.name,
        "name": component.name,
        "summary": component.summary,
        "factory": factory
        if isinstance(factory, str)
        else f"{factory.__module__}:{getattr(factory, '__qualname__', type(factory).__name__)}",
        "cite": component.cite,
    }
    try:
        row["options"] = _options(entry)
    except SsmdiffError as error:
        row["error"] = str(error)
    return row


def _options(entry: Registered) -> dict[str, dict[str, Any]]:
    if not entry.kind.built:
        return {}
    model = _options_model(entry.factory(), entry.kind, entry.label)
    try:
        schema = model.model_json_schema()
    except PydanticInvalidForJsonSchema:
        return {
            name: {"type": str(field.annotation), "required": field.is_required(), "default": None}
            for name, field in model.model_fields.items()
        }
    required = schema.get("required", [])
    return {
        name: {
            "type": _words(about, schema.get("$defs", {})),
            "required": name in required,
            "default": about.get("default"),
        }
        for name, about in schema.get("properties", {}).items()
    }


def _words(about: dict[str, Any], defs: dict[str, Any]) -> str:
    """A JSON schema in a few words: ``integer >= 1``, ``"euler" or "zoh"``."""
    if "$ref" in about:
        return _words(defs.get(about["$ref"].rpartition("/")[2], {}), defs)
    if "anyOf" in about:
        return " or ".join(dict.fromkeys(_words(one, defs) for one in about["anyOf"]))
    if "enum" in about:
        return " or ".join(json.dumps(value) for value in about["enum"])
    if "const" in about:
        return json.dumps(about["const"])
    words = str(about.get("type", "any"))
    if words == "array" and "items" in about:
        words = f"list of {_words(about['items'], defs)}"
    bounds = [f"{sign} {about[key]}" for key, sign in _BOUNDS.items() if key in about]
    return " ".join([words, ", ".join(bounds)]).strip()
