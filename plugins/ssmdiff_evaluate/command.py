"""``ssmdiff evaluate`` and ``ssmdiff compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from ssmdiff import ConfigError
from ssmdiff_cli import flags

REAL_AND_FLOOR = (("reference", "real"), ("floor", "floor"))


def evaluate(
    model: Annotated[
        Path,
        typer.Argument(help="A run, a file of ssmdiff export, or a folder of images."),
    ],
    against: Annotated[
        str | None,
        typer.Option(
            help="The reference: a run (its data), a data set by name, a folder of images; by "
            "default the data of the run."
        ),
    ] = None,
    targets: Annotated[
        Path | None,
        typer.Option(
            help="Of a folder of images: a folder with what each should have been, by its name. "
            "PSNR, SSIM and mean absolute error are the figures then, unless --metric names others."
        ),
    ] = None,
    n: Annotated[int, typer.Option("--n", "--count", min=2, help="Images that are judged.")] = 256,
    features: Annotated[
        list[str] | None,
        typer.Option(help="A feature network; by default texture, contrastive and pixels."),
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="A metric; by default all that are installed.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME.option=value of a feature network or a metric."),
    ] = None,
    reference: Annotated[
        int, typer.Option(min=2, help="Reference images at most, evenly spread.")
    ] = 10_000,
    seed: Annotated[int, typer.Option(help="Image i depends on (seed, i) alone.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Sampling steps.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="Noise scheduler.")] = None,
    label: flags.Label = None,
    tell: flags.Tell = None,
    guidance: flags.Guidance = None,
    guidance_rescale: flags.GuidanceRescale = None,
    guidance_interval: flags.GuidanceInterval = None,
    guidance_calls: flags.GuidanceCalls = None,
    negative: flags.Negative = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Of a run: latest (default), best, or step-NNNNNNNN.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images drawn at once.")] = 64,
    out: Annotated[
        Path | None, typer.Option(help="The evaluation's folder; RUN/evaluations/... by default.")
    ] = None,
    show_real: Annotated[
        bool, typer.Option("--show-real", help="Put real images on the page, and nearest pairs.")
    ] = False,
    bits: Annotated[
        int,
        typer.Option(min=0, help="Tell bits per dimension of so many real images under a run."),
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Judge the images of a model: quality, diversity, novelty, on one page.

    Goes on where it was stopped. On several devices: torchrun --nproc-per-node N -m ssmdiff
    evaluate ...
    """
    from ssmdiff_evaluate.evaluation import FEATURES, usual_metrics
    from ssmdiff_evaluate.job import Opened, default_folder
    from ssmdiff_evaluate.job import evaluate as run_evaluation
    from ssmdiff_evaluate.page import PAGE, row_of
    from ssmdiff_evaluate.sets import processes

    options = options_of(set_)
    networks = [{"name": name, **options.pop(name, {})} for name in features or FEATURES]
    metrics = None
    if metric or options:
        names = metric or usual_metrics(targets is not None)
        metrics = [{"name": name, **options.pop(name, {})} for name in names]
    if options:
        known = ", ".join(str(table["name"]) for table in [*networks, *(metrics or [])])
        raise ConfigError(
            f"--set {next(iter(options))}: there is no feature network or metric of that name in "
            f"this evaluation; it has {known}"
        )
    telling = flags.Telling(
        label, tell, guidance, guidance_rescale, guidance_interval, guidance_calls, negative
    )
    opened = Opened(model, checkpoint)
    told, guided = None, None
    if given := telling.given():
        opened.refuse_drawn(given)
        told, guided = telling.of(opened.model, n)
    folder = out or default_folder(opened, n, seed, told, guided)
    record = run_evaluation(
        opened,
        against,
        folder,
        n=n,
        features=networks,
        metrics=metrics,
        reference=reference,
        seed=seed,
        steps=steps,
        scheduler=scheduler,
        checkpoint=checkpoint,
        batch_size=batch_size,
        show_real=show_real,
        bits=bits,
        progress=True,
        targets=targets,
        told=told,
        guidance=guided,
    )
    if processes()[0] != 0:
        return
    if as_json:
        typer.echo(record.to_json())
        return
    for judged in record.figures:
        figure = judged.figure
        row = row_of(figure)
        real, floor = (row[key] and f"{word} {row[key]}" for key, word in REAL_AND_FLOOR)
        extra = "; ".join(part for part in (row["interval"], real, floor) if part)
        typer.echo(f"{judged.section:<10} {figure.name:<36} {row['value']:>10}  {extra}")
    for refusal in record.refusals:
        typer.echo(
            f"{refusal.section:<10} {refusal.metric} over {refusal.features}: {refusal.reason}"
        )
    for name, value in record.model.items():
        if name.startswith("bits per dimension"):
            typer.echo(f"{'likelihood':<10} {name:<36} {value:>10.3f}")
    typer.echo(f"page: {folder / PAGE}")


def compare(
    evaluations: Annotated[
        list[Path], typer.Argument(help="Evaluations, or runs with an evaluation.")
    ],
    form: Annotated[str, typer.Option("--format", help="text, markdown, csv or latex.")] = "text",
    out: Annotated[Path | None, typer.Option(help="A folder for the page and the tables.")] = None,
) -> None:
    """Evaluations beside each other, ranked where their protocols agree."""
    if form not in ("text", "markdown", "csv", "latex"):
        raise ConfigError(f"--format {form!r}: expected text, markdown, csv or latex")
    from ssmdiff_evaluate.compare import compare as put_beside

    found = put_beside(evaluations, out)
    typer.echo(found.to(form), nl=False)  # type: ignore[arg-type]
    for difference in found.differences:
        typer.echo(f"not ranked: {difference}", err=True)
    if out is not None:
        typer.echo(f"page: {out / 'comparison.html'}", err=True)


def options_of(sets: list[str] | None) -> dict[str, dict[str, object]]:
    """``NAME.option=value`` by name; values as TOML has them, else plain text.

    Raises:
        ConfigError: One is not of that form.
    """
    from ssmdiff import assignments

    found = assignments(sets or ())
    for name, table in found.items():
        if not isinstance(table, dict):
            raise ConfigError(f"--set {name}={table}: expected NAME.option=value")
    return found
