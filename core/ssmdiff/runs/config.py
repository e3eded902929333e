"""A run's configuration, from the layers that say something of it. Imports no torch.

    defaults < preset < file < flags that choose a component < ``--set``, flags that set an option

Names come first: the highest layer that names a component chooses it. Options follow: those beside
another name belong to that one, those without a name to the one that is chosen. A key that was
given arrives, or is an error that names it. Every part is checked when the configuration is
resolved, before data or a device is touched: the fixed keys here, the options of each component
against its factory. Unknown keys are refused with the nearest known one.
"""

from __future__ import annotations

import datetime
import functools
import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from ssmdiff.diffusion.schedulers import DIFFUSION
from ssmdiff.errors import ConfigError, did_you_mean
from ssmdiff.registry.options import validate
from ssmdiff.registry.registry import registry
from ssmdiff.runs.scheduling import refuse_other_process
from ssmdiff.runs.sections import (
    COMPONENTS,
    Config,
    at,
    flat,
    said_by,
    unread_by,
    without,
)

MAX_FILE_BYTES = 1 << 20
MAX_DEPTH = 50
DEFAULT_PRESET = "tiny"
DEFAULTS = "defaults"
_PRESETS = files("ssmdiff.runs") / "presets"


class Layer(dict[str, Any]):
    """Some keys of a configuration, and who gave them.

    Args:
        values: Tables, as TOML has them.
        source: Who gave them, for messages.
        base: A preset or a run. What it says of a component goes with it where another is chosen
            above; in any other layer an option that is lost in this way is an error.
    """

    def __init__(self, values: Mapping[str, Any], source: str, base: bool = False) -> None:
        super().__init__(values)
        self.source, self.base = source, base


def resolve_flags(
    preset: str | None = None,
    file: Path | None = None,
    flags: Mapping[str, tuple[str, Any]] | None = None,
    sets: Iterable[str] | None = None,
    run: Layer | None = None,
) -> Config:
    """The configuration that a command line asks for.

    Args:
        preset: By name; None is the default one, or none where a run is gone on with.
        file: A TOML file.
        flags: Each flag as it is typed, with the key that it is for and its value, None where it
            was not given. A table chooses a component, any other value sets an option.
        sets: Texts of ``--set``.
        run: Lies below all else: the run that is gone on with.

    Raises:
        ConfigError: As by :func:`resolve`, or a flag and a ``--set`` contradict each other.
    """
    below = [] if run is None else [run]
    if preset is not None or run is None:
        below.append(load_preset(preset or DEFAULT_PRESET))
    if file is not None:
        below.append(load_file(file))
    named = [_layer(flag, *pair) for flag, pair in (flags or {}).items() if pair[1] is not None]
    choosing = [layer for layer in named if _choices(layer)]
    setting = [layer for layer in named if not _choices(layer)]
    assigned = [_assignment(text) for text in sets or ()]
    said = flat(functools.reduce(merge, assigned, {}))
    for layer in setting:
        for key, value in flat(layer).items():
            if said.get(key, value) != value:
                raise ConfigError(
                    f"{key} is {value!r} by {layer.source} and {said[key]!r} by --set; give one"
                )
    return resolve(*below, *choosing, *assigned, *setting)


