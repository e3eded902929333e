"""``ssmdiff turing plan``, ``make`` and ``score``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from ssmdiff import ConfigError

app = typer.Typer(
    help="Whether doctors can tell the images of a model from real ones.", no_args_is_help=True
)

Pairs = Annotated[
    bool, typer.Option("--forced-choice", help="Pairs; the reader picks the synthetic one.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the record as JSON.")]


@app.callback()
def turing() -> None:
    """A page that doctors open, without a network: real and synthetic images, to be told apart."""


@app.command()
def plan(
    margin: Annotated[
        float, typer.Option(help="Shares judged real that differ by less count as alike.")
    ] = 0.15,
    doctors: Annotated[str, typer.Option(help="Numbers of doctors to plan for.")] = "1,2,3,5",
    power: Annotated[float, typer.Option(help="The chance to show what is so.")] = 0.8,
    rate: Annotated[
        float, typer.Option(help="The share of images judged real; a half is the worst case.")
    ] = 0.5,
    agreement: Annotated[
        float, typer.Option(help="Correlation of two doctors' answers about one image.")
    ] = 0.2,
    forced_choice: Pairs = False,
    as_json: AsJson = False,
) -> None:
    """How many images of each kind a margin needs, for some numbers of doctors."""
    import json

    from ssmdiff_turing.job import turing as job

    parts = [part.strip() for part in doctors.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ConfigError(f"--doctors {doctors}: expected whole numbers such as 1,2,3")
    found = job.plan(
        margin,
        [int(part) for part in parts],
        power=power,
        rate=rate,
        agreement=agreement,
        forced_choice=forced_choice,
    )
    if as_json:
        typer.echo(json.dumps(found.fields(), indent=2))
        return
    head = "pairs" if forced_choice else "images of each kind"
    typer.echo(f"doctors  {head:>19}  answers each  shows equivalence  finds a difference")
    for row in found.rows:
        typer.echo(
            f"{row.doctors:>7}  {row.images:>19}  {row.answers:>12}  {row.equivalence:>17.2f}  "
            f"{row.difference:>18.2f}"
        )
    typer.echo(
        f"margin {margin:g}; doctors' answers about one image correlate by {agreement:g}; the last "
        "two columns are chances, of a difference of 0 and of one as large as the margin."
    )


@app.command()
def make(
    model: Annotated[
        Path, typer.Argument(help="A run, a file of ssmdiff export, or a folder of images.")
    ],
    real: Annotated[
        str,
        typer.Option(help="Real images: a run (its data), a data set by name, a store, a folder."),
    ],
    out: Annotated[Path, typer.Option(help="A new folder for the page and the key.")],
    n: Annotated[int, typer.Option("--n", "--count", min=2, help="Images of each kind.")] = 100,
    forced_choice: Pairs = False,
    margin: Annotated[
        float, typer.Option(help="Of the equivalence test; it is set now, and kept in the key.")
    ] = 0.15,
    counted: Annotated[
        str, typer.Option(help="The least confidence that counts: low (all), medium or high.")
    ] = "low",
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Real images of patients that training never saw.")
    ] = False,
    title: Annotated[str, typer.Option(help="Over the page.")] = "Real or synthetic?",
    seed: Annotated[int, typer.Option(min=0, help="Which images; never their order.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Sampling steps.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="Noise scheduler.")] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Of a run: latest (default), or step-NNNNNNNN.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images drawn at once.")] = 16,
) -> None:
    """Write the page for doctors, and its key."""
    from ssmdiff_turing.job import KEY
    from ssmdiff_turing.job import turing as job

    page = job.make(
        model,
        real,
        out,
        n=n,
        seed=seed,
        forced_choice=forced_choice,
        margin=margin,
        counted=counted,  # type: ignore[arg-type]
        held_out=held_out,
        title=title,
        steps=steps,
        scheduler=scheduler,
        checkpoint=checkpoint,
        batch_size=batch_size,
        progress=True,
    )
    typer.echo(f"page: {page} ({page.stat().st_size / 1e6:.1f} MB; it holds real images)")
    typer.echo(f"key: {out / KEY} (keep it; without it nothing can be scored)")


@app.command()
def score(
    answers: Annotated[list[Path], typer.Argument(help="What each doctor sent: answers-*.json.")],
    key: Annotated[Path, typer.Option(help="key.json of the study.")],
    page: Annotated[
        Path | None, typer.Option(help="The page, to be held against the key as well.")
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="Another margin than was set; said to be post hoc.")
    ] = None,
    counted: Annotated[
        str | None, typer.Option(help="Another least confidence; said to be post hoc.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="For the tables and the page; beside the key by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tables III to V of each doctor and all, from their answers and the key."""
    from ssmdiff_turing.job import SCORE
    from ssmdiff_turing.job import turing as job
    from ssmdiff_turing.report import agreement_lines, outcome
    from ssmdiff_turing.study import SINGLE

    found = job.score(answers, key, out, margin=margin, counted=counted, page=page)
    if as_json:
        typer.echo(found.to_json(), nl=False)
        return
    for reader in found.everyone:
        typer.echo(outcome(reader, found.key.design == SINGLE))
    for line in agreement_lines(found):
        typer.echo(line)
    for note in found.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"page: {(key.parent / SCORE if out is None else out) / 'score.html'}")
