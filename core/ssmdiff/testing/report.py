"""What the checks of a component found, worded for whoever has to act on it. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ssmdiff.errors import ContractError


class ViolationError(Exception):
    """A promise that a component does not keep.

    Args:
        got: What was found, and where.
        expected: What the contract says.
        hint: The next step, if there is one to name.
    """

    def __init__(self, got: Any, expected: Any, hint: str = "") -> None:
        super().__init__(f"got {got}; expected {expected}" + (f". Try: {hint}" if hint else ""))


class NotApplicableError(Exception):
    """The check has nothing to look at in this component; says why."""


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Args:
        name: The check, such as ``permutation``.
        ok: False if the component fails it.
        detail: What was looked at, or what was got, what was expected and what to do next.
        skipped: There was nothing to check; ``ok`` is True then.
    """

    name: str
    ok: bool
    detail: str
    skipped: bool = False

    @property
    def status(self) -> str:
        """``ok``, ``skip`` or ``FAIL``."""
        return "skip" if self.skipped else "ok" if self.ok else "FAIL"

    def __str__(self) -> str:
        return f"{self.status:<5} {self.name:<14} {self.detail}"


@dataclass(frozen=True)
class Report:
    """All findings about one component, in the order of the checks.

    Args:
        subject: The component and who ships it, as messages name it.
        findings: One for each check.
    """

    subject: str
    findings: tuple[Finding, ...]

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failures

    @property
    def failures(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self if not finding.ok)

    @property
    def summary(self) -> str:
        """One line: how many checks, how many failed."""
        skipped = sum(finding.skipped for finding in self)
        apart = f", {skipped} skipped" if skipped else ""
        return f"{self.subject}: {len(self)} checks, {len(self.failures)} failed{apart}"

    def __str__(self) -> str:
        return "\n".join([self.summary, *(f"  {finding}" for finding in self)])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for ``--json``."""
        return {
            "subject": self.subject,
            "ok": self.ok,
            "findings": [
                {"name": f.name, "status": f.status.lower(), "detail": f.detail} for f in self
            ],
        }

    def raise_for_failures(self) -> None:
        """Nothing if all is well.

        Raises:
            ContractError: A check failed; the message has every failure.
        """
        if not self.ok:
            lines = "".join(f"\n  {finding}" for finding in self.failures)
            raise ContractError(f"{self.summary}{lines}")
