"""What each trick of the numba kernel is worth: the scans of a training step with it left out.

    python benchmarks/numba_tricks.py [TRICK ...] [--json benchmarks/results/numba_tricks.json]

A trick is left out of a copy of the room `ssmdiff_kernels/numba_scan` by a diff, one of
`benchmarks/numba_tricks/`. A process with the copy and one with the kernel as it is take turns,
call by call. A workload is all scans of a training step, forward with kept states and backward:
those of the presets `tiny` and `small` (8 images instead of 32), a wide one and a long one; random
orders.

One thread, in seconds of the processor: other programs take time from the clock, but from the
processor's seconds only by what they leave of the caches. Tricks of threads (`thread-*.diff`) are
timed by the clock, with two threads: they need a quiet machine.

A ratio above 1 says that the kernel is slower without the trick. Given are the median and the
quartiles of the ratios of neighbouring calls, and the ratio of the fastest calls. `itself` compares
the kernel with an unchanged copy: that is the noise. `--against FOLDER` compares with the room of
another tree instead.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

DIFFS = Path(__file__).with_suffix("")
ROOM = Path(__file__).parents[1] / "plugins" / "ssmdiff_kernels" / "numba_scan"
Call = tuple[int, int, int, int, int]
"""Equal calls of the scan in a step: how many, and their B, L, D and N; K is 4."""

WORKLOADS: dict[str, list[Call]] = {
    "tiny": [(1, 16, 1024, 32, 8), (2, 16, 256, 64, 8), (2, 16, 64, 128, 8), (2, 16, 16, 128, 8)],
    "small": [
        (2, 8, 1024, 96, 16),
        (4, 8, 256, 192, 16),
        (4, 8, 64, 384, 16),
        (3, 8, 16, 384, 16),
    ],
    "wide": [(1, 2, 1024, 192, 16)],
    "long": [(1, 1, 16384, 192, 16)],
}


def copied(room: Path, trick: str, folder: Path) -> str:
    """A copy of a room as a package of its own, without the trick; the package's name."""
    package = "scan_" + re.sub(r"\W+", "_", trick)
    target = folder / package
    sources = {p.name: p.read_text(encoding="utf-8") for p in room.glob("*.py")}
    with tempfile.TemporaryDirectory() as work:
        for name, text in sources.items():
            Path(work, name).write_text(text, encoding="utf-8")
        diff = DIFFS / f"{trick}.diff"
        if diff.exists():
            subprocess.run(["git", "apply", str(diff)], cwd=work, check=True)
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(room.parent / "constants.py", folder)
        for name in sources:
            text = Path(work, name).read_text(encoding="utf-8")
            text = text.replace("ssmdiff_kernels.numba_scan", package)
            copy = target / name
            if not copy.exists() or copy.read_text(encoding="utf-8") != text:
                copy.write_text(text, encoding="utf-8")  # else the compiled code is there still
    return package


def serve(pipe: Connection, folder: str, package: str, workloads: list[str], threads: int) -> None:
    """A process with one kernel: runs the workload that is asked for, and says how long it took."""
    import importlib

    import torch
    from ssmdiff_bench.scan import ScanShape, make_inputs
    from ssmdiff_train.memory import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(threads)
    sys.path.insert(0, folder)
    kernel = importlib.import_module(f"{package}.kernel").NumbaKernel()
    clock = time.thread_time if threads == 1 else time.perf_counter

    def step_of(workload: str) -> Callable[[], None]:
        cases = []
        for times, batch, length, channels, states in WORKLOADS[workload]:
            inputs = make_inputs(ScanShape(batch, channels, 4, states, "random"), length)
            cases += [(inputs, torch.randn(inputs.u.shape))] * times

        def step() -> None:
            for inputs, grad_y in cases:
                _, states = kernel.forward_keeping(inputs)
                kernel.backward(grad_y, inputs, states)

        return step

    steps = {workload: step_of(workload) for workload in workloads}
    for step in steps.values():
        step()
    pipe.send(None)
    while (workload := pipe.recv()) is not None:
        start = clock()
        steps[workload]()
        pipe.send(clock() - start)


def compare(with_it: Connection, without: Connection, workload: str, budget_s: float) -> Any:
    """Both in turn until they have spent so many seconds; which of them begins changes."""
    seconds: dict[Connection, list[float]] = {with_it: [], without: []}
    turn = [with_it, without]
    while sum(map(sum, seconds.values())) < budget_s or len(seconds[without]) < 6:
        for process in turn:
            process.send(workload)
            seconds[process].append(process.recv())
        turn.reverse()
    ours, theirs = seconds[with_it], seconds[without]
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "with_ms": round(1e3 * statistics.median(ours), 3),
        "without_ms": round(1e3 * statistics.median(theirs), 3),
        "median_ratio": round(middle, 3),
        "quartiles": [round(low, 3), round(high, 3)],
        "fastest_ratio": round(min(theirs) / min(ours), 3),
        "pairs": len(ratios),
    }


def measured(package: str, trick: str, folder: Path, budget_s: float) -> dict[str, Any]:
    """Every workload of a trick."""
    threads = 2 if trick.startswith("thread") else 1
    workloads = list(WORKLOADS)
    spawn = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for name in (copied(ROOM, "as it is", folder), package):
        ours, theirs = spawn.Pipe()
        arguments = (theirs, str(folder), name, workloads, threads)
        processes.append(spawn.Process(target=serve, args=arguments, daemon=True))
        processes[-1].start()
        ours.recv()
        pipes.append(ours)
    found = {workload: compare(*pipes, workload, budget_s) for workload in workloads}
    for pipe, process in zip(pipes, processes, strict=True):
        pipe.send(None)
        process.join()
    return {"threads": threads, "seconds_of": "processor" if threads == 1 else "clock", **found}


def main() -> None:
    tricks = ["itself", *sorted(path.stem for path in DIFFS.glob("*.diff"))]
    parser = argparse.ArgumentParser(description="Leave out one trick of the numba kernel each.")
    parser.add_argument("tricks", nargs="*", metavar="TRICK", help=", ".join(tricks))
    parser.add_argument("--budget", type=float, default=5.0, help="seconds for each workload")
    parser.add_argument("--json", type=Path, help="write the results to this file, among others'")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir(), "numba_tricks"))
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another tree's numba_scan")
    options = parser.parse_args()
    from ssmdiff_bench.machine import load_average, machine

    record: dict[str, Any] = {"machine": machine(), "workloads": WORKLOADS, "tricks": {}}
    if options.json and options.json.exists():
        record = json.loads(options.json.read_text(encoding="utf-8")) | {"machine": machine()}
    chosen = ["another tree"] if options.against else options.tricks or tricks
    for trick in chosen:
        package = copied(options.against or ROOM, trick, options.work)
        found = measured(package, trick, options.work, options.budget)
        record["tricks"][trick] = {"load_average": load_average(), **found}
        print(trick, json.dumps(record["tricks"][trick], indent=1), flush=True)
        if options.json:
            options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
