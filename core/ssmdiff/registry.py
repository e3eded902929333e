"""Finds plugins, keeps their components, and builds a component by name. Imports no torch.

A plugin is an entry point of the group ``ssmdiff``; the built-ins are entry points of the
distribution ``ssmdiff`` and take the same road. Three things can be wrong and are three errors:
a plugin that is *missing*, one that is installed but *broken*, and two that *conflict*. None of
them touches the others: the error comes when the name is asked for, and in ``plugins list``.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import re
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from ssmdiff import hookspecs
from ssmdiff.component import KINDS, Component, Kind
from ssmdiff.errors import (
    ConfigError,
    ContractError,
    PluginBrokenError,
    PluginConflictError,
    PluginError,
    PluginNotFoundError,
    SsmdiffError,
    did_you_mean,
)
from ssmdiff.options import resolve_options

GROUP = "ssmdiff"
BUILT_IN = "ssmdiff"
ALLOW_LIST = "SSMDIFF_PLUGINS"


@dataclass
class Plugin:
    """One entry point: who ships it, how loading went, what it contributes."""

    name: str
    distribution: str
    version: str
    module: str
    error: str = ""
    detail: str = ""
    load_s: float = 0.0
    components: list[tuple[str, Component]] = field(default_factory=list)

    @property
    def source(self) -> str:
        """Distribution and version, as messages and manifests name them."""
        return f"{self.distribution} {self.version}"

    @property
    def key(self) -> str:
        """Unique among plugins: two distributions may name an entry point alike."""
        return f"{self.distribution}:{self.name}"

    @property
    def built_in(self) -> bool:
        return self.distribution == BUILT_IN

    def fail(self, error: BaseException) -> None:
        """Mark as broken; the first failure is the one that is told."""
        if not self.error:
            if isinstance(error, ModuleNotFoundError) and not _is_part_of(self.module, error.name):
                text = _needs(error, self)
            else:
                text = str(error) if isinstance(error, SsmdiffError) else _name_of(error)
            self.error = next(iter(text.strip().splitlines()), type(error).__name__)
            self.detail = "".join(traceback.format_exception(error))


@dataclass(frozen=True)
class Registered:
    """A component together with its kind and the plugin that gave it."""

    kind: Kind
    component: Component
    plugin: Plugin

    @property
    def label(self) -> str:
        return f"{self.kind.name} {self.component.name!r} ({self.plugin.source})"

    def factory(self) -> Any:
        """The factory itself, imported now if it was named by a string.

        Raises:
            PluginBrokenError: The import fails, or the name is not there.
        """
        factory = self.component.factory
        if not isinstance(factory, str):
            return factory
        module, _, attribute = factory.partition(":")
        try:
            return functools.reduce(getattr, attribute.split("."), importlib.import_module(module))
        except ModuleNotFoundError as error:
            if _is_part_of(module, error.name):
                raise self._broken(error) from error
            raise PluginBrokenError(f"{self.label} {_needs(error, self.plugin)}") from error
        except (Exception, SystemExit) as error:
            raise self._broken(error) from error

    def _broken(self, error: BaseException) -> PluginBrokenError:
        return PluginBrokenError(
            f"{self.label} cannot be imported from {self.component.factory!r}: {_name_of(error)}"
        )


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
        self.plugins: list[Plugin] = []
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self._components: dict[tuple[str, str], list[Registered]] = {}
        found = list(entry_points(group=GROUP) if points is None else points)
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
        distribution, version = _distribution(point)
        plugin = Plugin(point.name, distribution, version, point.value)
        self.plugins.append(plugin)
        start_s = time.perf_counter()
        try:
            module = point.load()
            self._register(module, plugin.key)
            for kind in KINDS.values():
                for component in self._collect(kind, module):
                    plugin.components.append((kind.name, component))
        except (Exception, SystemExit) as error:
            plugin.fail(error)
            plugin.components.clear()
            if self.manager.has_plugin(plugin.key):  # a broken plugin offers no commands either
                self.manager.unregister(name=plugin.key)
        plugin.load_s = time.perf_counter() - start_s
        for kind_name, component in plugin.components:
            entry = Registered(KINDS[kind_name], component, plugin)
            self._components.setdefault((kind_name, component.name), []).append(entry)

    def _register(self, module: object, name: str) -> None:
        """Hand the module to pluggy; refuse hooks that ssmdiff lacks, and wrong arguments."""
        try:
            self.manager.register(module, name=name)
        except pluggy.PluginValidationError as error:
            raise ContractError(" ".join(str(error).split())) from error
        for caller in self.manager.get_hookcallers(module) or ():
            if not caller.has_spec():
                known = (hook for hook in vars(hookspecs) if hook.startswith("ssmdiff_"))
                raise ContractError(
                    f"hook {caller.name!r} is not one of ssmdiff's; "
                    f"{did_you_mean(caller.name, known)}"
                )

    def _collect(self, kind: Kind, module: object) -> Iterator[Component]:
        names: set[str] = set()
        for implementation in getattr(self.manager.hook, kind.hook).get_hookimpls():
            if implementation.plugin is not module:
                continue
            offered = implementation.function()
            if not isinstance(offered, Iterable):
                raise ContractError(
                    f"hook {kind.hook!r} returned a {type(offered).__name__}; "
                    "expected ssmdiff.Component records, yielded or in a list"
                )
            for component in offered:
                if not isinstance(component, Component):
                    raise ContractError(
                        f"hook {kind.hook!r} yielded a {type(component).__name__}; "
                        "expected ssmdiff.Component records"
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

    def commands(self) -> list[tuple[str, Any]]:
        """Sub-commands that plugins add to the command line: names and Typer apps."""
        found: list[tuple[str, Any]] = []
        plugins = {plugin.key: plugin for plugin in self.plugins}
        for implementation in self.manager.hook.ssmdiff_commands.get_hookimpls():
            try:
                offered: Any = implementation.function()
                found += [(name, command) for name, command in offered]
            except (Exception, SystemExit) as error:
                plugins[implementation.plugin_name].fail(error)
        return found

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
            kind: One of :data:`ssmdiff.component.KINDS`.
            spec: A name, or a mapping with ``name`` and options.
            path: Where the spec stands in a configuration, for messages.

        Raises:
            ConfigError: An option is unknown, of the wrong type or out of range.
        """
        name, options = split_spec(kind, spec, path)
        entry = self.find(kind, name)
        chosen = resolve_options(entry.factory(), entry.kind, entry.label, options, path)
        return {"name": name, **chosen}

    def create(self, kind: str, spec: str | Mapping[str, Any], /, **arguments: Any) -> Any:
        """Build a component: wired arguments of its kind, and its options, validated.

        Raises:
            ConfigError: Unknown name or option.
            PluginError: The plugin is broken, in conflict, or fails while building.
        """
        name, options = split_spec(kind, spec)
        entry = self.find(kind, name)
        wired = {key: arguments.pop(key) for key in entry.kind.wired if key in arguments}
        factory = entry.factory()
        chosen = resolve_options(factory, entry.kind, entry.label, {**options, **arguments})
        try:
            return factory(**_accepted(factory, entry.kind, wired), **chosen)
        except SsmdiffError:
            raise
        except ModuleNotFoundError as error:
            raise PluginBrokenError(f"{entry.label} {_needs(error, entry.plugin)}") from error
        except (Exception, SystemExit) as error:
            raise PluginBrokenError(
                f"{entry.label} failed while it was built: {_name_of(error)}"
            ) from error


def _accepted(factory: Any, kind: Kind, wired: dict[str, Any]) -> dict[str, Any]:
    """The wired arguments that the factory takes: a convolution has no use for directions."""
    taken = inspect.signature(factory).parameters
    return {key: value for key, value in wired.items() if key in taken}


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


def _distribution(point: EntryPoint) -> tuple[str, str]:
    dist = point.dist
    # Damaged metadata gives None for either, whatever its annotation says.
    return (dist.name or "unknown", dist.version or "0") if dist else ("unknown", "0")


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip().lower())


def _name_of(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _is_part_of(module: str, package: str | None) -> bool:
    """Whether the module itself is what is missing, not something that it imports."""
    return package is None or f"{module}.".startswith(f"{package}.")


def _needs(error: ModuleNotFoundError, plugin: Plugin) -> str:
    # What to install: the extra of ours that carries the package, or the package itself.
    install = "'ssmdiff[all]'" if plugin.built_in else error.name
    return (
        f"needs the Python package {error.name!r}, which is not installed. "
        f"Try: pip install {install}"
    )


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


__all__ = ["Plugin", "PluginError", "Registered", "Registry", "create", "registry", "split_spec"]
