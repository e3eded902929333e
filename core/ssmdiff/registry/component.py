"""The record by which a plugin offers a part, and the kinds of part there are. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ssmdiff.errors import ContractError

_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")


@dataclass(frozen=True)
class Kind:
    """A kind of component: the hook that yields it and the arguments that ssmdiff itself supplies.

    ``wired`` are the factory parameters that the composition fills in (a block's channels, say).
    Every other parameter of a factory is an option that a user may set. Where ``built`` is False
    nothing is built from options: a command is run.
    """

    name: str
    hook: str
    wired: tuple[str, ...] = ()
    built: bool = True


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("scan", "ssmdiff_scans"),
        Kind("block", "ssmdiff_blocks", ("channels", "time_channels", "directions")),
        Kind("backbone", "ssmdiff_backbones", ("in_channels", "scan", "block", "num_classes")),
        Kind("method", "ssmdiff_methods", ("config", "channels", "classes")),
        Kind("gan", "ssmdiff_gans", ("channels", "image_size", "latent_size")),
        Kind("loss", "ssmdiff_losses"),
        Kind("scheduler", "ssmdiff_schedulers", ("betas", "prediction_type", "trained_shift")),
        Kind("kernel", "ssmdiff_kernels"),
        Kind("dataset", "ssmdiff_datasets", ("image_size",)),
        Kind("reader", "ssmdiff_readers"),
        Kind("writer", "ssmdiff_writers"),
        Kind("exporter", "ssmdiff_exporters"),
        Kind("features", "ssmdiff_features"),
        Kind("metric", "ssmdiff_metrics"),
        Kind("callback", "ssmdiff_callbacks"),
        Kind("command", "ssmdiff_commands", built=False),
    )
}


@dataclass(frozen=True)
class Component:
    """One part that a plugin offers, yielded by the hook of its kind.

    Args:
        name: What a user types: lower-case ASCII words joined by ``-`` or ``_``.
        factory: A class or function, or ``"package.module:Name"`` so that listing stays light.
        summary: One line for ``ssmdiff plugins list``.
        cite: A BibTeX entry or a reference in one line, for ``ssmdiff cite``.

    Raises:
        ContractError: The name, the factory or the summary is not of that form.
    """

    name: str
    factory: str | Callable[..., Any]
    summary: str
    cite: str = ""

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and _NAME.fullmatch(self.name)):
            raise ContractError(
                f"component name {self.name!r} is not allowed; expected lower-case ASCII words "
                "joined by '-' or '_', such as 'my-scan'"
            )
        self._check_target("factory", self.factory)
        if not (isinstance(self.summary, str) and self.summary.strip()):
            raise ContractError(f"component {self.name!r} has no summary; one line is enough")

    def _check_target(self, field: str, target: object) -> None:
        """A callable, or the place of one: ``"package.module:Name"``."""
        if isinstance(target, str):
            module, _, attribute = target.partition(":")
            parts = [*module.split("."), *attribute.split(".")]
            if not all(part.isidentifier() for part in parts):
                raise ContractError(
                    f"component {self.name!r}: {field} {target!r} is not of the form "
                    "'package.module:Name'"
                )
        elif not callable(target):
            raise ContractError(
                f"component {self.name!r}: {field} is a {type(target).__name__}; expected a "
                "callable or 'package.module:Name'"
            )


@dataclass(frozen=True)
class Command(Component):
    """A command of ``ssmdiff``, and the job behind it, for Python and for other jobs.

    Its ``factory`` is a function with typed parameters as Typer reads them, or a ``typer.Typer``
    for a command with sub-commands; named by a string, it is imported when the command is called.

    Args:
        job: What :func:`ssmdiff.job` returns for the command's name: a callable, or
            ``"package.module:attribute"``. None if the command has nothing to offer in Python.
        examples: Lines to type, ``ssmdiff NAME ...``, shown below the help of the command or
            sub-command that they call.

    Raises:
        ContractError: As :class:`Component`, and where the job or a line is not of that form.
    """

    job: str | Callable[..., Any] | None = None
    examples: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.job is not None:
            self._check_target("job", self.job)
        for line in self.examples:
            if line.split()[:2] != ["ssmdiff", self.name]:
                raise ContractError(
                    f"command {self.name!r}: the example {line!r} does not begin with "
                    f"'ssmdiff {self.name}'"
                )
