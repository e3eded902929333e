"""A suite: the checks of one kind, run one by one so that each failure stands by itself.

A check is a function of the subject. It returns what it looked at in a few words, raises
:class:`~ssmdiff.testing.report.ViolationError` where the component breaks its contract, and
:class:`~ssmdiff.testing.report.NotApplicableError` where there is nothing to look at. Any other
exception is a failure of the component too, reported with the line that raised it.
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from ssmdiff.errors import ConfigError, PluginBrokenError, SsmdiffError, did_you_mean
from ssmdiff.registry.component import KINDS
from ssmdiff.registry.plugin import Registered, name_of
from ssmdiff.registry.registry import registry, split_spec
from ssmdiff.testing.report import Finding, NotApplicableError, Report, ViolationError

SUITES = {
    "scan": "ssmdiff.testing.scan",
    "block": "ssmdiff.testing.block",
    "backbone": "ssmdiff.testing.backbone",
    "method": "ssmdiff.testing.method",
    "gan": "ssmdiff.testing.gan",
    "loss": "ssmdiff.testing.loss",
    "scheduler": "ssmdiff.testing.scheduler",
    "kernel": "ssmdiff.testing.kernel",
    "dataset": "ssmdiff.testing.dataset",
    "reader": "ssmdiff.testing.reader",
    "writer": "ssmdiff.testing.writer",
    "exporter": "ssmdiff.testing.exporter",
    "features": "ssmdiff.testing.features",
    "metric": "ssmdiff.testing.metric",
    "callback": "ssmdiff.testing.callback",
    "command": "ssmdiff.testing.command",
}
"""The suite of each kind: the module that holds it as ``suite``, imported when it is asked for."""


class Subject:
    """The component under the checks. A suite's own subject adds what its checks share.

    Args:
        kind: Its kind.
        spec: Its name, or a table with options.

    Raises:
        ConfigError: There is no such component, or an option does not fit.
    """

    def __init__(self, kind: str, spec: str | Mapping[str, Any]) -> None:
        self.kind, self.spec = kind, spec
        self.name, chosen = split_spec(kind, spec)
        self.entry: Registered = registry().find(kind, self.name)
        _require_options(self.entry, chosen)
        options = ", ".join(f"{key} = {value!r}" for key, value in chosen.items())
        self.label = self.entry.label + (f" with {options}" if options else "")

    def build(self, **wired: Any) -> Any:
        """A new one of the component."""
        return registry().create(self.kind, self.spec, **wired)


S = TypeVar("S", bound=Subject)


class Suite(Generic[S]):
    """The checks of one kind, in the order in which they run.

    Args:
        kind: One of :data:`ssmdiff.registry.component.KINDS`.
        subject: Makes the subject of a spec.
    """

    def __init__(self, kind: str, subject: Callable[[str, str | Mapping[str, Any]], S]) -> None:
        self.kind, self._subject = kind, subject
        self.checks: dict[str, Callable[[S], str]] = {}

    def check(self, function: Callable[[S], str]) -> Callable[[S], str]:
        """Decorator: add a check, named as the function."""
        self.checks[function.__name__.replace("_", "-")] = function
        return function

    def subject(self, spec: str | Mapping[str, Any]) -> S:
        """What the checks look at."""
        return self._subject(self.kind, spec)

    def run(self, spec: str | Mapping[str, Any]) -> Report:
        """Every check on one component."""
        subject = self.subject(spec)
        return Report(subject.label, tuple(self.findings(subject)))

    def findings(self, subject: S) -> Iterator[Finding]:
        """The findings one by one, for whoever waits for them."""
        return (self.finding(subject, name) for name in self.checks)

    def finding(self, subject: S, name: str) -> Finding:
        """The outcome of one check."""
        try:
            return Finding(name, True, self.checks[name](subject))
        except NotApplicableError as reason:
            return Finding(name, True, str(reason), skipped=True)
        except ViolationError as violation:
            return Finding(name, False, str(violation))
        except SsmdiffError as error:
            return Finding(name, False, str(error))
        except (Exception, SystemExit) as error:
            return Finding(name, False, f"{name_of(error)} {_where(error)}")


def _where(error: BaseException) -> str:
    """The deepest line outside ssmdiff's core and torch: most likely the component's own."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = ("/ssmdiff/", "/torch/", "/numpy/", "<")
    outside = [frame for frame in frames if not any(part in frame.filename for part in ours)]
    frame = (outside or frames)[-1]
    return f"({frame.filename}, line {frame.lineno})"


def _require_options(entry: Registered, options: Mapping[str, Any]) -> None:
    """Nothing if a component of these options can be built, or run as a command is.

    Raises:
        ConfigError: An option is missing, unknown or out of range.
        PluginBrokenError: It cannot be imported.
    """
    if entry.kind.built:
        registry().options(entry.kind.name, {"name": entry.component.name, **options})
    elif options:
        raise ConfigError(
            f"{entry.label} takes no options but its own flags; got {', '.join(options)}"
        )


def why_unchecked(entry: Registered, options: Mapping[str, Any]) -> SsmdiffError | None:
    """Why a component cannot be checked as it is, though there is nothing wrong with it: it needs
    an option, or a package of one of our extras that is not installed.

    Raises:
        PluginBrokenError: There is something wrong with it: it cannot be imported.
    """
    try:
        _require_options(entry, options)
    except ConfigError as error:
        return error
    except PluginBrokenError as error:
        if entry.plugin.built_in and isinstance(error.__cause__, ModuleNotFoundError):
            return error
        raise
    return None


def suite_for(kind: str) -> Suite[Any]:
    """The suite of a kind.

    Raises:
        ConfigError: There is no such kind, or it has no checks.
    """
    if kind not in KINDS:
        raise ConfigError(f"there is no kind {kind!r}; {did_you_mean(kind, KINDS)}")
    if kind not in SUITES:
        raise ConfigError(f"kind {kind!r} has no checks; those that have: {', '.join(SUITES)}")
    suite: Suite[Any] = importlib.import_module(SUITES[kind]).suite
    return suite
