"""Two source trees beside each other: a training step of `tiny` and `small`, and calls of the scan.

`kernel-...` is the numba kernel as scan_cpu.py times it, `scan-...` the public op around it.

    python benchmarks/two_trees.py --old OLD/.venv/bin/python --new .venv/bin/python [--rounds 10]

Each tree is installed in an environment of its own. A process of each holds the same training runs
and the same tensors; the two take turns, old and new, and the ratio of each pair is kept. Where the
memory of a process lies is worth several percent for as long as it lives, so that both are started
anew --rounds times. Printed and written to --json: the median over rounds of each round's median
ratio new/old, and its 95% interval by bootstrap of the rounds. A ratio above 1 says that the new
tree is slower. It needs both environments to be of the same libraries, and a machine on which
nothing else runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

# Before torch loads OpenMP, as the command line does it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np

PRESETS = ("tiny", "small")
LENGTHS = (1024, 4096)
ORDERS = ("raster", "random")
B, D, K, N = 2, 192, 4, 16
SCAN_CALLS = 20  # of one turn; one call takes milliseconds
STEPS = {"tiny": 8, "small": 1}  # of one turn
CASES = (
    *(f"step-{preset}" for preset in PRESETS),
    *(
        f"{what}-{p}-{order}-{L}"
        for what in ("kernel", "scan")
        for L in LENGTHS
        for order in ORDERS
        for p in ("forward", "both")
    ),
)


def training_step(preset: str) -> Callable[[], None]:
    """One optimiser step of a preset, as the training loop does it, on batches read beforehand."""
    from accelerate import Accelerator

    try:
        from ssmdiff import RunFolder, load_preset, resolve
        from ssmdiff_train.loop import Trainer
        from ssmdiff_train.memory import keep_freed_memory
        from ssmdiff_train.stream import TrainingStream, loader
    except ImportError:  # a tree before 0.2
        from ssmdiff.config import load_preset, resolve
        from ssmdiff.runs import RunFolder
        from ssmdiff.training.loop import Trainer
        from ssmdiff.training.memory import keep_freed_memory
        from ssmdiff.training.stream import TrainingStream, loader
    keep_freed_memory()
    config = resolve(load_preset(preset), {"train": {"callbacks": []}})
    folder = RunFolder(Path(tempfile.mkdtemp()))
    trainer = Trainer(config, folder, Accelerator(cpu=True))
    earlier = not hasattr(trainer, "method")
    drawn = trainer.diffusion.timesteps if earlier else trainer.method.draws
    images = TrainingStream(trainer.dataset, config.seed, drawn, True)
    size = config.train.batch_size
    batches = list(loader(images, 0, 4 * size, size, 0, 1, 0))
    (trainer.wrapped if earlier else trainer.networks).train()
    turns = iter(range(1 << 60))

    def step() -> None:
        batch = batches[next(turns) % len(batches)]
        if earlier:  # before methods
            trainer._step(batch, 1e-4, 0)
        else:
            from ssmdiff_train.step import Place

            trainer.training_step(batch, Place(0, 0, 1e-4), 0)

    return step


def kernel_call(part: str, order: str, length: int) -> Callable[[], None]:
    """What scan_cpu.py times: the numba kernel itself, on inputs as Mamba is initialised."""
    import torch
    from ssmdiff.ops import both_passes, load_kernel

    try:
        from ssmdiff_bench.scan import ScanShape, make_inputs
    except ImportError:  # a tree before 0.2
        from ssmdiff.bench.scan import ScanShape, make_inputs
    inputs, kernel = make_inputs(ScanShape(B, D, K, N, order), length), load_kernel("numba")
    grad_y = torch.randn(inputs.u.shape, generator=torch.Generator().manual_seed(1))

    def call() -> None:
        if part == "forward":
            kernel.forward(inputs)
        else:
            both_passes(kernel, inputs, grad_y)

    return call


def scan_call(part: str, order: str, length: int) -> Callable[[], None]:
    """The public op, forward alone or forward and backward, at the shape of scan_cpu.py."""
    import ssmdiff
    import torch

    torch.manual_seed(0)
    tensors = [
        torch.randn(B, length, D), torch.randn(B, K, length, D) - 4, -torch.rand(K, D, N) - 0.1,
        torch.randn(B, K, length, N), torch.randn(B, K, length, N),
    ]  # fmt: skip
    rows = [torch.arange(length) if order == "raster" else torch.randperm(length) for _ in range(K)]
    table = torch.stack(rows).to(torch.int32)
    if hasattr(ssmdiff, "order_tensors"):  # as training gives them: checked once, not at each call
        (table,) = ssmdiff.order_tensors([ssmdiff.ScanOrder(table.numpy())], table.device)
    if part == "forward":

        def call() -> None:
            with torch.no_grad():
                ssmdiff.selective_scan(*tensors, table)

    else:
        for tensor in tensors:
            tensor.requires_grad_()
        grad = torch.randn(B, length, D)

        def call() -> None:
            for tensor in tensors:
                tensor.grad = None
            ssmdiff.selective_scan(*tensors, table).backward(grad)

    return call


def serve() -> None:
    """In a tree's process: for each line ``CASE``, do a turn of it and print its seconds."""
    ready: dict[str, tuple[Callable[[], None], int]] = {}
    for line in sys.stdin:
        case = line.strip()
        if case not in ready:
            kind, *rest = case.split("-")
            if kind == "step":
                ready[case] = training_step(rest[0]), STEPS[rest[0]]
            else:
                make = kernel_call if kind == "kernel" else scan_call
                ready[case] = make(rest[0], rest[1], int(rest[2])), SCAN_CALLS
            ready[case][0]()
            ready[case][0]()
        call, times = ready[case]
        start_s = time.perf_counter()
        for _ in range(times):
            call()
        print((time.perf_counter() - start_s) / times, flush=True)


