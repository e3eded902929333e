"""A folder of samples: single images, a grid, and what they were drawn with; resumable."""

from __future__ import annotations

import functools
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from ssmdiff.diffusion.image_model import ImageModel, SamplingSettings
from ssmdiff.errors import CheckpointError, ConfigError
from ssmdiff.runs.checkpoint import load_json, sweep, write_atomically
from ssmdiff.runs.pictures import write_grid, write_image
from torch import Tensor

RECORD = "samples.json"
GRID = "grid.png"
GRID_IMAGES = 64


@dataclass(frozen=True)
class SampleRequest:
    """What decides the images, besides the weights."""

    seed: int = 0
    steps: int | None = None
    scheduler: str | None = None
    label: int | None = None
    format: str = "png"


@dataclass(frozen=True)
class SampleFolder:
    """Images ``000000.png`` and up, ``grid.png`` and ``samples.json``."""

    path: Path

    def fill(
        self,
        model: ImageModel[Tensor],
        request: SampleRequest,
        n: int,
        batch_size: int,
        overwrite: bool = False,
        progress: bool = False,
    ) -> Path | None:
        """Draw the images 0 to n - 1 that are not there yet.

        Returns:
            The grid's path, or None where the images are not 2-D.

        Raises:
            ConfigError: The folder holds images of other settings, or something else.
            CheckpointError: The folder cannot be written.
        """
        sampling = model.sampling(request.scheduler, request.steps, request.seed, request.label)
        calls = model.calls(sampling)
        self._prepare(self._record(model, sampling, request.format), overwrite)
        missing = [i for i in range(n) if not self._image(i, request.format).exists()]
        batches = -(-len(missing) // batch_size)
        with _progress(progress, batches * calls) as bar:
            step = functools.partial(bar.advance, bar.task_ids[0])
            for indices, images in model.draw(sampling, missing, batch_size, step):
                for i, image in zip(indices, images, strict=True):
                    write_image(self._image(i, request.format), image)
        if len(model.shape) != 3 or model.shape[0] not in (1, 3):
            return None
        shown = [self._load(i, request.format) for i in range(min(n, GRID_IMAGES))]
        write_grid(self.path / GRID, torch.stack(shown))
        return self.path / GRID

    def _image(self, i: int, suffix: str) -> Path:
        return self.path / f"{i:06d}.{suffix}"

    def _load(self, i: int, suffix: str) -> Tensor:
        path = self._image(i, suffix)
        if suffix == "npy":
            return torch.from_numpy(np.load(path, allow_pickle=False))
        from PIL import Image

        with Image.open(path) as image:
            pixels = np.atleast_3d(np.asarray(image, dtype=np.float32))
        return torch.from_numpy(np.moveaxis(pixels, -1, 0) / 127.5 - 1)

    @staticmethod
    def _record(
        model: ImageModel[Tensor], sampling: SamplingSettings, suffix: str
    ) -> dict[str, Any]:
        return {
            **model.origin(),
            "seed": sampling.seed,
            "steps": sampling.steps,
            "scheduler": dict(sampling.scheduler),
            "label": sampling.label,
            "format": suffix,
        }

    def _prepare(self, record: dict[str, Any], overwrite: bool) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"--out {self.path} is a file; expected a folder, new or empty")
        file = self.path / RECORD
        if self.path.is_dir() and any(self.path.iterdir()):
            if not file.exists():
                raise ConfigError(
                    f"{self.path} is not empty and holds no samples of ssmdiff; "
                    "choose another --out"
                )
            before = load_json(file)
            changed = sorted(k for k in record if record[k] != before.get(k))
            if changed and not overwrite:
                raise ConfigError(
                    f"{self.path} holds images drawn with another {', '.join(changed)}; choose "
                    "another --out, or replace them with --overwrite"
                )
            if changed:
                for path in (*self.path.glob("[0-9]" * 6 + ".*"), self.path / GRID):
                    path.unlink(missing_ok=True)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"cannot create {self.path}: {error.strerror}") from error
        sweep(self.path)
        write_atomically(file, (json.dumps(record, indent=2) + "\n").encode())


def _progress(show: bool, total: int) -> Progress:
    bar = Progress(
        TextColumn("sampling"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        disable=not show,
    )
    bar.add_task("sample", total=total)
    return bar
