"""Finds plugins, keeps their components, and builds a component by name. Imports no torch.

A plugin is an entry point of the group ``ssmdiff``; the built-ins are entry points of the
distribution ``ssmdiff`` and take the same road. Three things can be wrong and are three errors:
a plugin that is *missing*, one that is installed but *broken*, and two that *conflict*. None of
them touches the others: the error comes when the name is asked for, and in ``plugins list``.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from typing import Any

from ssmdiff.errors import (
    ConfigError,
    ContractError,
    PluginBrokenError,
    PluginConflictError,
    PluginNotFoundError,
    SsmdiffError,
    did_you_mean,
)
from ssmdiff.registry.component import KINDS, Command, Component, Kind
from ssmdiff.registry.plugin import BUILT_IN, Plugin, Registered, missing_module, name_of

GROUP = "ssmdiff"
ALLOW_LIST = "SSMDIFF_PLUGINS"


class Registry:
    """The plugins of this environment and the components they offer.

    Args:
        points: The entry points to load; by default those of the group ``ssmdiff``.
        allowed: Distributions whose plugins may load, besides the built-ins; None for all.

    Raises:
        PluginNotFoundError: ``allowed`` names a distribution that has no plugin here.
    """

    def __init__(
        self, points: Iterable[EntryPoint] | None = None, allowed: Iterable[str] | None = None
    ) -> None:
        from ssmdiff.registry import hooks  # not above: sampling an exported model needs no pluggy

        self.plugins: list[Plugin] = []
        self.manager = hooks.new_manager()
        self._components: dict[tuple[str, str], list[Registered]] = {}
        found = _entry_points() if points is None else list(points)
        for point in self._selected(found, allowed):
            self._load(point)

    def _selected(
        self, found: list[EntryPoint], allowed: Iterable[str] | None
    ) -> Iterator[EntryPoint]:
        wanted = None if allowed is None else {_canonical(name) for name in allowed}
        present = {_canonical(_distribution(point)[0]) for point in found}
        for name in sorted((wanted or set()) - present):
            raise PluginNotFoundError(
                f"{ALLOW_LIST} names {name!r}, and no installed distribution of that name has an "
                f"ssmdiff plugin; {did_you_mean(name, present - {BUILT_IN})}"
            )
        # Built-ins first, then by name: the order never depends on the file system.
        for point in sorted(
            found, key=lambda p: (_distribution(p)[0] != BUILT_IN, _distribution(p), p.name)
        ):
            name = _canonical(_distribution(point)[0])
            if name == BUILT_IN or wanted is None or name in wanted:
                yield point

    def _load(self, point: EntryPoint) -> None:
        from ssmdiff.registry import hooks

        distribution, version = _distribution(point)
        plugin = Plugin(point.name, distribution, version, point.value)
        self.plugins.append(plugin)
        start_s = time.perf_counter()
        try:
            module = point.load()
            hooks.register(self.manager, module, plugin.key)
            for kind in KINDS.values():
                for component in self._collect(kind, module):
                    plugin.components.append((kind.name, component))
        except (Exception, SystemExit) as error:
            plugin.fail(error)
            plugin.components.clear()
            if self.manager.has_plugin(plugin.key):  # a broken plugin offers no commands either
                self.manager.unregister(name=plugin.key)
        plugin.load_s = time.perf_counter() - start_s
        if plugin.slow:
            warnings.warn(
                f"plugin {plugin.name!r} ({plugin.source}) took {plugin.load_s:.1f} s to load, "
                "which every command waits for; its author can name factories as "
                "'package.module:Name', to be imported when they are used",
                stacklevel=2,
            )
        for kind_name, component in plugin.components:
            entry = Registered(KINDS[kind_name], component, plugin)
            self._components.setdefault((kind_name, component.name), []).append(entry)

    def _collect(self, kind: Kind, module: object) -> Iterator[Component]:
        names: set[str] = set()
        for implementation in getattr(self.manager.hook, kind.hook).get_hookimpls():
            if implementation.plugin is not module:
                continue
            offered = implementation.function()
            record = Component if kind.built else Command
            if not isinstance(offered, Iterable):
                raise ContractError(
                    f"hook {kind.hook!r} returned a {type(offered).__name__}; "
                    f"expected ssmdiff.{record.__name__} records, yielded or in a list"
                )
            for component in offered:
                if not isinstance(component, record):
                    raise ContractError(
                        f"hook {kind.hook!r} yielded a {type(component).__name__}; "
                        f"expected ssmdiff.{record.__name__} records"
                    )
                if component.name in names:
                    raise ContractError(f"hook {kind.hook!r} yields {component.name!r} twice")
                names.add(component.name)
                yield component

    def find(self, kind: str, name: str) -> Registered:
        """The one component of that kind and name.

        Raises:
            ConfigError: There is none; the message names the nearest, and any broken plugin.
            PluginBrokenError: There is none, none is near, and a broken plugin may have had it.
            PluginConflictError: Several distributions offer it.
        """
        known = self.names(_kind(kind).name)
        entries = self._components.get((kind, name), [])
        if len(entries) == 1:
            return entries[0]
        if entries:
            raise PluginConflictError(self._conflict(entries))
        broken = [plugin for plugin in self.plugins if plugin.error]
        also = "".join(
            f"\nplugin {plugin.name!r} ({plugin.source}) failed to load: {plugin.error}. "
            "See: ssmdiff plugins list"
            for plugin in broken
        )
        hint = did_you_mean(name, known)
        misspelt = hint.startswith("did you mean")
        error = PluginBrokenError if broken and not misspelt else ConfigError
        raise error(f"there is no {kind} named {name!r}; {hint}{also}")

    def names(self, kind: str) -> list[str]:
        """The names of a kind, sorted; those in conflict are among them."""
        return sorted(name for of, name in self._components if of == _kind(kind).name)

    def all(self, kind: str | None = None) -> list[Registered]:
        """Every component (of one kind) that nobody else claims, sorted by kind and name."""
        return [
            entries[0]
            for (of, _), entries in sorted(self._components.items())
            if len(entries) == 1 and kind in (None, of)
        ]

    def conflicts(self) -> list[str]:
        """One sentence for each name that several distributions claim."""
        return [self._conflict(e) for _, e in sorted(self._components.items()) if len(e) > 1]

    def _conflict(self, entries: list[Registered]) -> str:
        first = entries[0]
        providers = " and ".join(entry.plugin.source for entry in entries)
        shadowed = any(entry.plugin.built_in for entry in entries)
        rule = "; a plugin may not shadow a built-in" if shadowed else ""
        return (
            f"{first.kind.name} {first.component.name!r} is offered by {providers}{rule}. "
            f"Uninstall one, or load only those you want: {ALLOW_LIST}=dist1,dist2"
        )

    def options(self, kind: str, spec: str | Mapping[str, Any], path: str = "") -> dict[str, Any]:
        """A component's options with defaults filled in, as ``{"name": ..., option: value}``.

        Args:
            kind: One of :data:`ssmdiff.registry.component.KINDS`.
            spec: A name, or a mapping with ``name`` and options.
            path: Where the spec stands in a configuration, for messages.

        Raises:
            ConfigError: An option is unknown, of the wrong type or out of range.
        """
        name, options = split_spec(kind, spec, path)
        entry = self._to_build(kind, name)
        return {"name": name, **_resolve(entry, entry.factory(), options, path)}

    def create(self, kind: str, spec: str | Mapping[str, Any], /, **arguments: Any) -> Any:
        """Build a component: wired arguments of its kind, and its options, validated.

        Raises:
            ConfigError: Unknown name or option.
            PluginError: The plugin is broken, in conflict, or fails while building.
        """
        name, options = split_spec(kind, spec)
        entry = self._to_build(kind, name)
        wired = {key: arguments.pop(key) for key in entry.kind.wired if key in arguments}
        factory = entry.factory()
        chosen = _resolve(entry, factory, {**options, **arguments})
        try:
            return factory(**_accepted(factory, entry.kind, wired), **chosen)
        except SsmdiffError:
            raise
        except ModuleNotFoundError as error:
            raise PluginBrokenError(
                f"{entry.label} {missing_module(error, entry.plugin)}"
            ) from error
        except (Exception, SystemExit) as error:
            raise PluginBrokenError(
                f"{entry.label} failed while it was built: {name_of(error)}"
            ) from error

    def _to_build(self, kind: str, name: str) -> Registered:
        entry = self.find(kind, name)
        if not entry.kind.built:
            raise ConfigError(f"{entry.label} is run and not built; see: ssmdiff {name} --help")
        return entry


def _accepted(factory: Any, kind: Kind, wired: dict[str, Any]) -> dict[str, Any]:
    """The wired arguments that the factory takes: a convolution has no use for directions."""
    taken = inspect.signature(factory).parameters
    return {key: value for key, value in wired.items() if key in taken}


def _resolve(
    entry: Registered, factory: Any, options: Mapping[str, Any], path: str = ""
) -> dict[str, Any]:
    """The options checked and completed; pydantic is imported here, so that listing needs none."""
    from ssmdiff.registry.options import resolve_options

    return resolve_options(factory, entry.kind, entry.label, options, path)


def split_spec(
    kind: str, spec: str | Mapping[str, Any], path: str = ""
) -> tuple[str, dict[str, Any]]:
    """``"cross"`` or ``{"name": "cross", ...}`` as a name and its options."""
    if isinstance(spec, str):
        return spec, {}
    if isinstance(spec, Mapping) and isinstance(spec.get("name"), str):
        options = dict(spec)
        return options.pop("name"), options
    where = f"{path}: " if path else ""
    raise ConfigError(f"{where}a {kind} is a name or a table with a 'name', got {spec!r}")


def _kind(name: str) -> Kind:
    if name not in KINDS:
        raise ConfigError(f"there is no kind {name!r}; {did_you_mean(name, KINDS)}")
    return KINDS[name]


def _entry_points() -> list[EntryPoint]:
    """Of our group; a distribution whose metadata cannot be read is warned of and left out."""
    try:
        return list(entry_points(group=GROUP))
    except (ValueError, TypeError):  # as importlib.metadata has it, of any one of all of them
        found = []
        for dist in distributions():
            try:
                found += [point for point in dist.entry_points if point.group == GROUP]
            except (ValueError, TypeError) as error:
                warnings.warn(
                    f"the entry points of {dist.locate_file('')}, distribution "
                    f"{_named(dist)[0]!r}, cannot be read, so that its plugins are missing: "
                    f"{name_of(error)}",
                    stacklevel=2,
                )
        return found


def _distribution(point: EntryPoint) -> tuple[str, str]:
    return _named(point.dist) if point.dist else ("unknown", "0")


def _named(dist: Distribution) -> tuple[str, str]:
    """Name and version; damaged metadata has neither, whatever the annotations say."""
    try:
        return dist.name or "unknown", dist.version or "0"
    except (ValueError, TypeError):
        return "unknown", "0"


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip().lower())


def event_hooks(listeners: Iterable[object]) -> Any:
    """The hooks by which a training run tells its events, heard by these and by all plugins.

    Args:
        listeners: Objects with hook methods, called in this order.

    Raises:
        ContractError: A listener has a hook that ssmdiff lacks, or with arguments it lacks.
    """
    from ssmdiff.registry import hooks

    plugins = [module for _, module in registry().manager.list_name_plugin()]
    return hooks.hooks_of([*listeners, *plugins])


@functools.cache
def registry() -> Registry:
    """The registry of this process, loaded on first use; ``SSMDIFF_PLUGINS`` limits it."""
    allowed = os.environ.get(ALLOW_LIST)
    if allowed is None:
        return Registry()
    return Registry(allowed=[name for name in allowed.split(",") if name.strip()])


def create(kind: str, spec: str | Mapping[str, Any], /, **arguments: Any) -> Any:
    """Build a registered component: ``ssmdiff.create("scan", "regenerate", base="cross")``.

    Args:
        kind: ``scan``, ``block``, ``backbone``, ``scheduler``, ``kernel``, ``dataset``, ...
        spec: Its name, or a mapping with ``name`` and options.
        **arguments: Options, and the wired arguments of the kind.

    Raises:
        ConfigError: Unknown name or option, with the nearest match.
        PluginError: The plugin is broken, in conflict, or fails while building.
    """
    return registry().create(kind, spec, **arguments)


__all__ = ["Plugin", "Registered", "Registry", "create", "registry", "split_spec"]
