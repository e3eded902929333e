"""A folder of samples: single images, a grid, and what they were drawn with.

It is resumable, and several processes may fill it at once: an image is a function of the settings
and of its number, is there whole or not at all, and whoever finishes tells of all that are there.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

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
from ssmdiff import __version__
from ssmdiff.diffusion.conditions import LABEL
from ssmdiff.diffusion.courses import Course
from ssmdiff.diffusion.guidance import Guidance
from ssmdiff.diffusion.image_model import ImageModel, SamplingSettings
from ssmdiff.errors import CheckpointError, ConfigError
from ssmdiff.runs.checkpoint import load_json, write_atomically
from ssmdiff.runs.pictures import write_grid
from torch import Tensor

from ssmdiff_cli.sample_format import SampleFormat
from ssmdiff_cli.sample_share import Share

RECORD = "samples.json"
GRID = "grid.png"
GRID_IMAGES = 64
TEMPORARY = ".tmp-"
TOLD = ("made_by", "classes", "labels", "each", "names", "reading")
"""Keys of the record that do not decide the images."""

_IMAGE = re.compile(r"(\d{6,})\.[a-z0-9]+(\.gz)?")


@dataclass(frozen=True)
class MadeOf:
    """The images that those of a set are made of, one of each.

    Args:
        how: What decides what is made, as JSON, for the record.
        names: What the files are called, without a suffix.
        reading: Options that the images were read by.
        images: (C, H, W) each, to show beside what was made.
    """

    how: Mapping[str, Any]
    names: Sequence[str]
    reading: Mapping[str, Any]
    images: Sequence[Any]


@dataclass(frozen=True)
class SampleRequest:
    """What decides the images, besides the weights."""

    seed: int = 0
    steps: int | None = None
    scheduler: str | None = None
    told: Mapping[str, Any] = field(default_factory=dict)
    """What the images are told, by name; see :meth:`ssmdiff.ImageModel.sample`."""
    format: str | Mapping[str, Any] = "png"
    """A writer: its name, or a table with its options."""
    guidance: Guidance | None = None
    course: Course | None = None
    """Where images begin; from noise by default."""
    made_of: MadeOf | None = None


@dataclass(frozen=True)
class SampleFolder:
    """Images ``000000.png`` and up, ``grid.png`` and ``samples.json``."""

    path: Path

    def fill(
        self,
        model: ImageModel[Tensor],
        request: SampleRequest,
        share: Share,
        overwrite: bool = False,
        progress: bool = False,
    ) -> Path | None:
        """Draw the images of the share that are not there yet.

        Nothing is written, and nothing replaced, before the first of them is made.

        Returns:
            The grid's path, or None where the images are not 2-D.

        Raises:
            ConfigError: The folder holds images of other settings, or something else.
            CheckpointError: The folder cannot be written.
            DivergedError: The network gave numbers that are not finite.
        """
        sampling = model.sampling(request.scheduler, request.steps, request.seed, told=request.told)
        sampling = model.guided(sampling, request.guidance)
        calls = model.calls(sampling, request.course)
        record = self._record(model, sampling, request)
        form = SampleFormat.of(request.format, model, sampling, record)
        if request.made_of:
            form = replace(form, names=request.made_of.names)
            record["reading"] = dict(request.made_of.reading)
            record["names"] = [form.name(i) for i in share.indices]
        replaced = self._to_replace(record, overwrite)
        self._refuse_unwritable()
        left_behind = self._left_behind(share.indices)
        wanted: set[int] = set()
        drawn: list[int] = []
        at_once = 1
        for batch, ours in share.batches():
            missing = [i for i in ours if replaced or not form.is_whole(form.path(self.path, i))]
            if missing:
                wanted.update(missing)
                drawn += batch
                at_once = max(at_once, len(batch))
        with _progress(progress, -(-len(drawn) // at_once) * calls) as bar:
            step = functools.partial(bar.advance, bar.task_ids[0])
            begun = False
            for indices, images in model.draw(sampling, drawn, at_once, step, request.course):
                if not begun:
                    self._begin(record, overwrite)
                    begun = True
                names = self._class_names(model, sampling, indices)
                for i, image, name in zip(indices, images, names, strict=True):
                    if i in wanted:
                        self._write(i, form, image, name)
        if not begun:
            self._begin(record, overwrite)
        return self._finish(model, sampling, form, record, left_behind, request.made_of)

    def _write(self, i: int, form: SampleFormat, image: Tensor, name: str) -> None:
        path = form.path(self.path, i)
        with contextlib.suppress(OSError):  # told when it is written
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            form.write(path, image, i, name)
        except CheckpointError:  # unless another process has drawn it meanwhile
            if not form.is_whole(path):
                raise

    @staticmethod
    def _class_names(
        model: ImageModel[Tensor], sampling: SamplingSettings, indices: Sequence[int]
    ) -> list[str]:
        """The class of each image by name; empty words where it is told none."""
        labels = model.labels(sampling, indices)
        return [""] * len(indices) if labels is None else [model.class_names[i] for i in labels]

    @staticmethod
    def _record(
        model: ImageModel[Tensor], sampling: SamplingSettings, request: SampleRequest
    ) -> dict[str, Any]:
        form, made_of = request.format, request.made_of
        return {
            **model.origin(),
            "seed": sampling.seed,
            "steps": sampling.steps,
            "scheduler": dict(sampling.scheduler),
            **_asked_for(model, sampling),
            "guidance": sampling.guidance.record(model.conditions),
            "made_of": dict(made_of.how) if made_of else None,
            "format": form if isinstance(form, str) else dict(form),
            "made_by": f"ssmdiff {__version__}",
            "classes": list(model.class_names),
        }

    # Before the first image

    def _to_replace(self, record: dict[str, Any], overwrite: bool) -> bool:
        """Whether the images that are there were drawn with other settings; nothing is touched.

        Raises:
            ConfigError: They were and may not be replaced, or the folder holds something else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"--out {self.path} is a file; expected a folder, new or empty")
        file = self.path / RECORD
        if not file.exists():
            others = self.path.glob("*") if self.path.is_dir() else ()
            if any(not path.name.startswith(TEMPORARY) for path in others):
                raise ConfigError(
                    f"{self.path} is not empty and holds no samples of ssmdiff; "
                    "choose another --out"
                )
            return False
        before = load_json(file)
        reason = drawn_before_0_2(before, record)
        changed = sorted(k for k in record if k not in TOLD and record[k] != before.get(k))
        if not reason and changed:
            values = "; ".join(f"{k} {before.get(k)!r}, now {record[k]!r}" for k in changed)
            reason = f"drawn with another {', '.join(changed)} ({values})"
        if reason and not overwrite:
            raise ConfigError(
                f"{self.path} holds images {reason}; choose another --out, or replace them with "
                "--overwrite"
            )
        return bool(reason)

    def _refuse_unwritable(self) -> None:
        """Say now, and not after the first batch, that the folder cannot be written."""
        there = next(p for p in (self.path, *self.path.absolute().parents) if p.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            what = "cannot be written" if there.is_dir() else "is a file"
            raise CheckpointError(f"cannot create {self.path}: {there} {what}")

    def _begin(self, record: dict[str, Any], overwrite: bool) -> None:
        """Make the folder with its record; images of other settings go, before the record does."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"cannot create {self.path}: {error.strerror}") from error
        with self._alone():
            if self._to_replace(record, overwrite):  # another process may have begun meanwhile
                names = load_json(self.path / RECORD).get("names", ())
                named = [self.path / name for name in names if ".." not in Path(name).parts]
                for path in (*self.path.iterdir(), *named, self.path / GRID):
                    if path.name == GRID or _IMAGE.fullmatch(path.name) or path in named:
                        path.unlink(missing_ok=True)
            elif (self.path / RECORD).exists():
                return
            _write_json(self.path / RECORD, record)

    # After the last one

    def _finish(
        self,
        model: ImageModel[Tensor],
        sampling: SamplingSettings,
        form: SampleFormat,
        record: dict[str, Any],
        left_behind: dict[Path, int],
        made_of: MadeOf | None,
    ) -> Path | None:
        """What all images that are there were told, the grid of the first of them."""
        for path, changed_ns in left_behind.items():
            with contextlib.suppress(OSError):
                if path.stat().st_mtime_ns == changed_ns:
                    path.unlink()
        with self._alone():
            there = self._there(form)
            told = model.told(sampling, there)
            files = [form.name(i) for i in there]
            if model.labels(sampling, there):
                names = self._class_names(model, sampling, there)
                record["labels"] = dict(zip(files, names, strict=True))
            if model.conditions and model.conditions.names != [LABEL]:
                each = map(model.conditions.recorded, told)
                record["each"] = dict(zip(files, each, strict=True))
            _write_json(self.path / RECORD, record)
            if len(model.shape) != 3 or model.shape[0] not in (1, 3):
                return None
            loaded = [form.load(form.path(self.path, i)) for i in there[:GRID_IMAGES]]
            shown = [image for image in loaded if image is not None]
            if len(shown) < len(loaded):
                return None
            title = str(record.get("checkpoint", ""))
            captions = model.conditions.captions(told[:GRID_IMAGES])
            sheet, given = torch.stack(shown), None
            if made_of:
                given = torch.stack(
                    [torch.as_tensor(made_of.images[i]) for i in there[:GRID_IMAGES]]
                )
                given = given if given.shape[1:] == sheet.shape[1:] else None
            write_grid(self.path / GRID, sheet, captions, title, given, real_title="given")
        return self.path / GRID

    def _there(self, form: SampleFormat) -> list[int]:
        if form.names is not None:
            everyone = range(len(form.names))
            return [i for i in everyone if form.is_whole(form.path(self.path, i))]
        numbers = (form.number_of(path.name) for path in self.path.iterdir())
        return sorted(number for number in numbers if number is not None)

    def _left_behind(self, indices: range) -> dict[Path, int]:
        """Temporary files of our images and of the record that are there now, with their times.

        One that is still there, unchanged, when all is drawn is of a process that was killed.
        """
        found = {}
        for path in self.path.rglob(f"{TEMPORARY}*"):
            image = _IMAGE.match(path.name.removeprefix(TEMPORARY))
            if image is None or int(image[1]) in indices:
                with contextlib.suppress(OSError):
                    found[path] = path.stat().st_mtime_ns
        return found

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time, where the system can lock a folder; it is free when one dies."""
        try:
            import fcntl
        except ModuleNotFoundError:
            yield
            return
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # some network drives cannot
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _asked_for(model: ImageModel[Tensor], sampling: SamplingSettings) -> dict[str, Any]:
    """What was asked for: ``label`` by its number, None for all in turn; ``told`` what else."""
    told = model.conditions.recorded_asked(sampling.told)
    labels = told.pop(LABEL, None)
    label = labels[0] if labels and len(labels) == 1 and labels[0] is not None else labels
    return {"label": label, **({"told": told} if told else {})}


def drawn_before_0_2(before: dict[str, Any], record: dict[str, Any]) -> str:
    """How the images of an older record differ from those of today's settings; empty if not."""
    if "made_by" in before:
        return ""
    scheduler, then = record["scheduler"], before.get("scheduler")
    then = then if isinstance(then, dict) else {}
    if scheduler["name"] == then.get("name") == "ddim":
        what = "whose ddim took other steps"
    elif scheduler.get("variance") == then.get("variance") == "fixed_large":
        what = "whose ddpm with fixed_large left noise in the image"
    elif record["classes"] and record["label"] is before.get("label") is None:
        what = "which drew the first class alone where no label was given"
    else:
        return ""
    return f"drawn before ssmdiff 0.2, {what} (docs/sampling.md)"


def _write_json(path: Path, value: dict[str, Any]) -> None:
    write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


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
