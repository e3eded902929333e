"""One process of a training run: the device, the folder's lock, signals, and the trainer."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs
from ssmdiff import (
    DTYPES,
    Config,
    ConfigError,
    DatasetSummary,
    RunFolder,
    require_kernel,
    set_kernel,
    summary_of,
)

from ssmdiff_train import faults, summary
from ssmdiff_train.callbacks import ConsoleProgress
from ssmdiff_train.lock import run_lock
from ssmdiff_train.loop import PRECISION, Trainer
from ssmdiff_train.signals import stop_on_signals

PATIENCE = timedelta(days=1)
"""How long a process waits for the others. The first one draws grids and judges alone, and torch's
own is 10 minutes on GPUs (NCCL). One that dies is not waited for: torchrun ends them all."""


def run_training(
    config: Config,
    folder: RunFolder,
    resume: bool,
    overwrite: bool,
    allow_changes: Iterable[str],
    callbacks: Sequence[object],
) -> None:
    """Train a run to ``config.train.steps`` and leave it in its folder; see ``ssmdiff.train``."""
    console = next((one for one in callbacks if isinstance(one, ConsoleProgress)), None)
    if config.train.precision == "fp16" and not torch.cuda.is_available():
        raise ConfigError("train.precision = 'fp16' needs a GPU; on a CPU use 'bf16' or 'fp32'")
    set_kernel(config.train.kernel)
    accelerator = Accelerator(
        mixed_precision=PRECISION[config.train.precision],
        cpu=not torch.accelerator.is_available(),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    trainer = None
    try:
        require_kernel(accelerator.device, DTYPES[config.train.precision])
        with ExitStack() as stack:
            main = accelerator.is_main_process
            if resume:
                folder.config_layer()
                folder.refuse_data(config)
            elif main:
                folder.refuse_to_replace(config, overwrite)
            locked = main and folder.path.is_dir()
            if locked:  # before anything of a run that may be alive is touched
                stack.enter_context(run_lock(folder.path))
            trainer = Trainer(config, folder, accelerator, callbacks, resume)
            told = summary_of(trainer.dataset)
            folder.refuse_data_in(told.folders)
            if main:
                _tell(trainer, told, console)
            # The data and the model are sound: only now is anything written.
            if main:
                if not locked:
                    stack.enter_context(run_lock(folder.path))
                if not resume:
                    folder.create(trainer.config, overwrite, trainer.made_of)
                folder.sweep()
            accelerator.wait_for_everyone()
            stop = stack.enter_context(stop_on_signals())
            if resume:
                trainer.restore(allow_changes)
            trainer.run(stop)
    except Exception as error:
        if not (which := faults.out_of_memory(error)):
            raise
        where = f"after step {trainer.step}" if trainer else "before the first step"
        kept = faults.newest_checkpoint_clause(folder.checkpoint_paths())
        raise faults.memory_error(which, where, config, kept) from error
    finally:
        accelerator.free_memory()
        AcceleratorState._reset_state()  # so that one process can train again in another precision


def _tell(trainer: Trainer, told: DatasetSummary, console: ConsoleProgress | None) -> None:
    """What will be trained on and what will be trained, to whoever looks; doubts to everyone."""
    begun = trainer.begun
    doubts = [*told.warnings, *(begun.doubts if begun else ())]
    if console:
        begins = begun.lines if begun else ()
        for line in (*summary.of_data(trainer, told), *summary.of_model(trainer), *begins):
            console.say(line)
        console.compiles = summary.kernel_of(trainer) not in ("torch", "of no scan")
        line, doubt = summary.of_memory(trainer)
        for sentence in (line, *trainer.watching.told):
            console.say(sentence)
        doubts += [doubt] if doubt else []
    for doubt in doubts:
        warnings.warn(doubt, stacklevel=2)
