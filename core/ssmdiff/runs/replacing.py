"""A run that takes the place of another: the old one is kept whole until the new one can be loaded.

What the old run wrote is moved into ``RUN/replaced``, itself a run folder, and is deleted when the
new run has its first checkpoint. A process that is killed in between loses neither.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ssmdiff.runs import checkpoint as ckpt

ASIDE = "replaced"
_MOVING = "replaced.moving"
"""The same folder while it is filled: all that is beside it belongs to the old run too."""

_NAMES = ("samples", "judged", "checkpoints", "metrics.jsonl", "loss.png", "config.toml")
"""In the order in which they move: what is left half-way still says that it is a run."""
_EVENTS = "*/events.out.tfevents.*"


def products(run: Path) -> list[Path]:
    """What a run wrote into its folder, and nothing else that lies there."""
    named = [run / name for name in _NAMES if (run / name).exists()]
    return [*run.glob(_EVENTS), *named]


def kept(run: Path) -> Path | None:
    """The run that is being replaced, if there is one."""
    return next((run / name for name in (ASIDE, _MOVING) if (run / name).is_dir()), None)


def set_aside(run: Path) -> None:
    """Make room for a new run; the newest run with a checkpoint is kept."""
    bring_back(run)
    ckpt.sweep(run)
    if (run / ASIDE).is_dir() and ckpt.latest(run / "checkpoints")[0] is None:
        _move(run, run / f"{ckpt.TEMPORARY}unfinished")  # it replaced a run and never got so far
    else:
        let_go(run)
        _move(run, run / _MOVING)
        if (run / _MOVING).is_dir():
            (run / _MOVING).rename(run / ASIDE)
    ckpt.sweep(run)


def bring_back(run: Path) -> None:
    """Undo a :func:`set_aside` that was killed while it moved."""
    if (run / _MOVING).is_dir():
        _move(run / _MOVING, run)
        ckpt.remove(run / _MOVING)


def let_go(run: Path) -> None:
    """Delete what was kept."""
    if (run / ASIDE).is_dir():
        ckpt.discard(run / ASIDE)


def _move(source: Path, target: Path) -> None:
    for path in products(source):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(place)
        with suppress(OSError):  # it holds more
            if path.parent != source:
                path.parent.rmdir()
