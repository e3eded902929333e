"""The endless sequence of training images: everything about image number i is a function of i.

Which image of the data set it is, how it is changed, and what the method draws for it are functions
of (seed, i). A process takes its slice of each batch, a resumed run starts at another i, and
neither changes what any i is.
"""

from __future__ import annotations

import functools
import pickle
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any, NamedTuple

import numpy as np
import torch
from ssmdiff import (
    ConfigError,
    DataError,
    Draws,
    ImageDataset,
    ImageItem,
    name_of,
    permutation,
    stream,
)
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from ssmdiff_train.augment import Augmentation
from ssmdiff_train.telling import Telling

_SECONDS_TO_DIE = 5.0

TrainingImage = dict[str, Tensor]
"""One image with its label and its draws; collated, each gains the axis B: an ``ssmdiff.Batch``."""


class Unread(NamedTuple):
    """In the place of an image, why it could not be read: an error is not raised in a reader
    process, since what arrives of it here would be a page of traceback in its message."""

    number: int
    """Of the image in the run."""
    item: int
    """Its index in the data set."""
    error: Exception


class ReaderDiedError(DataError):
    """A process that reads images has gone."""


class TrainingStream(Dataset[TrainingImage | Unread]):
    """Image number i of a run, for any i >= 0.

    Args:
        dataset: The images.
        seed: The run's seed.
        draws: Of the method, for each image.
        flip: Mirror along the last axis with probability one half.
        augmentation: What else is done to an image, at random.
        telling: What the model is told of each; nothing by default.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        seed: int,
        draws: Draws,
        flip: bool,
        augmentation: Augmentation | None = None,
        telling: Telling | None = None,
    ) -> None:
        self.dataset, self.seed, self.draws, self.flip = dataset, seed, draws, flip
        self.augmentation, self.telling = augmentation or Augmentation(), telling or Telling()

    def __getitem__(self, i: int) -> TrainingImage | Unread:
        epoch, place = divmod(i, len(self.dataset))
        index = int(self._permutation(epoch)[place])
        try:
            item = ImageItem(*self.dataset[index])
        except Exception as error:
            return Unread(i, index, _portable(error))
        change = self.augmentation.drawn(self.seed, i)
        draws = stream(self.seed, "training image", i)
        flips = False

        def mirrored(image: Tensor) -> Tensor:
            nonlocal flips
            flips = self.flip and draws.random() < 0.5
            return image.flip(-1) if flips else image

        drawn = self.draws(draws, change(item.image), mirrored)
        try:
            told = self.telling.drawn(self.dataset, item, change, flips, self.seed, i)
        except DataError as error:
            return Unread(i, index, error)
        return {"label": torch.tensor(item.label), **drawn, **told}

    def _permutation(self, epoch: int) -> np.ndarray:
        return _epoch(self.seed, epoch, len(self.dataset))


@functools.lru_cache(maxsize=4)
def _epoch(seed: int, epoch: int, length: int) -> np.ndarray:
    """The order of the data set in one pass over it."""
    return permutation(stream(seed, "epoch", epoch), length)


def share_of(batch: int, processes: int) -> int:
    """Images of a batch for each process.

    Raises:
        ConfigError: The batch cannot be split over the processes.
    """
    if batch % processes:
        raise ConfigError(
            f"train.batch_size = {batch} counts images over all processes and cannot be split over "
            f"{processes}; the nearest that can is {max(processes, batch - batch % processes)}"
        )
    return batch // processes


class _BatchSlices(Sampler[list[int]]):
    """This process's share of every batch: consecutive image numbers."""

    def __init__(self, start: int, stop: int, batch: int, rank: int, processes: int) -> None:
        self.starts = range(start, stop, batch)
        self.share = share_of(batch, processes)
        self.offset = rank * self.share

    def __iter__(self) -> Iterator[list[int]]:
        for start in self.starts:
            first = start + self.offset
            yield list(range(first, first + self.share))

    def __len__(self) -> int:
        return len(self.starts)


def loader(
    images: Dataset[Any],
    start: int,
    stop: int,
    batch: int,
    rank: int,
    processes: int,
    workers: int,
) -> DataLoader[TrainingImage]:
    """Batches of this process from image ``start`` to ``stop``."""
    return DataLoader(
        images,
        batch_sampler=_BatchSlices(start, stop, batch, rank, processes),
        num_workers=workers,
        worker_init_fn=_ignore_interrupts if workers else None,
        persistent_workers=False,
        collate_fn=_collate,
        pin_memory=torch.cuda.is_available(),
    )


@contextmanager
def reading(batches: DataLoader[TrainingImage]) -> Iterator[Iterator[TrainingImage | Unread]]:
    """The batches of a loader. That a reader process died is told where a batch is asked for.

    torch would raise it from a signal handler, anywhere: in the midst of a step, whose state could
    not be saved then.
    """
    handled = batches.num_workers and threading.current_thread() is threading.main_thread()
    if handled:  # torch's handler must not be there for a moment
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    iterator = iter(batches)
    if handled:
        before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    try:
        yield _told(iterator)
    finally:
        if handled:
            signal.signal(signal.SIGCHLD, before)


def _told(batches: Iterator[TrainingImage]) -> Iterator[TrainingImage | Unread]:
    while True:
        try:
            yield next(batches)
        except StopIteration:
            return
        except (RuntimeError, EOFError, OSError) as error:
            workers = getattr(batches, "_workers", ())
            if isinstance(error, RuntimeError):
                if "DataLoader worker" not in str(error):
                    raise
            else:  # what it had sent could not be fetched from it, and its end follows
                ended = wait([worker.sentinel for worker in workers], _SECONDS_TO_DIE)
                for worker in workers:
                    if worker.sentinel in ended:
                        worker.join(_SECONDS_TO_DIE)
            gone = [worker for worker in workers if not worker.is_alive()]
            if not gone and not isinstance(error, RuntimeError):
                raise
            raise ReaderDiedError(
                f"a process that reads images died ({_how(gone)}). The system may be short of "
                "memory: try fewer --workers"
            ) from None


def _how(gone: Sequence[object]) -> str:
    words = []
    for process in gone:
        code = getattr(process, "exitcode", None) or 0
        how = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
        words.append(f"process {getattr(process, 'pid', '?')}, {how}")
    return "; ".join(words) or "it was killed"


def _collate(items: list[TrainingImage | Unread]) -> TrainingImage | Unread:
    for item in items:
        if isinstance(item, Unread):
            return item
    batch: TrainingImage = default_collate(items)
    return batch


def _portable(error: Exception) -> Exception:
    """The error, or one that says the same, if it does not survive the way between processes."""
    try:
        if str(pickle.loads(pickle.dumps(error))) == str(error):
            return error
    except Exception:  # whatever a stranger's class does
        pass
    return RuntimeError(name_of(error))


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C reaches the whole process group; the main process alone answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
