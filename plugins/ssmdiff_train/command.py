"""``ssmdiff train``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from ssmdiff import ConfigError
from ssmdiff_cli import flags

if TYPE_CHECKING:
    from ssmdiff import RunFolder


def train(
    gan: flags.Gan = None,
    method: flags.Method = None,
    scan: flags.Scan = None,
    backbone: flags.Backbone = None,
    block: flags.Block = None,
    data: flags.Data = None,
    image_size: flags.ImageSize = None,
    steps: flags.Steps = None,
    batch_size: flags.BatchSize = None,
    lr: flags.LearningRate = None,
    precision: flags.Precision = None,
    kernel: flags.Kernel = None,
    activation_checkpointing: Annotated[
        bool,
        typer.Option(
            "--activation-checkpointing", help="Recompute layers in the backward: less memory."
        ),
    ] = False,
    compile: Annotated[
        bool, typer.Option("--compile", help="torch.compile: a minute or more at first.")
    ] = False,
    workers: flags.Workers = None,
    seed: flags.Seed = None,
    max_hours: Annotated[
        float | None,
        typer.Option("--max-hours", help="Stop and save before a queue's limit; --resume goes on."),
    ] = None,
    init_from: Annotated[
        str | None,
        typer.Option(
            "--init-from",
            metavar="RUN",
            help="Begin with that run's averaged weights; other channels, conditions are mapped.",
        ),
    ] = None,
    init_checkpoint: Annotated[
        str | None,
        typer.Option("--init-checkpoint", help="Of RUN: latest (default), best, or step-NNNNNNNN."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder; by default a new one under runs/.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on in --out.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run in --out.")
    ] = False,
    allow_config_change: Annotated[
        list[str] | None, typer.Option(help="A key that a resumed run may change.")
    ] = None,
    preset: flags.Preset = None,
    config: flags.ConfigFile = None,
    set_: flags.Assignments = None,
) -> None:
    """Train a model; with no argument, the diffusion 'tiny' on the built-in heads.

    --gan NAME trains a GAN, by the preset 'tiny-NAME' unless another is given.

    On several devices: torchrun --nproc-per-node N -m ssmdiff train ...
    """
    given = {
        "--seed": ("seed", seed),
        "--method": ("method", flags.component("method", method)),
        "--gan": ("method", flags.gan_table(gan)),
        "--scan": ("model.scan", flags.component("scan", scan)),
        "--backbone": ("model.backbone", flags.component("backbone", backbone)),
        "--block": ("model.block", flags.component("block", block)),
        "--data": ("data.dataset", flags.dataset_table(data)),
        "--image-size": ("data.image_size", flags.image_size(image_size)),
        "--workers": ("data.workers", workers),
        "--steps": ("train.steps", steps),
        "--batch-size": ("train.batch_size", batch_size),
        "--lr": ("train.learning_rate", lr),
        "--precision": ("train.precision", precision),
        "--activation-checkpointing": (
            "train.activation_checkpointing",
            activation_checkpointing or None,
        ),
        "--compile": ("train.compile", compile or None),
        "--kernel": ("train.kernel", kernel),
        "--max-hours": ("train.max_hours", max_hours),
        "--init-from": ("train.init_from", init_from),
        "--init-checkpoint": ("train.init_checkpoint", init_checkpoint),
    }
    from ssmdiff import RunFolder, resolve_flags

    if resume and overwrite:
        raise ConfigError("--resume goes on with a run and --overwrite replaces it; choose one")
    if resume and out is None:
        raise ConfigError("--resume needs --out, the folder of the run to go on with")
    resumed = RunFolder(out).config_layer() if resume and out is not None else None
    if resumed is None:
        preset = preset or flags.gan_preset(gan)
    resolved = resolve_flags(preset, config, given, set_, resumed)

    from ssmdiff_train.job import train as run_training
    from ssmdiff_train.memory import keep_freed_memory

    keep_freed_memory()
    folder = run_training(
        resolved,
        out,
        resume=resume,
        overwrite=overwrite,
        allow_changes=allow_config_change or (),
        progress=True,
    )
    typer.echo(f"run: {folder.path}")
    typer.echo(f"samples: {folder.samples / f'step-{resolved.train.steps:08d}.png'}")
    typer.echo(f"loss: {folder.path / 'loss.png'}, every step in {folder.path / 'metrics.jsonl'}")
    for line in closing_lines(folder):
        typer.echo(line)
    if any(folder.path.glob("tensorboard/events.*")):
        typer.echo(f"curves: tensorboard --logdir {folder.path}")
    typer.echo(f"next: ssmdiff sample {folder.path} --n 16 --out samples")


def closing_lines(folder: RunFolder) -> Iterator[str]:
    """What a run measured of itself: its last loss on held-out images, and its best checkpoint."""
    from ssmdiff_train.callbacks import HELD_OUT, read_metrics

    lines = read_metrics(folder.path / "metrics.jsonl")
    held_out = [line for line in lines if HELD_OUT in line]
    if held_out:
        lowest = min(held_out, key=lambda line: line[HELD_OUT])
        yield (
            f"held-out loss: {held_out[-1][HELD_OUT]:.4f} after step {held_out[-1]['step']}, "
            f"lowest {lowest[HELD_OUT]:.4f} after step {lowest['step']}"
        )
    best = folder.best()
    if best is not None:
        yield (
            f"best: {best.checkpoint}, {best.figure} {best.value:.4g}; "
            f"ssmdiff sample {folder.path} --checkpoint best"
        )
