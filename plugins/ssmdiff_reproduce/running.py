"""A task done: its run trained, its cells judged, by the jobs that the commands call."""

from __future__ import annotations

import json
import os
import platform
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import ssmdiff
from ssmdiff import (
    Config,
    ConfigError,
    RunFolder,
    RunInterruptedError,
    SsmdiffError,
    build_dataset,
    differences,
    load_json,
    name_of,
    open_model,
    to_levels,
    versions,
    write_atomically,
)

from ssmdiff_reproduce.plan import FREE, Cell, Task

CELL, FAILED, SHEET = "cell.json", "failed.json", "sheet.npy"
TRAINED_ON = "those that were trained on"
Say = Callable[[str], None]


def is_done(cell: Cell) -> bool:
    """Whether the cell was judged, and as it is asked for now."""
    try:
        return bool(load_json(cell.folder / CELL)["asked"] == _plain(cell.asked))
    except (SsmdiffError, OSError, KeyError, TypeError, ValueError):
        return False


def failure(cell: Cell) -> str:
    """Why a cell failed when it was last tried; empty if it did not."""
    path = cell.folder / FAILED
    return str(load_json(path)["error"]) if path.is_file() else ""


def get_ready(tasks: Sequence[Task]) -> None:
    """Before hours of work: refuse runs of another configuration, forget what failed before.

    Raises:
        ConfigError: There is a run of another configuration.
    """
    for task in tasks:
        missing = [cell for cell in task.cells if not is_done(cell)]
        folder = RunFolder(task.run)
        if missing and folder.exists and folder.checkpoint_paths():
            refuse_other(folder, task)
        for cell in missing:
            (cell.folder / FAILED).unlink(missing_ok=True)


def do(task: Task, say: Say, progress: bool) -> None:
    """Train what is not trained and judge what is not judged; goes on where it was stopped.

    What goes wrong with a run or a cell is told, and kept for the table: the others go on.

    Raises:
        RunInterruptedError: A signal asked to stop; all is saved.
        OutOfTimeError: ``train.max_hours`` is over; likewise.
    """
    missing = [cell for cell in task.cells if not is_done(cell)]
    spent_s = 0.0
    if missing:
        with _kept(missing, say):
            spent_s = train(task, say, progress)
    for cell in missing:
        if not failure(cell):
            with _kept([cell], say):
                judge(cell, task, spent_s, progress)
                say(f"done: {cell}")


@contextmanager
def _kept(cells: Sequence[Cell], say: Say) -> Iterator[None]:
    """What goes wrong inside is kept as what these cells failed of: hours of others are not lost
    with them."""
    for cell in cells:
        (cell.folder / FAILED).unlink(missing_ok=True)
    try:
        yield
    except RunInterruptedError:
        raise
    except Exception as error:
        reason = str(error) if isinstance(error, SsmdiffError) else name_of(error)
        for cell in cells:
            cell.folder.mkdir(parents=True, exist_ok=True)
            _write(cell.folder / FAILED, {"error": reason, "trace": traceback.format_exc()})
        say(f"failed: {'; '.join(map(str, cells))}: {reason}")


def train(task: Task, say: Say, progress: bool) -> float:
    """Train the run of a task to its last step, from its newest checkpoint if there is one.

    Returns:
        Seconds of its steps, by what the run tells of each.

    Raises:
        ConfigError: There is a run of another configuration.
        SsmdiffError: As ``ssmdiff.train``.
    """
    folder = RunFolder(task.run)
    begun = folder.exists and bool(folder.checkpoint_paths())
    if begun:
        refuse_other(folder, task)
    if not begun or int(folder.checkpoint().state()["step"]) < task.config.train.steps:
        say(f"training: {task}")
        ssmdiff.train(
            task.config,
            task.run,
            resume=begun,
            overwrite=folder.exists and not begun,
            progress=progress,
        )
    return seconds_of(task.run, task.config.train.batch_size)


