"""Jobs: what one does with models, found through the registry. Training, export, benchmarks, ...

A job is a plugin with a command (:class:`ssmdiff.Command`). It reaches another by its name alone,
:func:`job`, so that each may be missing, and a stranger's is reached as ours are. The protocols say
what ours offer to Python and to each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, overload

from ssmdiff.errors import ConfigError, PluginNotFoundError
from ssmdiff.registry.registry import registry

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from ssmdiff.runs.datasets import ImageDataset
    from ssmdiff.runs.evaluation import Watched
    from ssmdiff.runs.exporting import ExportPrecision, ExportResult
    from ssmdiff.runs.folder import RunFolder
    from ssmdiff.runs.run import Run
    from ssmdiff.runs.sections import Config, TrainConfig

EXTRAS = {
    "train": "train",
    "export": "onnx",
    "bench": "train",
    "evaluate": "evaluate",
    "compare": "evaluate",
    "turing": "turing",
    "reproduce": "turing",
}
"""The jobs that come with ssmdiff, and the extra that brings what each needs."""


class TrainJob(Protocol):
    """Training; see :func:`train`, which calls it."""

    def __call__(
        self,
        config: Config | Mapping[str, Any] | str | None = None,
        out: str | Path | None = None,
        *,
        resume: bool = False,
        overwrite: bool = False,
        allow_changes: Iterable[str] = (),
        callbacks: Sequence[object] = (),
        progress: bool = False,
        **layers: Any,
    ) -> RunFolder: ...

    def keep_freed_memory(self) -> bool:
        """Let the process keep what a step frees for the next; whether the system agreed."""
        ...

    def build_optimizer(self, model: nn.Module, config: TrainConfig) -> Optimizer:
        """The optimiser that a run of this configuration has."""
        ...


class ExportJob(Protocol):
    """Export of trained models to other runtimes."""

    def __call__(
        self,
        run: Run | str | Path,
        out: str | Path,
        to: str = "onnx",
        *,
        checkpoint: str = "latest",
        precision: ExportPrecision = "fp32",
        verify: bool = True,
        progress: bool = False,
        overwrite: bool = False,
        **options: Any,
    ) -> ExportResult:
        """Write a trained model for a target, with the options of its exporter."""
        ...

    def ort_library(self) -> Path:
        """Our operator for ONNX Runtime as a shared library, compiled where it is not yet."""
        ...

    def onnx_sampler(
        self, path: str | Path, provider: str = "cpu", library: Path | None = None
    ) -> Any:
        """An ONNX file behind a sampling loop that imports no torch."""
        ...

    def examine_tensorrt(self, report: Path) -> dict[str, Any]:
        """Build engines of tiny models, compare and time them; the report, also written."""
        ...


class BenchJob(Protocol):
    """Benchmarks: each measures ways of doing one thing in turn, and returns a record."""

    def scan(self, tokens: Sequence[int] = ..., **settings: Any) -> Any:
        """The selective scan, at these numbers of tokens."""
        ...

    def step(self, pixels: Sequence[int] = ..., **settings: Any) -> Any:
        """A training step, at these sides of square images."""
        ...

    def sample(self, run: str | Path, **settings: Any) -> Any:
        """The same images of a run by torch, ONNX Runtime and others."""
        ...


class Watch(Protocol):
    """Judges one checkpoint of a run after the other, in one way."""

    def prove(self) -> str:
        """Judge real images in the place of samples, so that what cannot work is known before
        training; called on the main process alone.

        Returns:
            A sentence: what is drawn, and by which figure the best checkpoint is kept.

        Raises:
            ConfigError: A metric lacks images, or there is no such figure.
            PluginError: A package is missing.
        """
        ...

    def __call__(self, folder: Path, checkpoint: str) -> Watched | None:
        """Of a checkpoint of the run in a folder. Called by every process of the run, each of
        which draws its part; None on all but the main one."""
        ...


class EvaluateJob(Protocol):
    """Evaluation: how good, how varied and how new the images of a model are."""

    def __call__(
        self,
        model: str | Path,
        against: str | Path | Mapping[str, Any] | None = None,
        out: str | Path | None = None,
        **settings: Any,
    ) -> Any:
        """Judge a model; the record, also written. The settings are the flags of the command."""
        ...

    def watch(self, config: Config, dataset: ImageDataset) -> Watch:
        """For the training run of a configuration, by its ``train.evaluate``.

        Raises:
            ConfigError: Its images cannot be judged, or a component is not there.
        """
        ...


@overload
def job(name: Literal["train"]) -> TrainJob: ...
@overload
def job(name: Literal["export"]) -> ExportJob: ...
@overload
def job(name: Literal["bench"]) -> BenchJob: ...
@overload
def job(name: Literal["evaluate"]) -> EvaluateJob: ...
@overload
def job(name: str) -> Any: ...
def job(name: str) -> Any:
    """The job of a command, imported now: ``ssmdiff.job("export")("runs/a", "a.onnx")``.

    Args:
        name: Of the command: ``train``, ``export``, ``bench``, or a stranger's.

    Raises:
        PluginNotFoundError: It comes with ssmdiff and is not installed here; the message says how
            to get it.
        ConfigError: There is no command of that name, or it has no job; with the nearest match.
        PluginBrokenError: It cannot be imported.
        PluginConflictError: Several distributions offer it.
    """
    if name in EXTRAS and name not in registry().names("command"):
        raise PluginNotFoundError(not_installed(name))
    entry = registry().find("command", name)
    found = entry.job()
    if found is None:
        raise ConfigError(
            f"{entry.label} has no job, so Python cannot call it; use: ssmdiff {name}"
        )
    return found


def not_installed(name: str) -> str:
    """That one of our jobs is missing, with what was broken and with the next step."""
    broken = [f"{p.name!r} ({p.source}): {p.error}" for p in registry().plugins if p.error]
    also = f". Broken plugins: {'; '.join(broken)}" if broken else ""
    return (
        f"{name!r} is a job of the distribution ssmdiff, and no plugin here offers it{also}. "
        f"Try: pip install --force-reinstall 'ssmdiff[{EXTRAS[name]}]'"
    )


def train(
    config: Config | Mapping[str, Any] | str | None = None,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    allow_changes: Iterable[str] = (),
    callbacks: Sequence[object] = (),
    progress: bool = False,
    **layers: Any,
) -> RunFolder:
    """Train a diffusion model, as ``ssmdiff train`` does; the job ``train``.

    Example::

        import ssmdiff

        folder = ssmdiff.train(
            "tiny",
            "runs/heads",
            model={"scan": "cross"},
            data={"dataset": {"name": "folder", "path": "images"}, "image_size": 64},
            train={"steps": 1000, "batch_size": 8},
            seed=3,
        )
        images = ssmdiff.load_run(folder.path).sample(4)

    Args:
        config: A preset by name; a mapping, laid over the preset ``tiny``; or a whole
            :class:`ssmdiff.Config`. None is the preset, or the configuration of the run resumed.
        out: The run's folder; None makes a new one under ``runs/``.
        resume: Go on from the newest valid checkpoint in ``out``.
        overwrite: Replace a run that is there.
        allow_changes: Configuration keys that a resumed run may change.
        callbacks: Listeners besides those of the configuration: objects with any of the hooks
            ``ssmdiff_run_start``, ``ssmdiff_step_end``, ... of the page of hooks.
        progress: Show a bar and the loss.
        **layers: Sections and keys of the configuration, laid over ``config``.

    Returns:
        The run's folder, which :func:`ssmdiff.load_run` opens.

    Raises:
        ConfigError: The configuration does not fit the data, the machine or the run resumed.
        PluginError: Training or a component is missing or broken, or the kernel asked for cannot
            run here; nothing was written.
        CheckpointError: The folder cannot be written, is in use, or holds nothing to resume.
        DivergedError: A loss or gradient is not finite; the last good checkpoint is kept.
        RunInterruptedError: SIGINT or SIGTERM; a checkpoint was saved first.
    """
    return job("train")(
        config,
        out,
        resume=resume,
        overwrite=overwrite,
        allow_changes=allow_changes,
        callbacks=callbacks,
        progress=progress,
        **layers,
    )
