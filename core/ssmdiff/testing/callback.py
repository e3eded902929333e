"""What a callback must do: hear a run through its hooks, and leave the run as it would be alone."""

from __future__ import annotations

import inspect
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ssmdiff.errors import did_you_mean
from ssmdiff.registry import hooks, hookspecs
from ssmdiff.registry.events import StepRecord
from ssmdiff.registry.options import validate
from ssmdiff.registry.registry import registry, split_spec
from ssmdiff.runs.config import merge
from ssmdiff.runs.pictures import write_grid
from ssmdiff.runs.sections import Config
from ssmdiff.testing import probes
from ssmdiff.testing.report import ViolationError
from ssmdiff.testing.suite import Subject, Suite

STEPS, MANY_STEPS = 4, 256
EVENTS = tuple(
    name
    for name, hook in vars(hookspecs).items()
    if name.startswith("ssmdiff_") and inspect.signature(hook).parameters
)
"""The hooks by which a run tells what happens; those by which a plugin offers take no argument."""
_CONFIG = {
    "data": {"dataset": {"name": "probe"}, "image_size": [8, 8]},
    "model": {part: {"name": "probe"} for part in ("backbone", "block", "scan")},
    "train": {"batch_size": 2, "callbacks": []},
    "sample": {"scheduler": {"name": "probe"}, "steps": 2, "count": 1},
}


class ProbeRun:
    """A run's folder and its events, in the order in which training has them, without any training.

    Args:
        folder: A new folder, which gets the files of a run.
        steps: How many the run does.
    """

    def __init__(self, folder: Path, steps: int = STEPS) -> None:
        self.folder, self.steps = folder, steps
        self.config = validate(Config, merge(_CONFIG, {"train": {"steps": steps}}), "")
        self.checkpoint = folder / "checkpoints" / f"step-{steps}"
        self.checkpoint.mkdir(parents=True)
        (self.checkpoint / "manifest.json").write_text("{}")
        (folder / "config.toml").write_text(self.config.to_toml())
        self.picture = folder / "samples" / f"step-{steps}.png"
        self.picture.parent.mkdir()
        write_grid(self.picture, torch.zeros(1, 1, 8, 8))
        records = [StepRecord(i, 2 * i, 1 / i, 1e-4, 0.5, 20.0) for i in range(1, steps + 1)]
        lines = "".join(json.dumps(asdict(record)) + "\n" for record in records)
        (folder / "metrics.jsonl").write_text(lines)
        self.records = records
        self.own = self.files()

    def files(self) -> dict[str, bytes]:
        """Every file of the folder with what it holds."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }

    def start(self, callback: object, step: int = 0) -> Any:
        """The hooks of a callback, which has heard that the run begins after that step."""
        heard = hooks.hooks_of([callback])
        heard.ssmdiff_run_start(folder=self.folder, config=self.config, step=step)
        return heard

    def tell_steps(self, heard: Any, records: Sequence[StepRecord]) -> None:
        for record in records:
            heard.ssmdiff_step_end(record=record)

    def tell_all(self, callback: object, step: int = 0) -> None:
        """A run from after that step to its end."""
        heard = self.start(callback, step)
        self.tell_steps(heard, self.records[step:])
        heard.ssmdiff_checkpoint_saved(path=self.checkpoint, step=self.steps)
        heard.ssmdiff_reported(name="bits_per_dim", value=3.5, step=self.steps)
        heard.ssmdiff_samples_made(path=self.picture, step=self.steps)
        heard.ssmdiff_run_end(status="finished")

    def require_own_files(self) -> dict[str, int]:
        """The sizes of what the callback wrote; the run's own files are as they were.

        Raises:
            ViolationError: One is not.
        """
        found = self.files()
        changed = [name for name, content in self.own.items() if found.get(name) != content]
        if changed:
            raise ViolationError(
                f"the run's own {', '.join(changed)} changed or went",
                "files beside those of the run",
            )
        return {name: len(text) for name, text in found.items() if name not in self.own}


class CallbackSubject(Subject):
    """A callback, with its ``offline_options`` where it has any: a check reaches no network."""

    def __init__(self, kind: str, spec: str | Mapping[str, Any]) -> None:
        name, chosen = split_spec(kind, spec)
        offline = getattr(registry().find(kind, name).factory(), "offline_options", {})
        super().__init__(kind, {"name": name, **offline, **chosen})


suite = Suite("callback", CallbackSubject)


def _new_run(folder: str, name: str = "run", steps: int = STEPS) -> ProbeRun:
    return ProbeRun(Path(folder) / name, steps)


@suite.check
def hooks_of_a_run(subject: CallbackSubject) -> str:
    """It has hooks of a run, each with its mark and with arguments that a run gives."""
    callback = subject.build()
    named = [name for name in dir(callback) if name.startswith("ssmdiff_")]
    for name in named:
        if name not in EVENTS:
            raise ViolationError(
                f"there is a method {name!r}",
                f"the hooks of a run alone; {did_you_mean(name, EVENTS)}",
            )
        if not hasattr(getattr(callback, name), f"{hookspecs.PROJECT}_impl"):
            raise ViolationError(
                f"method {name!r} has no mark, so that it is never called",
                "@ssmdiff.hookimpl above it",
            )
    if not named:
        raise ViolationError(
            "without a hook it hears nothing",
            f"at least one of {', '.join(EVENTS)}",
        )
    hooks.hooks_of([callback])
    return f"hears {', '.join(name.removeprefix('ssmdiff_') for name in named)}"


@suite.check
def whole_run(subject: CallbackSubject) -> str:
    """It hears a run from its first step to its last, and leaves the run's files alone."""
    with tempfile.TemporaryDirectory() as folder:
        run = _new_run(folder)
        run.tell_all(subject.build())
        written = run.require_own_files()
    return f"writes {', '.join(written)}" if len(written) == 1 else f"writes {len(written)} files"


