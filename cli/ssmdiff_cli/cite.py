"""``ssmdiff cite``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from ssmdiff import __version__
from ssmdiff.errors import ConfigError, did_you_mean
from ssmdiff.registry.component import KINDS
from ssmdiff.registry.registry import registry

from ssmdiff_cli.flags import names_of

if TYPE_CHECKING:
    from ssmdiff.runs.published import DataTerms


def cite(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME...",
            help="Components, or folders of runs.",
            autocompletion=names_of(*KINDS),
        ),
    ] = None,
) -> None:
    """Print BibTeX for ssmdiff itself, and for components, or for all components of a run."""
    from ssmdiff_cli.citations import bibtex, collected, own

    ours = own(__version__)
    users: dict[str, list[str]] = {ours.identity: ["ssmdiff itself"]}
    references = [ours.text]
    for kind, name in dict.fromkeys(pair for named in names or () for pair in _components(named)):
        reference = registry().find(kind, name).component.cite
        if not reference:
            typer.echo(f"% {kind} {name}: nothing to cite")
            continue
        references.append(reference)
        for entry in bibtex(reference):
            users.setdefault(entry.identity, []).append(f"{kind} {name}")
    for terms in filter(None, map(_terms, names or ())):
        references.append(terms.cite)
        typer.echo(f"% data {terms.name}: {terms.licence}")
        for entry in bibtex(terms.cite):
            users.setdefault(entry.identity, []).append(f"data {terms.name}")
    for entry in collected(references):
        typer.echo(f"% {', '.join(users[entry.identity])}")
        typer.echo(entry.text)


def _terms(named: str) -> DataTerms | None:
    """Of the data that a run was trained on, if its terms are known."""
    from ssmdiff.runs.folder import RunFolder
    from ssmdiff.runs.published import terms_of

    folder = RunFolder(Path(named))
    return terms_of(folder.data_record().get("terms", {})) if folder.exists else None


def _components(named: str) -> list[tuple[str, str]]:
    """Kinds and names: those of a component's name, or of a run's configuration.

    Raises:
        ConfigError: It is neither.
    """
    found = registry()
    kinds = [kind for kind in KINDS if named in found.names(kind)]
    if kinds:
        return [(kind, named) for kind in kinds]
    if Path(named).is_dir():
        from ssmdiff.runs.config import resolve
        from ssmdiff.runs.folder import RunFolder

        config = resolve(RunFolder(Path(named)).config_layer())
        return [pair for k, t in config.components().values() for pair in _nested(k, t)]
    known = {name for kind in KINDS for name in found.names(kind)}
    raise ConfigError(
        f"{named}: there is no component of that name and no folder of a run; "
        f"{did_you_mean(named, known)}"
    )


def _nested(kind: str, table: object) -> list[tuple[str, str]]:
    """A component and those of its kind among its options: regenerate over hilbert is two."""
    if isinstance(table, list | tuple):
        return [pair for item in table for pair in _nested(kind, item)]
    name = table.get("name") if isinstance(table, dict) else table
    if not isinstance(name, str) or name not in registry().names(kind):
        return []
    inner = table.items() if isinstance(table, dict) else ()
    return [
        (kind, name),
        *(pair for key, value in inner if key != "name" for pair in _nested(kind, value)),
    ]