def resolve(*layers: Mapping[str, Any] | Config) -> Config:
    """Merge layers, later over earlier, and check everything; components get all their options.

    Below all layers lies ``presets/defaults.toml``, the one place that names components. A whole
    :class:`Config` is a base, as a preset is.

    Raises:
        ConfigError: A key or value is wrong, every problem listed with its dotted path; or a key
            that was given would not arrive.
        PluginError: A component's plugin is broken or in conflict.
    """
    stack = [_read_preset(DEFAULTS)]
    for i, layer in enumerate(layers, start=1):
        if isinstance(layer, Config):
            layer = Layer(layer.to_dict(), "the configuration", base=True)
        stack.append(layer if isinstance(layer, Layer) else Layer(layer, f"layer {i}"))
        _refuse_depth(stack[-1])
    method, chooser = _chosen(stack)["method"]
    stack = [_of_the_method(layer, method, chooser) for layer in stack]
    stack.insert(1, Layer(said_by(method, "defaults", {}), f"method {method}", base=True))
    chosen = _chosen(stack)
    stack = [_of_the_chosen(layer, chosen) for layer in stack]
    merged: dict[str, Any] = functools.reduce(merge, stack, {})
    config = validate(Config, _without_none(merged), "")
    try:
        values = config.completed()
    except ConfigError as error:
        by = [f"\n{p} is {n!r}, by {who}" for p, (n, who) in chosen.items() if p in str(error)]
        raise ConfigError(f"{error}{''.join(by)}") from error
    if config.train.kernel != "auto":
        registry().find("kernel", config.train.kernel)
    _refuse_lost([layer for layer in stack if not layer.base], flat(values))
    return validate(Config, _without_none(values), "")


def _refuse_depth(layer: Layer) -> None:
    """Check that what walks the tables one in the other comes to an end."""
    inner: list[Any] = [layer]
    for _ in range(MAX_DEPTH):
        held = [v for one in inner for v in (one.values() if isinstance(one, Mapping) else one)]
        inner = [value for value in held if isinstance(value, Mapping | list)]
    if inner:
        raise ConfigError(f"{layer.source} nests tables more than {MAX_DEPTH} deep")


def _chosen(stack: Iterable[Layer]) -> dict[str, tuple[Any, str]]:
    """The name of each component by its dotted path, and who gave it: the highest layer."""
    chosen: dict[str, tuple[Any, str]] = {}
    for layer in stack:
        chosen |= {path: (name, layer.source) for path, name in _choices(layer).items()}
    return chosen


def _choices(layer: Mapping[str, Any]) -> dict[str, Any]:
    """The names of the components that a layer names, by their dotted paths."""
    specs = {path: at(layer, path) for path in COMPONENTS}
    names = {p: s.get("name") if isinstance(s, Mapping) else s for p, s in specs.items()}
    return {path: name for path, name in names.items() if name is not None}


def _of_the_method(layer: Layer, method: str, by: str) -> Layer:
    """The layer without what the method does not read, or a scheduler of another process.

    Raises:
        ConfigError: A user gave it.
    """
    if not isinstance(method, str):
        raise ConfigError(f"method, by {by}: got {method!r}; expected the name of a method")
    kept = without(layer, unread_by(method))
    scheduler = _choices(kept).get("sample.scheduler")
    try:
        if isinstance(scheduler, str):
            refuse_other_process(scheduler, said_by(method, "process", DIFFUSION))
    except ConfigError as error:
        if not layer.base:
            raise ConfigError(f"sample.scheduler, by {layer.source}: {error}") from error
        kept = without(kept, ["sample.scheduler"])
    if not layer.base and (lost := sorted(flat(layer).keys() - flat(kept).keys())):
        raise ConfigError(
            f"{', '.join(lost)}, by {layer.source}: method {method!r}, by {by}, has no use for it; "
            "leave it out, or choose another method"
        )
    return Layer(kept, layer.source, layer.base)


def _of_the_chosen(layer: Layer, chosen: Mapping[str, tuple[Any, str]]) -> Layer:
    """The layer with its components as tables, without those that are not chosen.

    Raises:
        ConfigError: An option would go with them that a user gave.
    """
    values: dict[str, Any] = dict(layer)
    for path, own in _choices(layer).items():
        table, (name, by) = at(values, path), chosen[path]
        if table is None:
            continue  # gone with the component that it is an option of
        if isinstance(table, str):
            table = {"name": own}
        if own != name and isinstance(table, Mapping):
            if len(table) > 1 and not layer.base:
                lost = ", ".join(f"{path}.{option}" for option in table if option != "name")
                raise ConfigError(
                    f"{lost}: {layer.source} sets this for {COMPONENTS[path]} {own!r}, and {by} "
                    f"chooses {name!r}. Leave out the one or the other"
                )
            table = {}
        values = _replaced(values, path, table)
    return Layer(values, layer.source, layer.base)