def refuse_other(folder: RunFolder, task: Task) -> None:
    """Check that a run that is there is the one that is planned."""
    told = ssmdiff.resolve(folder.config_layer())
    unlike = {
        key: pair
        for key, pair in differences(told, ssmdiff.resolve(task.config)).items()
        if key not in FREE and not (key.startswith("data.") and None in pair)
    }
    if unlike:
        listed = "; ".join(f"{key} {then!r}, now {now!r}" for key, (then, now) in unlike.items())
        raise ConfigError(
            f"{folder.path} holds a run of another configuration ({listed}); choose another --out, "
            "or delete it"
        )


def judge(cell: Cell, task: Task, trained_s: float, progress: bool) -> None:
    """Judge the images of a cell and keep what was asked and what it took; for figure 2 draw some.

    Raises:
        SsmdiffError: As the job ``evaluate``.
    """
    begin = time.perf_counter()
    asked = _plain(cell.asked)
    facts: dict[str, Any] = {}
    words = ""
    if asked["features"]:
        against, words = reference_of(asked, task.config)
        record = ssmdiff.job("evaluate")(
            task.run,
            against,
            cell.folder,
            n=asked["drawn"],
            features=asked["features"],
            metrics=asked["metrics"],
            reference=asked["reference"],
            seed=cell.seed,
            progress=progress,
            **asked["draw"],
        )
        facts = dict(record.model)
    else:
        draw_sheet(cell, task.run)
    done = {
        "asked": asked,
        "data": cell.data,
        "system": cell.system,
        "seed": cell.seed,
        "run": str(task.run),
        "reference": words,
        "images_seen": task.config.train.steps * task.config.train.batch_size,
        "trained_s": round(trained_s, 1),
        "judged_s": round(time.perf_counter() - begin, 1),
        "model": facts,
        "machine": machine(),
    }
    cell.folder.mkdir(parents=True, exist_ok=True)
    _write(cell.folder / CELL, done)


def reference_of(asked: Mapping[str, Any], config: Config) -> tuple[dict[str, Any] | None, str]:
    """What the images of a cell are held against, as a data set, and in words; None is what the run
    was trained on."""
    table: dict[str, Any] = asked["against"]
    if table:
        options = " and ".join(f"{k} {v}" for k, v in table.items() if k != "name")
        return table, f"{table['name']}{f' of {options}' if options else ''}"
    if asked["held_out"] and getattr(build_dataset(config), "held_out", None) is not None:
        own = config.data.dataset
        return {**own, "split": own["held_out"]}, f"the split {own['held_out']} of the store"
    return None, TRAINED_ON


def draw_sheet(cell: Cell, run: Path) -> None:
    """The first images of a cell, as levels in a file."""
    model = open_model(run)
    draw = dict(cell.asked["draw"])
    count = int(cell.asked["drawn"])
    images = model.sample(count, seed=cell.seed, batch_size=count, **draw)
    cell.folder.mkdir(parents=True, exist_ok=True)
    np.save(cell.folder / SHEET, to_levels(np.asarray(images)), allow_pickle=False)


def seconds_of(run: Path, batch_size: int) -> float:
    """Seconds of a run's steps; 0 where it has no metrics."""
    total = 0.0
    path = run / "metrics.jsonl"
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            speed = json.loads(text).get("images_per_s")
        except ValueError:  # a last line that a kill cut short
            continue
        total += batch_size / speed if speed else 0.0
    return total


def machine() -> dict[str, Any]:
    """What computed a cell: processor or GPU, threads, versions of the libraries."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    known = versions()
    libraries = ("ssmdiff", "torch", "numpy", "numba", "diffusers", "scipy", "monai")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        **({"gpu": gpu} if gpu else {}),
        "versions": {name: known[name] for name in libraries if name in known},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back: lists for tuples."""
    plain: dict[str, Any] = json.loads(json.dumps(value))
    return plain


def _write(path: Path, value: Mapping[str, Any]) -> None:
    write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())
