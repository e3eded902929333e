"""The records that the registry keeps: a plugin, and a component with the plugin that gave it."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import re
import traceback
from dataclasses import dataclass, field
from typing import Any

from ssmdiff.errors import PluginBrokenError, SsmdiffError
from ssmdiff.registry.component import Component, Kind

BUILT_IN = "ssmdiff"
SLOW_S = 2.0
"""A plugin that takes longer to load is warned of: every command pays for it."""


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

    @property
    def slow(self) -> bool:
        """Whether it took so long to load that a user should know whom to blame."""
        return self.load_s > SLOW_S

    def fail(self, error: BaseException) -> None:
        """Mark as broken; the first failure is the one that is told."""
        if not self.error:
            if isinstance(error, ModuleNotFoundError) and not is_part_of(self.module, error.name):
                text = missing_module(error, self)
            else:
                text = str(error) if isinstance(error, SsmdiffError) else name_of(error)
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
        return self._imported(self.component.factory)

    def job(self) -> Any:
        """What a command's record names as its job, imported now; None if it names nothing.

        Raises:
            PluginBrokenError: The import fails, or the name is not there.
        """
        return self._imported(getattr(self.component, "job", None))

    def _imported(self, target: Any) -> Any:
        if not isinstance(target, str):
            return target
        module, _, attribute = target.partition(":")
        try:
            return functools.reduce(getattr, attribute.split("."), importlib.import_module(module))
        except ModuleNotFoundError as error:
            if is_part_of(module, error.name):
                raise self._broken(target, error) from error
            raise PluginBrokenError(f"{self.label} {missing_module(error, self.plugin)}") from error
        except (Exception, SystemExit) as error:
            raise self._broken(target, error) from error

    def _broken(self, target: str, error: BaseException) -> PluginBrokenError:
        return PluginBrokenError(
            f"{self.label} cannot be imported from {target!r}: {name_of(error)}"
        )


def name_of(error: BaseException) -> str:
    """The kind of an error and what it says."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def is_part_of(module: str, package: str | None) -> bool:
    """Whether the module itself is what is missing, not something that it imports."""
    return package is None or f"{module}.".startswith(f"{package}.")


_DISTRIBUTIONS = {"PIL": "pillow", "pywt": "PyWavelets", "skimage": "scikit-image"}
"""Packages whose distribution has another name."""


def missing_module(error: ModuleNotFoundError, plugin: Plugin) -> str:
    """What is missing and what to install: our extra that brings it, or the package itself."""
    package = str(error.name).partition(".")[0]
    name = _DISTRIBUTIONS.get(package, package)
    extra = _extra_of(name.lower().replace("_", "-"), plugin.name) if plugin.built_in else None
    install = f"'ssmdiff[{extra}]'" if extra else name
    return (
        f"needs the Python package {package!r}, which is not installed. Try: pip install {install}"
    )


def _extra_of(name: str, plugin: str) -> str | None:
    """The extra that names a distribution, or one that requires it, as the metadata have it.

    Of several that do, the one called as the plugin that asks.
    """
    ours = {(n, e) for n, e in _requirements(BUILT_IN) if e != "all"}
    direct = {e for n, e in ours if n == name}
    if not direct:
        direct = {e for n, e in ours if e and (name, None) in _requirements(n)}
    if None in direct:
        return None
    return plugin if plugin in direct else min(filter(None, direct), default=None)


def _requirements(distribution: str) -> set[tuple[str, str | None]]:
    """The distributions that one requires, each with the extra that does; nothing if not here."""
    try:
        lines = importlib.metadata.requires(distribution) or ()
    except importlib.metadata.PackageNotFoundError:
        return set()
    pattern = re.compile(r"""([\w.-]+)(?:.*\bextra == ['"]([\w-]+)['"])?""")
    found = (match for line in lines if (match := pattern.match(line)))
    return {(match[1].lower().replace("_", "-"), match[2]) for match in found}