def _refuse_lost(given: Iterable[Layer], arrived: Mapping[str, Any]) -> None:
    """Check that every key that was given has arrived."""
    last = {key: (value, layer.source) for layer in given for key, value in flat(layer).items()}
    for key, (value, source) in last.items():
        if key in arrived and (value is None) == (arrived[key] is None):
            continue
        known = [other for other in arrived if f"{key}.".startswith(f"{other}.")]
        instead = "".join(f"; {other} is {arrived[other]!r}" for other in known)
        raise ConfigError(f"{key} = {value!r}, by {source}, cannot be kept{instead}")


def _replaced(values: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Tables with another value at a dotted path that is there."""
    key, _, rest = path.partition(".")
    return {**values, key: _replaced(values[key], rest, value) if rest else value}


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(one) for key, one in value.items() if one is not None}
    return [_without_none(one) for one in value] if isinstance(value, list) else value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid on ``base``, table by table; a component with another name starts afresh."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, str) and isinstance(below, Mapping) and "name" in below:
            value = {"name": value}
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            renamed = "name" in below and value.get("name", below["name"]) != below["name"]
            merged[key] = dict(value) if renamed else merge(below, value)
        else:
            merged[key] = value
    return merged


def presets() -> list[str]:
    """Names of the presets shipped in the package."""
    names = (p.name.removesuffix(".toml") for p in _PRESETS.iterdir() if p.name.endswith(".toml"))
    return sorted(name for name in names if name != DEFAULTS)


def load_preset(name: str) -> Layer:
    """The layer of a shipped preset."""
    if name not in presets():
        raise ConfigError(f"there is no preset {name!r}; {did_you_mean(name, presets())}")
    return _read_preset(name)


def _read_preset(name: str) -> Layer:
    values = tomllib.loads((_PRESETS / f"{name}.toml").read_text("utf-8"))
    return Layer(values, f"preset {name}" if name != DEFAULTS else "default", base=True)


def load_file(path: Path) -> Layer:
    """The layer of a TOML file.

    Raises:
        ConfigError: It is missing, no regular file, too large, or no TOML.
    """
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise ConfigError(f"config file {path} {what}")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ConfigError(
            f"config file {path} has {path.stat().st_size} bytes; at most {MAX_FILE_BYTES} are read"
        )
    try:
        return Layer(tomllib.loads(path.read_bytes().decode("utf-8-sig")), str(path))
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits
        raise ConfigError(f"config file {path} is no TOML: {error}") from None


def assignments(texts: Iterable[str]) -> dict[str, Any]:
    """The options of one component from ``--set option=value``, which has its name already.

    Raises:
        ConfigError: One is not of that form, or is a name.
    """
    options: dict[str, Any] = functools.reduce(merge, map(_assignment, texts), {})
    if "name" in options:
        raise ConfigError("--set name: the component is named by the command itself")
    return options


def _assignment(text: str) -> Layer:
    """``path.to.key=value``; a value as TOML has it, a date or what is no TOML as plain text."""
    path, equals, value = text.partition("=")
    path = path.strip()
    if not equals or not all(path.split(".")):
        raise ConfigError(f"--set {text!r}: expected path.to.key=value")
    try:
        parsed = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        parsed = {"value": value}
    one = parsed["value"]
    # What TOML would leave out of a value, a comment or a second line, was given all the same.
    cut = len(parsed) > 1 or ("#" in value and not isinstance(one, str | list | dict))
    if cut or isinstance(one, datetime.date | datetime.time):
        one = value
    return _layer(f"--set {path}", path, one)


def _layer(source: str, path: str, value: Any) -> Layer:
    for key in reversed(path.split(".")):
        value = {key: value}
    return Layer(value, source)


def differences(before: Config, after: Config) -> dict[str, tuple[Any, Any]]:
    """Dotted path -> (before, after) of every value that differs."""
    old, new = flat(before.to_dict()), flat(after.to_dict())
    return {
        key: (old.get(key), new.get(key))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    }
