"""FD, KID and PRDC of 50,000 against 10,000 images of 2,048 features, beside torchmetrics and prdc.

    python benchmarks/metrics_speed.py             # half an hour or less on two cores

Random features, Gaussian under a spectrum that falls as 1/i, made in blocks and kept in a file that
is mapped into memory. Every way is a process of its own: seconds of the call, and the most memory
that the process ever held, imports and features included. Ours and the peer's stand beside each
other in one run, so their ratio is what counts on a machine that does other things too. Writes
benchmarks/results/metrics_speed.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before torch loads OpenMP, as the command line does it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import ssmdiff
import torch
from numpy.typing import NDArray
from ssmdiff_bench.machine import load_average, machine

ROOT = Path(__file__).parents[1]
Features = NDArray[np.float32]
BLOCK = 5000
SUBSETS, SUBSET_SIZE, NEIGHBOURS = 100, 1000, 5


def make(path: Path, count: int, d: int, seed: int) -> None:
    """A file of (count, d) float32, written in blocks."""
    scale = (1 / np.sqrt(np.arange(1.0, d + 1))).astype(np.float32)
    mixing, _ = np.linalg.qr(np.random.default_rng(7).standard_normal((d, d)))
    mixing = (scale[:, None] * mixing).astype(np.float32)
    file = np.lib.format.open_memmap(path, "w+", np.float32, (count, d))
    for start in range(0, count, BLOCK):
        rows = min(BLOCK, count - start)
        generator = np.random.default_rng([seed, start])
        file[start : start + rows] = generator.standard_normal((rows, d), np.float32) @ mixing
    file.flush()


class Given(torch.nn.Module):
    """A feature network for torchmetrics whose images are the features."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.num_features = d

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def blocks(features: Features) -> list[torch.Tensor]:
    return [torch.from_numpy(features[i : i + 1000]) for i in range(0, len(features), 1000)]


def our_fd(real: Features, drawn: Features) -> float:
    """The distance alone."""
    from ssmdiff_metrics.frechet import frechet_distance

    return frechet_distance(real, drawn)


def our_interval(real: Features, drawn: Features) -> float:
    """With its interval: 20 blocks left out on either side."""
    from ssmdiff_metrics.frechet import frechet_estimate

    return frechet_estimate(real, drawn).value


def their_fd(real: Features, drawn: Features) -> float:
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(Given(real.shape[1])).set_dtype(torch.float64)
    for side, features in ((True, real), (False, drawn)):
        for block in blocks(features):
            metric.update(block, real=side)
    return float(metric.compute())


def our_kid(real: Features, drawn: Features) -> float:
    from ssmdiff_metrics.kid import kernel_distance

    return kernel_distance(real, drawn, SUBSETS, SUBSET_SIZE).mean


def their_kid(real: Features, drawn: Features) -> float:
    from torchmetrics.image.kid import KernelInceptionDistance

    torch.manual_seed(0)
    metric = KernelInceptionDistance(
        Given(real.shape[1]), subsets=SUBSETS, subset_size=SUBSET_SIZE
    ).set_dtype(torch.float64)
    for side, features in ((True, real), (False, drawn)):
        for block in blocks(features):
            metric.update(block.double(), real=side)
    return float(metric.compute()[0])


def our_prdc(real: Features, drawn: Features) -> float:
    from ssmdiff_metrics.neighbours import manifold_scores

    return manifold_scores(real, drawn, NEIGHBOURS).coverage


def their_prdc(real: Features, drawn: Features) -> float:
    from prdc import compute_prdc

    return float(compute_prdc(real, drawn, NEIGHBOURS)["coverage"])


Way = Callable[[Features, Features], float]
WAYS: dict[str, tuple[Way, int, int]] = {
    "FD": (our_fd, 10_000, 50_000),
    "FD, torchmetrics": (their_fd, 10_000, 50_000),
    "FD with its interval": (our_interval, 10_000, 50_000),
    "KID": (our_kid, 10_000, 50_000),
    "KID, torchmetrics": (their_kid, 10_000, 50_000),
    "PRDC": (our_prdc, 10_000, 50_000),
    "PRDC, 10,000 a side": (our_prdc, 10_000, 10_000),
    "PRDC, 10,000 a side, prdc": (their_prdc, 10_000, 10_000),
}
"""Each way with how many real and drawn images it is given."""


def call(name: str, folder: Path) -> None:
    """One way, in this process; prints what it took."""
    torch.set_num_threads(2)
    way, n, m = WAYS[name]
    real, drawn = (np.load(folder / f"{side}.npy", mmap_mode="c") for side in ("real", "drawn"))
    begin, busy = time.perf_counter(), time.process_time()
    value = way(real[:n], drawn[:m])
    seconds, cpu = time.perf_counter() - begin, time.process_time() - busy
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    row = {
        "way": name,
        "real": len(real[:n]),
        "drawn": len(drawn[:m]),
        "features": real.shape[1],
        "value": value,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "peak_gib": round(most, 3),
        "load_average": load_average(),
    }
    print(json.dumps(row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--d", type=int, default=2048)
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/metrics_speed.json")
    parser.add_argument("--call", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.call:
        call(arguments.call, arguments.folder)
        return
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder) / "real.npy", 10_000, arguments.d, 1)
        make(Path(folder) / "drawn.npy", 50_000, arguments.d, 2)
        for name in arguments.only:
            words = [sys.executable, __file__, "--call", name, "--folder", folder]
            done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(json.dumps(rows[-1]), flush=True)
            record = {"machine": machine(), "rows": rows}
            ssmdiff.write_atomically(arguments.out, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
