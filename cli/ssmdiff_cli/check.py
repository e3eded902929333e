"""``ssmdiff scans check`` and ``ssmdiff plugins check``: the contract suite from the shell."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from ssmdiff.errors import ConfigError, ContractError, PluginBrokenError, did_you_mean
from ssmdiff.registry.component import KINDS
from ssmdiff.registry.registry import registry

from ssmdiff_cli.flags import names_of

if TYPE_CHECKING:
    from ssmdiff.registry.plugin import Registered
    from ssmdiff.testing import Report

Sets = Annotated[
    list[str] | None, typer.Option("--set", help="option=value of the component, such as block=2.")
]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


def check_scan(
    name: Annotated[
        str,
        typer.Argument(help="A scan; see: ssmdiff scans list.", autocompletion=names_of("scan")),
    ],
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Prove a scan: permutations, inverses, continuity, kernels, gradients, randomness."""
    _check([registry().find("scan", name)], sets, as_json)


def check_plugin(
    name: Annotated[
        str,
        typer.Argument(
            help="A component, or a distribution for all it has.", autocompletion=names_of(*KINDS)
        ),
    ],
    kind: Annotated[
        str | None, typer.Option(help="scan, block, ... where a name is of several kinds.")
    ] = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Run the contract suite on a component, or on everything that a distribution offers."""
    _check(_named(name, kind), sets, as_json)


def _named(name: str, kind: str | None) -> list[Registered]:
    """The components that are meant.

    Raises:
        ConfigError: There are none.
        PluginBrokenError: The distribution's plugin does not load.
    """
    found = registry()
    if kind is not None:
        return [found.find(kind, name)]
    kinds = [of for of in KINDS if name in found.names(of)]
    if kinds:
        return [found.find(of, name) for of in kinds]
    for plugin in found.plugins:
        if plugin.distribution == name and plugin.error:
            raise PluginBrokenError(
                f"plugin {plugin.name!r} ({plugin.source}) failed to load: {plugin.error}\n"
                f"{plugin.detail.rstrip()}"
            )
    entries = [entry for entry in found.all() if entry.plugin.distribution == name]
    if not entries:
        known = {entry.component.name for entry in found.all()}
        known |= {plugin.distribution for plugin in found.plugins}
        near = did_you_mean(name, known)
        raise ConfigError(
            f"there is no component or distribution named {name!r}; "
            + (near if near.startswith("did") else "see: ssmdiff plugins list")
        )
    return entries


def _check(entries: list[Registered], sets: list[str] | None, as_json: bool) -> None:
    from ssmdiff.runs.config import assignments
    from ssmdiff.testing import why_unchecked

    options = assignments(sets or ())
    reports: list[Report] = []
    for entry in entries:
        reason = why_unchecked(entry, options)
        if reason is None:
            spec = {"name": entry.component.name, **options}
            reports.append(_report(entry.kind.name, spec, as_json))
            continue
        if len(entries) == 1:
            hint = ". Options are given with --set option=value"
            raise type(reason)(f"{reason}{hint if isinstance(reason, ConfigError) else ''}")
        _say(as_json, f"{entry.label}: not checked by itself, {reason}\n")
    if as_json:
        typer.echo(json.dumps([report.to_dict() for report in reports], indent=2))
    if not reports:
        raise ConfigError(
            f"none of {len(entries)} components was checked; each needs options, and is checked by "
            "its own name with --set option=value"
        )
    failed = [report for report in reports if not report.ok]
    if failed:
        sentences = "; ".join(
            f"{report.subject} fails {', '.join(f.name for f in report.failures)}"
            for report in failed
        )
        raise ContractError(f"{sentences}. What each asks for stands in its line")


def _report(kind: str, spec: dict[str, Any], as_json: bool) -> Report:
    """Runs every check, and says each finding as it comes.

    Raises:
        ConfigError: The kind has no suite.
    """
    from ssmdiff.testing import Finding, Report, suite_for

    suite = suite_for(kind)
    subject = suite.subject(spec)
    _say(as_json, subject.label)
    findings: list[Finding] = []
    for finding in suite.findings(subject):
        _say(as_json, f"  {finding}")
        findings.append(finding)
    report = Report(subject.label, tuple(findings))
    _say(as_json, f"  {report.summary.rpartition(': ')[2]}\n")
    return report


def _say(as_json: bool, line: str) -> None:
    if not as_json:
        typer.echo(line)
