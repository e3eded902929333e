"""``ssmdiff train``."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from ssmdiff import ConfigError
from ssmdiff_cli import settings

if TYPE_CHECKING:
    from ssmdiff import Config


def train(
    scan: settings.Scan = None,
    backbone: settings.Backbone = None,
    block: settings.Block = None,
    data: settings.Data = None,
    image_size: settings.ImageSize = None,
    steps: settings.Steps = None,
    batch_size: settings.BatchSize = None,
    lr: settings.LearningRate = None,
    precision: settings.Precision = None,
    kernel: settings.Kernel = None,
    activation_checkpointing: Annotated[
        bool,
        typer.Option(
            "--activation-checkpointing", help="Recompute layers in the backward: less memory."
        ),
    ] = False,
    compile: Annotated[
        bool, typer.Option("--compile", help="torch.compile: a minute or more at first.")
    ] = False,
    workers: settings.Workers = None,
    seed: settings.Seed = None,
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
    preset: settings.Preset = None,
    config: settings.ConfigFile = None,
    set_: settings.Assignments = None,
) -> None:
    """Train a diffusion model; with no argument, the preset 'tiny' on the built-in heads.

    On several devices: torchrun --nproc-per-node N -m ssmdiff_cli.main train ...
    """
    named = {
        "seed": seed,
        "model.scan": settings.component("scan", scan),
        "model.backbone": settings.component("backbone", backbone),
        "model.block": settings.component("block", block),
        "data.dataset": settings.dataset_table(data),
        "data.image_size": settings.image_size(image_size),
        "data.workers": workers,
        "train.steps": steps,
        "train.batch_size": batch_size,
        "train.learning_rate": lr,
        "train.precision": precision,
        "train.activation_checkpointing": activation_checkpointing or None,
        "train.compile": compile or None,
        "train.kernel": kernel,
    }
    if resume and overwrite:
        raise ConfigError("--resume goes on with a run and --overwrite replaces it; choose one")
    if resume and out is None:
        raise ConfigError("--resume needs --out, the folder of the run to go on with")
    base = None
    if resume and out is not None:
        if preset:
            raise ConfigError("--resume takes the configuration of the run; leave out --preset")
        from ssmdiff import RunFolder

        base = RunFolder(out).config_layer()
    resolved = settings.compose_layers(preset, config, set_, named, base)

    from ssmdiff_train.callbacks import ConsoleProgress
    from ssmdiff_train.job import train as run_training
    from ssmdiff_train.memory import keep_freed_memory

    keep_freed_memory()
    folder = run_training(
        resolved,
        out or _new_folder(resolved),
        resume=resume,
        overwrite=overwrite,
        allow_changes=allow_config_change or (),
        callbacks=[ConsoleProgress()],
    )
    typer.echo(f"run: {folder.path}")
    typer.echo(f"samples: {folder.samples / f'step-{resolved.train.steps:08d}.png'}")
    typer.echo(f"next: ssmdiff sample {folder.path} --n 16 --out samples")


def _new_folder(config: Config) -> Path:
    """``runs/vmddpm-mss-regenerate-phantom-001`` and up."""
    model = config.model
    parts = (model.backbone, model.block, model.scan, config.data.dataset)
    stem = "-".join(part["name"] for part in parts)
    candidates = (Path("runs") / f"{stem}-{i:03d}" for i in itertools.count(1))
    return next(path for path in candidates if not path.exists())