class Tree:
    """A process of one tree."""

    def __init__(self, python: str) -> None:
        self.process = subprocess.Popen(
            [python, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def turn(self, case: str) -> float:
        """Seconds of one call."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(case + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def stop(self) -> None:
        """End the process, which ends with its input."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def interval(ratios: np.ndarray) -> tuple[float, float]:
    """95% of the medians of 10,000 resamples of the rounds."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(ratios, (10_000, len(ratios))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--old", default="", help="the Python of the old tree's environment")
    parser.add_argument("--new", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=10, help="pairs of processes")
    parser.add_argument("--pairs", type=int, default=4, help="pairs of turns in a round")
    parser.add_argument("--cases", nargs="*", default=CASES, choices=CASES)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve()
        return
    from ssmdiff_bench.machine import load_average, machine

    load = load_average()
    seconds = {case: np.empty((2, given.rounds, given.pairs)) for case in given.cases}
    for done in range(given.rounds):
        trees = Tree(given.old), Tree(given.new)
        for case in given.cases:
            for pair in range(given.pairs):
                for tree in (0, 1) if (done + pair) % 2 else (1, 0):
                    seconds[case][tree, done, pair] = trees[tree].turn(case)
        for each in trees:
            each.stop()
        print(f"round {done + 1} of {given.rounds}", file=sys.stderr, flush=True)
    rows = []
    for case, (old, new) in seconds.items():
        ratios = np.median(new / old, axis=1)
        low, high = interval(ratios)
        row = {
            "case": case,
            "rounds": given.rounds,
            "pairs": given.rounds * given.pairs,
            "old_ms": 1e3 * float(np.median(old)),
            "new_ms": 1e3 * float(np.median(new)),
            "ratio": float(np.median(ratios)),
            "low": low,
            "high": high,
        }
        rows.append(row)
        print(
            f"{case:<26} old {row['old_ms']:9.2f} ms  new {row['new_ms']:9.2f} ms  "
            f"new/old {row['ratio']:.3f} ({low:.3f} to {high:.3f})",
            flush=True,
        )
    if given.json:
        record = {"machine": machine(), "load_average": load, "cases": rows}
        given.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
