"""The job ``train``: a run from its first step, or on from its newest checkpoint.

``ssmdiff.train`` and ``ssmdiff.job("train")`` are :data:`train`. What trains is imported when it is
called, so that other jobs have the rest without it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssmdiff import (
    DEFAULT_PRESET,
    Config,
    ConfigError,
    Layer,
    RunFolder,
    load_preset,
    parts_of,
    resolve,
)

if TYPE_CHECKING:
    from ssmdiff import TrainConfig
    from torch import nn
    from torch.optim import Optimizer


class Train:
    """Called, it trains; and it has what other jobs need of training."""

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
    ) -> RunFolder:
        """Train a run to ``config.train.steps`` and leave it in ``out``; see ``ssmdiff.train``."""
        from ssmdiff_train.process import run_training

        if resume and out is None:
            raise ConfigError("resume needs out, the folder of the run to go on with")
        whole = _configuration(config, RunFolder(Path(out)) if resume and out else None, layers)
        if progress:
            from ssmdiff_train.callbacks import ConsoleProgress

            callbacks = [*callbacks, ConsoleProgress()]
        folder = RunFolder(_new_folder(whole) if out is None else Path(out))
        run_training(whole, folder, resume, overwrite, allow_changes, callbacks)
        return folder

    def keep_freed_memory(self) -> bool:
        """For a program that trains and does little else: faster steps, and memory that is kept
        until the process ends. Returns whether the system's allocator agreed."""
        from ssmdiff_train.memory import keep_freed_memory

        return keep_freed_memory()

    def build_optimizer(self, model: nn.Module, config: TrainConfig) -> Optimizer:
        """The optimiser that a run of this configuration has."""
        from ssmdiff_train.optimizer import build_optimizer

        return build_optimizer(model, config)


train = Train()


def _configuration(
    config: Config | Mapping[str, Any] | str | None,
    resumed: RunFolder | None,
    layers: Mapping[str, Any],
) -> Config:
    """A preset's name, a mapping over the default preset or over a run, or a whole configuration.

    Raises:
        ConfigError: Something in it is wrong, or would be lost.
    """
    if isinstance(config, Config):
        return resolve(config, Layer(layers, "a keyword")) if layers else config
    below = [] if resumed is None else [resumed.config_layer()]
    if resumed is None or isinstance(config, str):
        below.append(load_preset(config if isinstance(config, str) else DEFAULT_PRESET))
    over = config if isinstance(config, Mapping) else {}
    return resolve(*below, Layer(over, "config"), Layer(layers, "a keyword"))


def _new_folder(config: Config) -> Path:
    """``runs/vmddpm-mss-regenerate-phantom-001`` and up."""
    stem = "-".join([*parts_of(config.to_dict()).values(), config.data.dataset["name"]])
    candidates = (Path("runs") / f"{stem}-{i:03d}" for i in itertools.count(1))
    return next(path for path in candidates if not path.exists())
