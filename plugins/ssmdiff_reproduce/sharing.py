"""Cells shared out among processes that see one folder: by rank, through files, by nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ssmdiff_reproduce.plan import Planned, Task

OF_A_LAUNCHER = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE"),
    *("ROLE_RANK", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
)
"""What torchrun tells a process. Each run here is of one process, so it is not told."""


@dataclass(frozen=True)
class Share:
    """Which of so many processes this is."""

    rank: int = 0
    world: int = 1

    def of(self, tasks: Sequence[Task]) -> list[Task]:
        """Every so-manieth task: whoever does them, and whatever is done, all agree on whose each
        is."""
        return [task for task in tasks if task.number % self.world == self.rank]


@contextmanager
def alone() -> Iterator[Share]:
    """The share of this process, as torchrun has it; meanwhile training and drawing are of one
    process each, and on one GPU, the one that is this process's by its number on the host."""
    kept = {name: os.environ.pop(name) for name in OF_A_LAUNCHER if name in os.environ}
    devices = os.environ.get("CUDA_VISIBLE_DEVICES")
    if "LOCAL_RANK" in kept:
        own = _own_device(int(kept["LOCAL_RANK"]), devices)
        if own is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = own
    try:
        yield Share(int(kept.get("RANK", 0)), int(kept.get("WORLD_SIZE", 1)))
    finally:
        os.environ.update(kept)
        if devices is None:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = devices


def _own_device(local_rank: int, visible: str | None) -> str | None:
    """The GPU of a process, in turn where there are fewer; None where there is none."""
    if visible is None:
        import torch

        count = torch.cuda.device_count()  # of the driver: nothing is started by it
        names = [str(i) for i in range(count)]
    else:
        names = [name for name in visible.split(",") if name.strip()]
    return names[local_rank % len(names)] if names else None


def numbered(planned: Planned, number: int | None, share: Share) -> list[Task]:
    """The tasks of this process: one by its number, or those of its share."""
    return share.of(planned.tasks) if number is None else [planned.tasks[number]]
