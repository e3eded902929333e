"""One way of doing something in a process of its own, which may run out of time or memory.

A process for each way, all of which stay up and wait for their turn: times can be taken in turn,
peaks of memory are each way's own, and one that hangs or is killed takes nothing else with it.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ssmdiff_bench.memory import meter
from ssmdiff_bench.timing import MeasureError, clocked

LOAD_LIMIT_S = 180.0  # to start, import and build; the limit on a call is the user's
AGAIN_S = 1.0  # a first call that took less is repeated for its memory, with its caches filled
Case = Mapping[str, Any]


@dataclass
class Job:
    """What a way does in one case, built in the worker.

    Whoever builds it makes what compiles or starts threads do so: the first call counts for memory.

    Args:
        call: The thing that is measured.
        device: Whose memory is measured: ``cpu``, ``cuda`` or ``none``.
        synchronize: Waits until the device has done all of the call.
        facts: Plain values for the record, such as the bytes of the inputs.
        output: Turns the call's result into an array that is compared with other ways'.
    """

    call: Callable[[], Any]
    device: str = "cpu"
    synchronize: Callable[[], None] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    output: Callable[[Any], Any] | None = None

    def run(self) -> Any:
        result = self.call()
        if self.synchronize:
            self.synchronize()
        return result


@dataclass(frozen=True)
class Way:
    """One of the things that are compared.

    Args:
        name: As the user types it.
        load: ``load(case) -> Job``, called in the worker: a module's function or a partial of one.
        absent: Why it cannot run here and how to get it; None if it can.
    """

    name: str
    load: Callable[[Case], Job] | None
    absent: str | None = None


class Worker:
    """A way's process, as its parent sees it."""

    def __init__(self, way: Way, memory_limit: int | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, way.load, memory_limit), daemon=True, name=way.name
        )
        self.process.start()
        theirs.close()

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    def load(self, case: Case) -> dict[str, Any]:
        """Build the job of a case and return its facts.

        Raises:
            MeasureError: It cannot be built here.
        """
        slow = f"it was not ready within {LOAD_LIMIT_S:.0f} s"
        return self._ask("load", case, LOAD_LIMIT_S, slow)  # type: ignore[no-any-return]

    def first(self, limit_s: float) -> dict[str, Any]:
        """Call it once or twice: ``first_s``, ``memory`` (before, peak) or None, ``output``.

        Raises:
            MeasureError: It failed, or a call took longer than ``limit_s``.
        """
        return self._ask("first", None, limit_s + AGAIN_S, _slow(limit_s))  # type: ignore[no-any-return]

    def time(self, calls: int, warm: bool, limit_s: float) -> list[float]:
        """Seconds of each of so many calls.

        Raises:
            MeasureError: It failed, or a call took longer than ``limit_s``.
        """
        wait_s = limit_s * (calls + warm)
        return self._ask("time", (calls, warm), wait_s, _slow(limit_s))  # type: ignore[no-any-return]

    def free(self) -> None:
        """Drop the job, so that its memory is there for others."""
        self._ask("free", None, LOAD_LIMIT_S, "its memory was not freed")

    def stop(self) -> None:
        """End the process, whatever it does."""
        self.process.kill()
        self.process.join()
        self.connection.close()

    def _ask(self, command: str, argument: Any, limit_s: float, slow: str) -> Any:
        try:
            self.connection.send((command, argument))
            if not self.connection.poll(limit_s):
                self.stop()
                raise MeasureError("too slow", slow)
            kind, answer = self.connection.recv()
        except (EOFError, ConnectionError) as error:
            self.process.join()
            code = self.process.exitcode
            self.stop()
            if code == -signal.SIGKILL:
                raise MeasureError("out of memory", "the system killed the process") from error
            raise MeasureError("failed", f"the process ended with exit code {code}") from error
        if kind != "ok":
            raise MeasureError(kind, answer)
        return answer


def _slow(limit_s: float) -> str:
    return f"a call took longer than {limit_s:g} s"


def _serve(connection: Connection, load: Callable[[Case], Job], memory_limit: int | None) -> None:
    """The worker's loop: one answer for each command."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it and ends its workers
    _limit_memory(memory_limit)
    job: Job | None = None
    while True:
        try:
            command, argument = connection.recv()
        except EOFError:
            return
        try:
            answer: Any = None
            if command in ("load", "free"):
                job = None
                gc.collect()
            if command == "load":
                job = load(argument)
                answer = job.facts
            elif job is not None and command == "first":
                answer = _first(job)
            elif job is not None and command == "time":
                calls, warm = argument
                answer = clocked(job.run)(calls, warm)
            connection.send(("ok", answer))
        # Whatever a third party's code raises is a result: the row says so, the others go on.
        except Exception as error:
            job = None
            connection.send(_failure(error))
            del error
            gc.collect()


def _first(job: Job) -> dict[str, Any]:
    gauge = meter(job.device)
    found: dict[str, Any] = {}
    for _ in range(2):
        if gauge:
            gauge.start()
        start = time.perf_counter()
        result = job.run()
        seconds = time.perf_counter() - start
        found.setdefault("first_s", seconds)
        found["call_s"] = seconds
        found["memory"] = gauge.stop() if gauge else None
        if job.output and "output" not in found:
            found["output"] = job.output(result)
        del result
        if seconds > AGAIN_S:
            break
    return found


def _failure(error: Exception) -> tuple[str, str]:
    text = " ".join(str(error).split()) or type(error).__name__
    exhausted = ("allocate memory", "out of memory", "bad_alloc", "std::bad_alloc")
    if isinstance(error, MemoryError) or any(words in text.lower() for words in exhausted):
        return "out of memory", text[:300]
    return "failed", f"{type(error).__name__}: {text[:300]}"


def _limit_memory(limit: int | None) -> None:
    """An allocation beyond the limit fails in this process; the system would kill some other."""
    if limit is not None:
        import resource

        mapped = int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_DATA, (mapped + limit, mapped + limit))
