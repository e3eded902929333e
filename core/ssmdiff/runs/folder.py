"""A run's folder: where what lies, what may be written, which checkpoint counts.

RUN/
    config.toml            resolved, with versions and the distribution behind each component
    metrics.jsonl          one line a step
    loss.png, tensorboard/
    samples/step-00001000.png
    checkpoints/step-00001000/
    replaced/              the run that this one takes the place of, until it has a checkpoint
    run.lock               which process trains here
"""

from __future__ import annotations

import tomllib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from ssmdiff.errors import CheckpointError, ConfigError, SsmdiffError
from ssmdiff.runs import best_checkpoint, placing, replacing
from ssmdiff.runs import checkpoint as ckpt
from ssmdiff.runs.best_checkpoint import BestCheckpoint
from ssmdiff.runs.config import Layer, load_file, resolve
from ssmdiff.runs.provenance import provenance
from ssmdiff.runs.sections import Config, parts_of

CONFIG = "config.toml"
LOCK = "run.lock"


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps what."""

    path: Path

    def __repr__(self) -> str:
        """What is trained here and how far, as the files have it; nothing is checked."""
        try:
            parts = listed(parts_of(self.config_layer()))
        except (SsmdiffError, OSError, LookupError, TypeError):
            return f"<RunFolder {self.path}: no run that can be read>"
        newest = next((found.name for found in self.checkpoint_paths()), "no checkpoint yet")
        return f"<RunFolder {self.path}: {parts}, {newest}>"

    @property
    def config_file(self) -> Path:
        return self.path / CONFIG

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def exists(self) -> bool:
        return self.config_file.is_file()

    def refuse_to_replace(self, config: Config, overwrite: bool) -> None:
        """Check that a new run may be written here; nothing is touched.

        Raises:
            ConfigError: Something is there already and may not be replaced.
        """
        self.refuse_data(config)
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"--out {self.path} is a file; expected a folder, new or empty")
        if self.path.is_dir() and any(self._contents()):
            if not overwrite:
                raise ConfigError(
                    f"{self.path} is not empty. Go on with --resume, start anew with --overwrite, "
                    "or choose another --out"
                )
            if not self.exists and replacing.kept(self.path) is None:
                raise ConfigError(
                    f"{self.path} is not empty and holds no run, so --overwrite does not touch it; "
                    "choose another --out"
                )

    def create(
        self, config: Config, overwrite: bool = False, made_of: Mapping[str, Any] | None = None
    ) -> None:
        """Make the folder and write the configuration; a probe that fails now, not after hours.

        A run that is there is set aside, see :mod:`ssmdiff.runs.replacing`. ``made_of``
        is kept with it: ``{"data": ssmdiff.data_record(...)}``.

        Raises:
            ConfigError: Something is there already and may not be replaced.
            CheckpointError: The folder cannot be written.
        """
        self.refuse_to_replace(config, overwrite)
        if overwrite and self.path.is_dir():
            replacing.set_aside(self.path)
        self.make_folders()
        self.write_config(config, made_of)

    def _contents(self) -> Iterator[Path]:
        """What lies here, but for what a process leaves that was killed before it wrote a run."""
        for path in self.path.iterdir():
            made = path in (self.samples, self.checkpoints) and path.is_dir()
            empty = made and not any(path.iterdir())
            if path.name != LOCK and not path.name.startswith(ckpt.TEMPORARY) and not empty:
                yield path

    def make_folders(self) -> None:
        """The folders that a run writes into, also where a copy of the run left out empty ones.

        Raises:
            CheckpointError: They cannot be made.
        """
        try:
            self.samples.mkdir(parents=True, exist_ok=True)
            self.checkpoints.mkdir(exist_ok=True)
        except OSError as error:
            raise CheckpointError(
                f"cannot create {self.path}: {error.strerror or error}"
            ) from error

    def refuse_data(self, config: Config) -> None:
        """:meth:`refuse_data_in` for a data set that has a path."""
        source = config.data.dataset.get("path")
        if isinstance(source, str):
            self.refuse_data_in([Path(source).expanduser()])

    def refuse_data_in(self, folders: Iterable[Path]) -> None:
        """Check that the run's folder lies in none of these folders of images, and none in it.

        Raises:
            ConfigError: One does; links are followed.
        """
        placing.refuse_among(self.path, folders)

    def write_config(self, config: Config, made_of: Mapping[str, Any] | None = None) -> None:
        made = provenance(config) | dict(made_of or {})
        text = config.to_toml() + "\n" + tomli_w.dumps({"provenance": made})
        ckpt.write_atomically(self.config_file, text.encode())

    def config_layer(self) -> Layer:
        """The configuration as written, without its provenance.

        Raises:
            CheckpointError: There is no run here.
        """
        if not self.exists:
            what = "holds no run (no config.toml)" if self.path.is_dir() else "does not exist"
            raise CheckpointError(
                f"{self.path} {what}; expected the --out of ssmdiff train{self._kept()}"
            )
        layer = load_file(self.config_file)
        layer.pop("provenance", None)
        layer.base = True
        return layer

    def providers(self) -> Mapping[str, str]:
        """Which distribution gave each component when the run was made."""
        return self._made_with("components")

    def data_record(self) -> Mapping[str, Any]:
        """What is kept of the data, see :func:`ssmdiff.data_record`."""
        return self._made_with("data")

    def _made_with(self, key: str) -> Mapping[str, Any]:
        with self.config_file.open("rb") as file:
            found = tomllib.load(file).get("provenance", {}).get(key, {})
        return found if isinstance(found, dict) else {}

    def config(self) -> Config:
        """The resolved configuration, without those who listened to the run and who judged it.

        Raises:
            CheckpointError: There is no run here, or a plugin it was made with is missing.
        """
        layer = self.config_layer()
        try:
            judged_by: dict[str, list[Any]] = {"features": [], "metrics": []}
            return resolve(layer, {"train": {"callbacks": [], "evaluate": judged_by}})
        except ConfigError as error:
            made_with = "; ".join(f"{k} = {v}" for k, v in self.providers().items())
            raise CheckpointError(
                f"the run {self.path} cannot be composed here: {error}\n"
                f"it was made with {made_with}"
            ) from error

    def checkpoint(self, name: str = "latest") -> ckpt.Checkpoint:
        """The newest valid checkpoint, the ``best`` one, or a named one.

        Raises:
            CheckpointError: There is none, or the named one is damaged.
        """
        name = best_checkpoint.named(self.checkpoints) if name == "best" else name
        if name != "latest":
            return ckpt.verify(self.checkpoints / name)
        found, skipped = ckpt.latest(self.checkpoints)
        if found is None:
            detail = "".join(f"\n{sentence}" for sentence in skipped)
            raise CheckpointError(f"{self.path} holds no valid checkpoint{self._kept()}{detail}")
        for sentence in skipped:
            warnings.warn(f"fell back to {found.path.name}: {sentence}", stacklevel=2)
        return found

    def _kept(self) -> str:
        kept = replacing.kept(self.path)
        return f". The run that was to be replaced is kept in {kept}" if kept else ""

    def checkpoint_paths(self) -> list[Path]:
        """What looks like a checkpoint, the newest first; nothing is verified."""
        return ckpt.candidates(self.checkpoints)

    def save_checkpoint(
        self, step: int, tensors: Mapping[str, ckpt.Tensors], state: Mapping[str, Any]
    ) -> ckpt.Checkpoint:
        """Write a checkpoint, and hold it against its manifest.

        Args:
            step: Optimiser steps done.
            tensors: Name of a file -> its tensors.
            state: JSON scalars.

        Raises:
            CheckpointError: The disk is full or not writable; earlier checkpoints are untouched.
        """
        saved = ckpt.verify(ckpt.save(self.checkpoints, step, tensors, state).path)
        replacing.let_go(self.path)
        return saved

    def best(self) -> BestCheckpoint | None:
        """The best checkpoint so far and its figure, where the run was judged as it trained."""
        return best_checkpoint.find(self.checkpoints)

    def keep_best(self, found: BestCheckpoint) -> None:
        """Name the best checkpoint, which :meth:`prune` spares from now on."""
        best_checkpoint.keep(self.checkpoints, found)

    def prune(self, keep: int) -> None:
        """Delete all but the newest checkpoints and the best."""
        spared = self.best()
        ckpt.prune(self.checkpoints, keep, spared.checkpoint if spared else "")

    def sweep(self) -> None:
        """Finish or delete what a killed process left half-done."""
        replacing.bring_back(self.path)
        ckpt.sweep(self.path)
        ckpt.sweep(self.checkpoints)


def listed(parts: Mapping[str, str]) -> str:
    """``backbone vmddpm, block mss, scan regenerate``."""
    return ", ".join(f"{kind} {name}" for kind, name in parts.items())
