"""How far the numba kernel is from what this processor can do, and from C++ written by hand.

    python benchmarks/scan_ceiling.py --json benchmarks/results/scan_ceiling.json

Compiles scan_ceiling.cpp with g++ (AVX-512 is needed; it is no part of the package) and times, in
turn: the kernel forward and with its gradients, that loop, multiply-adds and exponentials on
registers, and a copy of 64 MiB. B = 2, L = 1024, D = 192, K = 4, N = 16, float32. Run it on a quiet
machine; the load is part of the result.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from ssmdiff.ops import ScanInputs, both_passes, load_kernel
from ssmdiff_bench.machine import load_average, machine
from ssmdiff_bench.scan import ScanShape, make_inputs
from ssmdiff_bench.timing import Timing, clocked, interleaved
from torch import Tensor

LENGTH = 1024
COPIED = 64 << 20
LANES = 16
EXP_VECTORS, FMA_VECTORS = 8, 16
TIMES = 250_000
# Operations of a multiplier that a token, channel and component cost at the least, by hand-written
# counting: in the forward pass d A, four for 2^x by table, x B, a h + x B, y + h C.
FORWARD_MULTIPLIES = 7


def compiled(folder: Path) -> ctypes.CDLL:
    """The shared library of the C++ file."""
    library = folder / "scan_ceiling.so"
    flags = ["-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC", "-pthread"]
    source = Path(__file__).with_suffix(".cpp")
    subprocess.run(["g++", *flags, str(source), "-o", str(library)], check=True)
    found = ctypes.CDLL(str(library))
    for name in ("exponentials", "multiply_adds"):
        getattr(found, name).argtypes = [ctypes.c_int64]
    return found


def by_hand(library: ctypes.CDLL, inputs: ScanInputs) -> Tensor:
    """The C++ loop's output."""
    assert inputs.D is not None
    assert inputs.delta_bias is not None
    batch, directions, length, channels = inputs.delta.shape
    y, skip = torch.empty_like(inputs.u), inputs.D.sum(0)
    tensors = (*inputs[:6], skip, inputs.delta_bias, y)
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
    library.scan_forward(batch, directions, length, channels, *pointers, torch.get_num_threads())
    return y


def measure(library: ctypes.CDLL, repeats: int) -> dict[str, Any]:
    """Medians and ratios."""
    kernel = load_kernel("numba")
    source, target = (torch.ones(COPIED // 4) for _ in range(2))
    inputs = {
        order: make_inputs(ScanShape(batch=2, order=order), LENGTH)  # type: ignore[arg-type]
        for order in ("raster", "random")
    }
    grad_y = torch.randn_like(inputs["raster"].u)
    turns = {
        "multiply_adds": clocked(lambda: library.multiply_adds(TIMES)),
        "exponentials": clocked(lambda: library.exponentials(TIMES)),
        "copy": clocked(lambda: target.copy_(source)),
    }
    for order, given in inputs.items():
        difference = (kernel.forward(given) - by_hand(library, given)).abs().max()
        largest = by_hand(library, given).abs().max()
        if difference > 1e-5 * largest:
            sys.exit(f"the C++ loop and the kernel differ by {difference:.1e} of {largest:.1e}")
        turns[f"cpp {order}"] = clocked(lambda given=given: by_hand(library, given))
        turns[f"numba {order}"] = clocked(lambda given=given: kernel.forward(given))
        turns[f"numba both {order}"] = clocked(
            lambda given=given: both_passes(kernel, given, grad_y)
        )
    times: dict[str, Timing] = {}
    for name, timing in interleaved(turns, repeats).items():
        assert isinstance(timing, Timing)
        times[name] = timing

    given = inputs["random"]
    rows = given.delta.numel() // LANES
    vectors = rows * given.A.shape[-1]  # (token, direction, 16 channels, component)
    threads = torch.get_num_threads()
    fma_s = min(times["multiply_adds"].seconds) / (TIMES * FMA_VECTORS)
    exp_s = min(times["exponentials"].seconds) / (TIMES * EXP_VECTORS)
    floor_s = vectors * FORWARD_MULTIPLIES * fma_s / threads
    read = sum(x.numel() * x.element_size() for x in given[:6] if isinstance(x, Tensor))
    moved = read + 2 * given.A.shape[0] * given.u.numel() * 4  # and y, read and written K times
    ratios: dict[str, Any] = {}
    for order in inputs:
        forward, peer = times[f"numba {order}"].median_s, times[f"cpp {order}"].median_s
        both_s = times[f"numba both {order}"].median_s
        ratios[order] = {
            "forward_over_cpp": round(forward / peer, 3),
            "forward_and_backward_over_forward": round(both_s / forward, 3),
            "forward_over_multiplier_floor": round(forward / floor_s, 2),
        }
    return {
        "times_ms": {name: timing.to_json() for name, timing in times.items()},
        "multiply_adds_per_s": round(LANES / fma_s),
        "exponentials_per_s": round(LANES / exp_s),
        "copy_bytes_per_s": round(2 * COPIED / times["copy"].median_s),
        "multiplier_floor_ms": round(floor_s * 1e3, 3),
        "copy_floor_ms": round(moved / (2 * COPIED / times["copy"].median_s) * 1e3, 3),
        "kernel_exponentials_per_s": round(vectors * LANES / times["numba raster"].median_s),
        "ratios": ratios,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=31)
    options = parser.parse_args()
    if "avx512f" not in Path("/proc/cpuinfo").read_text():
        sys.exit("scan_ceiling.cpp is written for AVX-512, which this processor lacks")
    found = machine()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(compiled(Path(folder)), options.repeats)
    found["load_average_after"] = load_average()
    text = json.dumps({"machine": found, "results": results}, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
