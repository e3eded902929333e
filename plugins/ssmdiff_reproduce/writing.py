"""A plan as commands, for a queue: a Slurm array, or a list of lines."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from ssmdiff import ConfigError, did_you_mean, write_atomically

from ssmdiff_reproduce.plan import Planned

WAYS = ("slurm", "commands")


def write_commands(planned: Planned, way: str, arguments: Sequence[str]) -> list[Path]:
    """Write what computes each task by itself, and then the table.

    Args:
        planned: The plan.
        way: ``slurm``: ``cells.sbatch``, an array of a job for each task, and ``table.sbatch``,
            which comes after it. ``commands``: ``commands.txt``, a line for each task, and the
            table last.
        arguments: Of ``ssmdiff reproduce``, those that choose what is computed.

    Raises:
        ConfigError: There is no such way.
    """
    if way not in WAYS:
        raise ConfigError(f"--write {way!r}: {did_you_mean(way, WAYS)}")
    command = ["ssmdiff", "reproduce", *arguments]
    planned.out.mkdir(parents=True, exist_ok=True)
    if way == "commands":
        lines = [shlex.join([*command, "--task", str(task.number)]) for task in planned.tasks]
        path = planned.out / "commands.txt"
        text = "".join(f"{line}\n" for line in [*lines, shlex.join(command)])
        write_atomically(path, text.encode())
        return [path]
    cells, table = planned.out / "cells.sbatch", planned.out / "table.sbatch"
    logs = shlex.quote(str(planned.out / "logs"))
    head = f"#!/bin/bash\n#SBATCH --job-name=ssmdiff-table-{planned.table}\n"
    queue = (
        f"{head}#SBATCH --array=0-{len(planned.tasks) - 1}\n#SBATCH --requeue\n"
        f"#SBATCH --output={logs}/%A_%a.log\n#SBATCH --open-mode=append\n"
        "# Add what your cluster wants: --partition, --gres=gpu:1, --time, --account.\n"
        "# With --set train.max_hours=H a job stops in time, saves and asks to be started again.\n"
        f'{shlex.join(command)} --task "$SLURM_ARRAY_TASK_ID"\n'
        "code=$?\n"
        '[ "$code" -eq 75 ] && exec scontrol requeue '
        '"${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"\n'
        'exit "$code"\n'
    )
    write_atomically(cells, queue.encode())
    last = f"{head}#SBATCH --output={logs}/table.log\n{shlex.join(command)}\n"
    write_atomically(table, last.encode())
    (planned.out / "logs").mkdir(exist_ok=True)
    return [cells, table]
