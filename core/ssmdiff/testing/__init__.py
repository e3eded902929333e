"""The contract suite: what every component of a kind must do, checked without writing a test.

One function per kind takes what a configuration holds, a name or a table with options, and gives a
:class:`Report`::

    from ssmdiff.testing import check_scan

    check_scan({"name": "spiral", "turns": 2}).raise_for_failures()

``pytest --ssmdiff`` runs the same over everything registered, and so do ``ssmdiff plugins check``
and ``ssmdiff scans check`` from the shell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssmdiff.testing.report import Finding, NotApplicableError, Report, ViolationError
from ssmdiff.testing.suite import SUITES, Suite, suite_for, why_unchecked

Spec = str | Mapping[str, Any]
"""A component as a configuration names it: its name, or a table with ``name`` and options."""

__all__ = [
    "SUITES",
    "Finding",
    "NotApplicableError",
    "Report",
    "Suite",
    "ViolationError",
    "check",
    "check_backbone",
    "check_block",
    "check_callback",
    "check_command",
    "check_dataset",
    "check_exporter",
    "check_features",
    "check_gan",
    "check_kernel",
    "check_loss",
    "check_method",
    "check_metric",
    "check_reader",
    "check_scan",
    "check_scheduler",
    "check_writer",
    "suite_for",
    "why_unchecked",
]


def check(kind: str, spec: Spec) -> Report:
    """Every check of a kind on one component.

    Raises:
        ConfigError: There is no such component, an option does not fit, or the kind has no checks.
        PluginError: The component's plugin is broken or in conflict, or fails while building it.
    """
    return suite_for(kind).run(spec)


def check_scan(spec: Spec) -> Report:
    """Permutations on every grid, inverses, continuity, kernels, gradients, randomness."""
    return check("scan", spec)


def check_block(spec: Spec) -> Report:
    """Shapes, precision, gradients, and that input, time, orders and restarts all matter."""
    return check("block", spec)


def check_backbone(spec: Spec) -> Report:
    """Sizes, timesteps, slots and orders, conditioning, gradients and the exported graph."""
    return check("backbone", spec)


def check_method(spec: Spec) -> Report:
    """Networks, draws, steps that move what they say, and images of a seed and an index."""
    return check("method", spec)


def check_gan(spec: Spec) -> Report:
    """Sizes and channels, images within -1 to 1, one verdict an image, gradients, the graph."""
    return check("gan", spec)


def check_loss(spec: Spec) -> Report:
    """One value for each verdict, finite, falling where verdicts become right."""
    return check("loss", spec)


def check_scheduler(spec: Spec) -> Report:
    """The protocol, the closed form of the noise, and a distribution that is known."""
    return check("scheduler", spec)


def check_kernel(spec: Spec) -> Report:
    """Forward and every gradient against the float64 reference, on odd shapes and any order."""
    return check("kernel", spec)


def check_dataset(spec: Spec) -> Report:
    """Types, ranges, and that an image is a function of its index alone."""
    return check("dataset", spec)


def check_reader(spec: Spec) -> Report:
    """Files known by content, values as their header says, and damage that is a sentence."""
    return check("reader", spec)


def check_writer(spec: Spec) -> Report:
    """One whole file, the same bytes each time, that holds the image."""
    return check("writer", spec)


def check_exporter(spec: Spec) -> Report:
    """A file that is whole or not there, known by its content, with the images of the run."""
    return check("exporter", spec)


def check_features(spec: Spec) -> Report:
    """Vectors of each image alone, their digest, randomness, and what does not fit."""
    return check("features", spec)


def check_metric(spec: Spec) -> Report:
    """Figures, their names, order and determinism, and too few images."""
    return check("metric", spec)


def check_callback(spec: Spec) -> Report:
    """Its hooks, and that a run heard by it is the run that it would be alone."""
    return check("callback", spec)


def check_command(spec: Spec) -> Report:
    """Its help, a flag that it does not know, and the job that Python calls."""
    return check("command", spec)