@suite.check
def randomness(subject: CallbackSubject) -> str:
    """It moves no global random state: a resumed run is the run that was never stopped."""
    with tempfile.TemporaryDirectory() as folder:
        run = _new_run(folder)
        callback = subject.build()
        before = probes.global_states()
        run.tell_all(callback)
        if probes.global_states() != before:
            raise ViolationError(
                "a hook moved a global random state",
                "a generator of its own, such as numpy.random.default_rng()",
            )
    return "global random states stay where they are"


@suite.check
def early_end(subject: CallbackSubject) -> str:
    """A run may fail before its first step, or be interrupted before anything is drawn."""
    with tempfile.TemporaryDirectory() as folder:
        for status, steps in (("failed", 0), ("interrupted", 2)):
            run = _new_run(folder, status)
            heard = run.start(subject.build())
            run.tell_steps(heard, run.records[:steps])
            heard.ssmdiff_run_end(status=status)
            run.require_own_files()
    return "failed before the first step, and interrupted after the second"


@suite.check
def resume(subject: CallbackSubject) -> str:
    """A run that was cut off without a word goes on in its folder, with a new callback."""
    with tempfile.TemporaryDirectory() as folder:
        run = _new_run(folder)
        run.tell_steps(run.start(subject.build()), run.records[:3])
        run.tell_all(subject.build(), step=2)  # the last checkpoint was one step older
        run.require_own_files()
    return "goes on after a run that was cut off"


@suite.check
def next_run(subject: CallbackSubject) -> str:
    """A short run leaves what it left before a long run in the same process."""
    with tempfile.TemporaryDirectory() as folder:
        lengths = {"first": STEPS, "long": MANY_STEPS, "last": STEPS}
        runs = [_new_run(folder, name, steps) for name, steps in lengths.items()]
        for run in runs:
            run.tell_all(subject.build())
        first, _, last = (run.require_own_files() for run in runs)
    sizes = sum(first.values()), sum(last.values())
    if len(first) != len(last) or max(sizes) > 2 * min(sizes):
        raise ViolationError(
            f"{len(first)} files of {sizes[0]} bytes in a run of {STEPS} steps, and after another "
            f"run {len(last)} of {sizes[1]}",
            "about as much: what belongs to a run is kept in the callback, not in its class or "
            "its module",
        )
    return "runs in one process are heard alike"
