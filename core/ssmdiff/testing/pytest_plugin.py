"""``pytest --ssmdiff``: one test for each check of each registered component.

Without the flag nothing is collected and nothing is imported. ``--ssmdiff=DIST`` takes the
components of one distribution. The tests carry the marker ``ssmdiff``, so that
``-m ssmdiff`` leaves out the project's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ssmdiff.registry.plugin import Registered
    from ssmdiff.testing import Suite

EVERYTHING = "*"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("ssmdiff").addoption(
        "--ssmdiff",
        metavar="DIST",
        nargs="?",
        const=EVERYTHING,
        help="check every component that ssmdiff knows, or those of one distribution: "
        "--ssmdiff=DIST",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "ssmdiff: a check of ssmdiff's contract suite")


@pytest.hookimpl(tryfirst=True)  # before -k and -m choose
def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    wanted = session.config.getoption("--ssmdiff")
    if wanted is None:
        return
    for entry in _components(wanted):
        name = f"{entry.kind.name}:{entry.component.name}"
        collector = ComponentCollector.from_parent(
            session, name=name, nodeid=f"ssmdiff::{name}", entry=entry
        )
        items.extend(collector.collect())


def _components(wanted: str) -> list[Registered]:
    from ssmdiff.errors import SsmdiffError, did_you_mean
    from ssmdiff.registry.registry import registry

    try:
        entries = registry().all()
    except SsmdiffError as error:
        raise pytest.UsageError(str(error)) from error
    if wanted == EVERYTHING:
        return entries
    of_dist = [entry for entry in entries if entry.plugin.distribution == wanted]
    if not of_dist:
        known = {plugin.distribution for plugin in registry().plugins}
        raise pytest.UsageError(
            f"--ssmdiff: no distribution {wanted!r} has a component to check; "
            f"{did_you_mean(wanted, known)} (a path goes before the flag: pytest tests --ssmdiff)"
        )
    return of_dist


class ComponentCollector(pytest.Collector):
    """The checks of one component; they share what is built for them."""

    def __init__(self, *, entry: Registered, **options: Any) -> None:
        super().__init__(**options)
        self.entry = entry

    def collect(self) -> Iterator[pytest.Item]:
        for name in self.suite.checks:
            item = ContractItem.from_parent(self, name=name)
            item.add_marker("ssmdiff")
            yield item

    @property
    def suite(self) -> Suite[Any]:
        from ssmdiff.testing import suite_for

        return suite_for(self.entry.kind.name)

    def subject(self) -> Any:
        """What the checks look at, built once."""
        from ssmdiff.testing import why_unchecked

        if not hasattr(self, "_subject"):
            reason = why_unchecked(self.entry, {})
            if reason:
                kind = self.entry.kind.name
                pytest.skip(f"{reason}; write a test with ssmdiff.testing.check_{kind}")
            self._subject = self.suite.subject(self.entry.component.name)
        return self._subject


class ContractItem(pytest.Item):
    """One check of one component."""

    parent: ComponentCollector

    def runtest(self) -> None:
        subject = self.parent.subject()
        finding = self.parent.suite.finding(subject, self.name)
        if finding.skipped:
            pytest.skip(finding.detail)
        if not finding.ok:
            raise _FailedCheckError(f"{subject.label}: {finding.name}: {finding.detail}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        from ssmdiff.errors import SsmdiffError

        if isinstance(excinfo.value, _FailedCheckError | SsmdiffError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[str, None, str]:
        return "ssmdiff", None, f"{self.parent.name} {self.name}"


class _FailedCheckError(Exception):
    """The finding, without a traceback through the suite."""
