"""The job ``train``: a run from its first step, or on from its newest checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from ssmdiff import DTYPES, Config, ConfigError, RunFolder, require_kernel, set_kernel

from ssmdiff_train.lock import run_lock
from ssmdiff_train.loop import PRECISION, Trainer
from ssmdiff_train.signals import stop_on_signals


def train(
    config: Config,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    allow_changes: Iterable[str] = (),
    callbacks: Sequence[object] = (),
) -> RunFolder:
    """Train a run to ``config.train.steps`` and leave it in ``out``.

    Args:
        config: Resolved configuration.
        out: The run's folder.
        resume: Go on from the newest valid checkpoint in ``out``.
        overwrite: Replace a run that is there.
        allow_changes: Configuration keys that a resumed run may change.
        callbacks: Listeners besides those of the configuration: objects with any of the hooks
            ``ssmdiff_run_start``, ``ssmdiff_step_end``, ... of the page of hooks.

    Raises:
        ConfigError: The configuration does not fit the data, the machine or the run resumed.
        KernelUnavailableError: The kernel asked for cannot run here; nothing was written.
        CheckpointError: The folder cannot be written, is in use, or holds nothing to resume.
        DivergedError: A loss or gradient is not finite; the last good checkpoint is kept.
        RunInterruptedError: SIGINT or SIGTERM; a checkpoint was saved first.
    """
    folder = RunFolder(Path(out))
    if config.train.precision == "fp16" and not torch.cuda.is_available():
        raise ConfigError("train.precision = 'fp16' needs a GPU; on a CPU use 'bf16' or 'fp32'")
    set_kernel(config.train.kernel)
    accelerator = Accelerator(
        mixed_precision=PRECISION[config.train.precision], cpu=not torch.accelerator.is_available()
    )
    try:
        require_kernel(accelerator.device, DTYPES[config.train.precision])
        with ExitStack() as stack:
            if resume:
                folder.config_layer()
            elif accelerator.is_main_process:
                folder.refuse_to_replace(config, overwrite)
            trainer = Trainer(config, folder, accelerator, callbacks)
            # The data and the model are sound: only now is anything written.
            if accelerator.is_main_process:
                if not resume:
                    folder.create(config, overwrite)
                stack.enter_context(run_lock(folder.path))
                folder.sweep()
            accelerator.wait_for_everyone()
            stop = stack.enter_context(stop_on_signals())
            if resume:
                trainer.restore(allow_changes)
            trainer.run(stop)
    finally:
        accelerator.free_memory()
        AcceleratorState._reset_state()  # so that one process can train again in another precision
    return folder
