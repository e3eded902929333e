"""One damaged copy of files, opened; and an hour of them: ``python tests/faults/fuzzing.py``.

What may come of it is an error with a sentence (a ``SsmdiffError``), or something that is what the
files say. A crash, a hang, memory out of proportion and a lie that is believed are findings, each
with the seed that repeats it: ``--opener NAME --seed N``. The process of the hour has an address
space bounded by the kernel, since Pillow's memory and torch's are not Python's.
"""

from __future__ import annotations

import argparse
import collections
import fnmatch
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ssmdiff

Mutate = Callable[[random.Random, bytes], bytes]

SECONDS, WAITING = 20, 600
"""None of these files is larger than 100 KB; one that takes this long of the processor hangs, and
so does one that waits: on the clock it may take that and what a busy machine makes of it."""
TIMES, CONSTANT = 10, 24 << 20
"""Memory: ten times the file, and what it costs to open the smallest. That is Python's and numpy's,
by tracemalloc; the child's own bound of address space has the rest, Pillow's and torch's too."""
ADDRESS_SPACE = 1 << 30


class FindingError(AssertionError):
    """What must not happen, with the seed that repeats it."""


@dataclass(frozen=True)
class Opener:
    """One way to open a file.

    Args:
        files: The whole files by name, in a folder of their own.
        mutate: How each is damaged, by name.
        open: Opens the folder; what it raises or returns is looked at.
        accepted: Raises if what was returned is not what the files say.
    """

    files: dict[str, bytes]
    mutate: dict[str, Mutate]
    open: Callable[[Path], Any]
    accepted: Callable[[Path, Any], None]


class _HangError(BaseException):
    """Past whatever catches an Exception on the way."""


@contextmanager
def limited(seconds: float, waiting: float) -> Iterator[None]:
    """Alarms of the processor's time and of the clock, in the main thread."""

    def ring(number: int, frame: object) -> None:
        said = f"{seconds} s of the processor" if number == signal.SIGPROF else f"{waiting} s"
        raise _HangError(f"it hangs: {said} have passed")

    alarms = [
        (signal.ITIMER_PROF, signal.SIGPROF, seconds),
        (signal.ITIMER_REAL, signal.SIGALRM, waiting),
    ]
    before = [(signal.signal(n, ring), signal.setitimer(timer, s)) for timer, n, s in alarms]
    try:
        yield
    finally:
        for (timer, number, _), (handler, left) in zip(alarms, before, strict=True):
            signal.setitimer(timer, *left)
            signal.signal(number, handler)


def once(name: str, opener: Opener, seed: int, place: Path, measure: bool = True) -> str:
    """One damaged copy of the files, opened. Returns ``accepted`` or ``refused``.

    Raises:
        FindingError: A crash, a hang, too much memory, or a lie that was believed.
    """
    rng = random.Random(f"{name} {seed}")
    files = dict(opener.files)
    for file, mutate in opener.mutate.items():
        files[file] = mutate(rng, files[file])
    for file, data in files.items():
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (place / file).write_bytes(data)
    size = sum(map(len, files.values()))
    again = f"python tests/faults/fuzzing.py --opener {name!r} --seed {seed}"
    if measure:
        tracemalloc.start()
    try:
        with warnings.catch_warnings(), limited(SECONDS, WAITING):
            warnings.simplefilter("ignore")
            found = opener.open(place)
            opener.accepted(place, found)
        outcome = "accepted"
    except ssmdiff.SsmdiffError as error:
        if not str(error).strip():
            raise FindingError(f"an error without a sentence; again: {again}") from error
        outcome = "refused"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise FindingError(f"{type(error).__name__}: {str(error)[:300]}; again: {again}") from error
    finally:
        peak = tracemalloc.get_traced_memory()[1] if measure else 0
        tracemalloc.stop()
    if peak > TIMES * size + CONSTANT:
        raise FindingError(f"{peak:,} bytes of memory for {size:,} bytes of files; again: {again}")
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=None, help="One seed alone.")
    parser.add_argument("--first", type=int, default=0, help="The seed to begin with.")
    parser.add_argument("--opener", default=["*"], nargs="+", help="Names, as in 'dicom*'.")
    asked = parser.parse_args()
    here = Path(__file__).parent
    sys.path[:0] = [str(here), str(here.parent / "export")]
    from openers import openers  # which opens with what stands here

    every = openers()
    chosen = {n: every[n] for pattern in asked.opener for n in fnmatch.filter(every, pattern)}
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_SPACE,) * 2)
    end, tally, found = time.monotonic() + asked.seconds, collections.Counter(), {}
    seed = asked.first if asked.seed is None else asked.seed
    while time.monotonic() < end:
        for name, opener in chosen.items():
            place = Path(tempfile.mkdtemp(prefix="fuzz-"))
            try:
                # Tracing makes it slower: every fourth is measured, all are bounded by the kernel.
                tally[name, once(name, opener, seed, place, measure=seed % 4 == 0)] += 1
            except FindingError as finding:
                tally[name, "found"] += 1
                line = (
                    traceback.extract_tb(finding.__cause__.__traceback__)[-1]
                    if finding.__cause__
                    else None
                )
                kind = (name, str(finding).partition(":")[0], str(line))
                if kind not in found:
                    found[kind] = str(finding)
                    print(f"{name}: {finding}\n    {line}", flush=True)
            finally:
                shutil.rmtree(place, ignore_errors=True)
        seed += 1
        if asked.seed is not None:
            break
    print(f"\n{sum(tally.values()):,} files, {len(found)} kinds of finding")
    for name in chosen:
        print(
            f"{name:28} "
            + ", ".join(f"{w} {n:,}" for (of, w), n in sorted(tally.items()) if of == name)
        )
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
