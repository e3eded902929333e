"""The parts of `gpu.sh`: correctness and speed of the kernels on this GPU, and of a network.

    python benchmarks/gpu.py --only correctness,speed,network,tests --json gpu.json
    TRITON_INTERPRET=1 python benchmarks/gpu.py --dry

Every part stands by itself: what it finds is written when it ends, and one that fails leaves its
error in the results. ``--dry`` goes through the parts on tiny shapes on the
CPU, so that a mistake in this file shows without a GPU; its times mean nothing.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib.util
import itertools
import json
import math
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).parents[1]
# (B, L, D, K, N): one of everything, odd, blocks and chunks that divide nothing, long, many states.
SHAPES = (
    (1, 1, 1, 1, 1),
    (2, 35, 19, 3, 5),
    (3, 70, 40, 2, 16),
    (1, 1025, 192, 4, 16),
    (2, 130, 33, 1, 64),
)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SHAPE = (16, 4096, 192, 4, 16)  # of the speed
LIMIT_S = float(os.environ.get("CORRECTNESS_LIMIT_S", "150"))  # cases left then are named
DRY = "--dry" in sys.argv
DEVICE = "cuda"
if DRY:
    DEVICE, SHAPES, SHAPE = "cpu", SHAPES[:1], (2, 4, 3, 2, 2)


def check() -> dict[str, Any]:
    """The machine; ends the script where there is no GPU."""
    if DRY:
        return {"card": "none: a dry run in Triton's interpreter", "torch": torch.__version__}
    if not torch.cuda.is_available():
        print("There is no GPU here (torch.cuda.is_available() is False): nothing was run.")
        raise SystemExit(3)
    import triton

    card = torch.cuda.get_device_properties(0)
    return {
        "card": card.name,
        "memory_gib": round(card.total_memory / 2**30, 1),
        "multiprocessors": card.multi_processor_count,
        "torch": torch.__version__,
        "triton": triton.__version__,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }


Case = tuple[tuple[int, ...], str, bool, torch.dtype]


class IncompleteError(Exception):
    """A part that was not finished; what it has found goes into the results all the same."""

    def __init__(self, message: str, found: dict[str, Any]) -> None:
        super().__init__(message)
        self.found = found


def correctness() -> dict[str, Any]:
    """The largest relative error of every output and gradient against the float64 reference.

    Triton compiles anew, some ten seconds each, for every dtype, discretisation and block of N:
    processes share that out, a thread each, and only the first odd shape is run in all
    combinations.
    """
    both = (("euler", False), ("zoh", True))
    every = tuple(itertools.product(("euler", "zoh"), (False, True)))
    cases: list[Case] = [
        (shape, method, restart, dtype)
        for shape in sorted(SHAPES, key=math.prod, reverse=True)  # what takes longest comes first
        for method, restart in (every if shape == (2, 35, 19, 3, 5) else both)
        for dtype in DTYPES
    ]
    workers = 1 if DRY else min(len(cases), os.cpu_count() or 1)
    stop_s = time.monotonic() + LIMIT_S
    errors: dict[str, dict[str, float]] = {str(dtype): {} for dtype in DTYPES}
    wrong: list[str] = []
    done: list[Case] = []
    # Whatever still runs at the end of the block is ended.
    with multiprocessing.get_context("spawn").Pool(workers, one_thread) as pool:
        results = pool.imap_unordered(compare, cases)
        while len(done) < len(cases):
            try:
                case, found, lines = results.next(max(0.0, stop_s - time.monotonic()))
            except multiprocessing.TimeoutError:
                break
            done.append(case)
            wrong += lines
            largest = errors[str(case[-1])]
            for name, error in found.items():
                largest[name] = max(largest.get(name, 0.0), error)
    result = {
        "largest_relative_error": errors,
        "cases": len(done),
        "equal_bits_twice": not any("other bits" in line for line in wrong),
    }
    if wrong:
        raise IncompleteError("; ".join(wrong[:20]), result)
    if left := [case for case in cases if case not in done]:
        told = ", ".join(" ".join(map(str, case)) for case in left)
        raise IncompleteError(
            f"{len(done)} of {len(cases)} cases in {LIMIT_S:g} s; left: {told}", result
        )
    return result


def one_thread() -> None:
    """In each worker: the reference's threads would fight for the processors."""
    torch.set_num_threads(1)


def compare(case: Case) -> tuple[Case, dict[str, float], list[str]]:
    """The error of each result of the triton kernel, by the suite's table, and what is wrong."""
    from ssmdiff.ops.reference import TorchKernel
    from ssmdiff.testing.kernel_cases import error_of, limit_of, make_inputs, results
    from ssmdiff_kernels.triton_kernel import TritonKernel

    shape, method, restart, dtype = case
    inputs = make_inputs(shape, restarts=restart, discretization=method).to(DEVICE, dtype)
    expected: dict[str, Any] = results(TorchKernel(), inputs.to("cpu", torch.float64))
    got: dict[str, Any] = results(TritonKernel(), inputs)
    again: dict[str, Any] = results(TritonKernel(), inputs)
    errors, wrong = {}, []
    for name, value in expected.items():
        error = errors[name] = error_of(name, got[name], value)
        told = f"{name} {dtype} {shape} {method} restart={restart}"
        if not error <= limit_of(name, dtype):
            wrong.append(f"{told}: {error:.2e}")
        if not torch.equal(got[name], again[name]):
            wrong.append(f"{told}: other bits the second time")
    return case, errors, wrong


def timed(function: Callable[[], Any], repetitions: int = 20) -> dict[str, Any]:
    """Median and quartiles in ms over calls that are timed one by one, and the peak memory."""
    if DRY:
        start_s = time.perf_counter()
        function()
        return {"ms": (time.perf_counter() - start_s) * 1e3, "extra_memory_mib": 0.0}
    for _ in range(3):
        function()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    times_ms = []
    for _ in range(repetitions):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        stop.record()
        torch.cuda.synchronize()
        times_ms.append(start.elapsed_time(stop))
    low, median, high = statistics.quantiles(times_ms, n=4)
    peak = round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)
    return {"ms": median, "quartiles_ms": [low, high], "extra_memory_mib": peak}


def _nbytes(*tensors: Tensor | None) -> int:
    return sum(x.numel() * x.element_size() for x in tensors if x is not None)


def speed() -> dict[str, Any]:
    """Forward, and forward with backward, of our kernel and of what it replaces, in one run."""
    from ssmdiff.ops import both_passes
    from ssmdiff.testing.kernel_cases import make_inputs
    from ssmdiff_bench.scan_peers import ExpandScanMerge
    from ssmdiff_kernels.mamba_ssm_kernel import MambaSsmKernel
    from ssmdiff_kernels.triton_kernel import TritonKernel

    batch, L, D, K, N = SHAPE
    block = torch.empty(2**10 if DRY else 2**28, device=DEVICE)
    other = torch.empty_like(block)
    copy = timed(lambda: other.copy_(block))["ms"]
    rates: dict[str, Any] = {"copy_gb_s": 2 * _nbytes(block) / copy / 1e6}
    block = other = torch.empty(0)
    mamba = MambaSsmKernel()
    reason = mamba.unavailable(torch.device(DEVICE), torch.bfloat16)
    triton, peer = TritonKernel(), ExpandScanMerge(TritonKernel())
    ways: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
        "triton": (triton.forward, functools.partial(both_passes, triton)),
        "expand-scan-merge": (peer.forward, peer.both),
    }
    if not reason:
        ways["mamba-ssm"] = (mamba.forward, functools.partial(both_passes, mamba))
    exps = batch * L * D * K * N
    rows = []
    for dtype in (torch.bfloat16, torch.float32):
        s = make_inputs((1, *SHAPE[1:]), restarts=False).to(DEVICE, dtype)
        again = lambda x: x.repeat(batch, *[1] * (x.dim() - 1))  # noqa: E731
        s = s._replace(**{name: again(getattr(s, name)) for name in ("u", "delta", "B", "C")})
        s = s._replace(A=s.A.float(), D=s.D.float(), delta_bias=s.delta_bias.float())
        dy = torch.randn_like(s.u)
        needed = _nbytes(s.u, s.delta, s.B, s.C, s.u)
        for name, (forward, both) in ways.items():
            row = {"kernel": name, "dtype": str(dtype)}
            row["forward"] = timed(functools.partial(forward, s))
            row["both"] = timed(functools.partial(both, s, dy))
            seconds = row["forward"]["ms"] / 1e3
            row["forward_gb_s"] = needed / seconds / 1e9  # what must be read and written once
            row["forward_gexp_s"] = exps / seconds / 1e9  # what must be computed once
            rows.append(row)
    limit = exp_limit_gexp_s()
    for row in rows:
        row["of_copy_rate"] = row["forward_gb_s"] / rates["copy_gb_s"]
        row["of_exp_limit"] = row["forward_gexp_s"] / limit if limit else None
    return {
        "shape": dict(zip(("B", "L", "D", "K", "N"), SHAPE, strict=True)),
        "exp_limit_gexp_s": limit,
        "mamba_ssm_absent": reason,
        "mamba_ssm_built_in_s": os.environ.get("MAMBA_BUILD_S"),
        **rates,
        "rows": rows,
    }


def exp_limit_gexp_s() -> float | None:
    """16 exponentials a clock for each multiprocessor of NVIDIA's since 7.0, at the top clock."""
    if DRY or torch.version.hip:
        return None
    asked = subprocess.run(
        ["nvidia-smi", "--query-gpu=clocks.max.sm", "--format=csv,noheader,nounits"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    mhz = float(asked.stdout.splitlines()[0])
    return torch.cuda.get_device_properties(0).multi_processor_count * 16 * mhz / 1e3


def network() -> dict[str, Any]:
    """The preset small in bfloat16 on random images: a training step, and a call as in sampling.

    The call is made as it is and recorded as a CUDA graph, as sampling does on a GPU; then both
    again, compiled by torch.
    """
    from ssmdiff import own_orders
    from ssmdiff.diffusion.cuda_graphs import RecordedDenoiser
    from ssmdiff.diffusion.denoisers import module_denoiser
    from ssmdiff.networks.compiling import compile_backbone
    from ssmdiff.ops import kernels_used, set_kernel
    from ssmdiff.runs import compose
    from ssmdiff.runs.config import load_preset, merge, resolve

    table = merge(load_preset("small"), {"train": {"callbacks": []}})
    if DRY:  # by the kernel of the CPU: the interpreter would take minutes
        set_kernel("numba")
        table = merge(table, {"data": {"image_size": [16, 16]}, "train": {"batch_size": 1}})
    config = resolve(table)
    batch, size = config.train.batch_size, config.data.image_size
    model: Any = compose.build_backbone(config, 1).to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    orders = own_orders(model.scan, model.scan_slots(size), torch.device(DEVICE))
    x = torch.randn(batch, 1, *size, device=DEVICE)
    t = torch.randint(0, config.diffusion.timesteps, (batch,), device=DEVICE)
    denoise = module_denoiser(model)

    def predict(x: Tensor, t: Tensor, orders: Any) -> Tensor:
        with torch.autocast(DEVICE, torch.bfloat16):
            return denoise(x, t, orders)

    def train_step() -> None:
        optimizer.zero_grad(set_to_none=True)
        (predict(x, t, orders).float() - x).square().mean().backward()
        optimizer.step()

    def call(way: Callable[..., Tensor]) -> dict[str, Any]:
        row = timed(functools.partial(way, x, t, orders), 10)
        return {**row, "images_per_s_of_50_steps": batch / row["ms"] * 1e3 / 50}

    recorded = predict if DRY else RecordedDenoiser(predict)
    rows: dict[str, Any] = {"train_step": timed(train_step, 10)}
    rows["train_step"]["images_per_s"] = batch / rows["train_step"]["ms"] * 1e3
    with torch.inference_mode():
        rows["call"], rows["call_recorded"] = call(predict), call(recorded)
        rows["recorded_equals"] = torch.equal(predict(x, t, orders), recorded(x, t, orders))
    if not DRY:
        started_s = time.perf_counter()
        compile_backbone(model)
        with torch.no_grad():
            predict(x, t, orders)
            rows["compiled_in_s"] = time.perf_counter() - started_s
            rows["call_compiled"] = call(predict)
            rows["call_compiled_recorded"] = call(RecordedDenoiser(predict))
    return {
        "preset": "small", "batch": batch, "image_size": list(size), **rows,
        "kernels": kernels_used(),
    }  # fmt: skip


def tests() -> dict[str, Any]:
    """The tests marked gpu."""
    how = ["--collect-only"] if DRY else []
    if not DRY and importlib.util.find_spec("xdist"):  # the compiler takes most of the time
        how = ["-n", "8"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "gpu", *how, "-p", "no:cacheprovider",
         "-c", "/dev/null", "--rootdir", str(ROOT), "--noconftest",
         "tests/kernels/test_triton_kernel.py", "tests/kernels/test_mamba_ssm_kernel.py",
         "tests/diffusion/test_cuda_graphs.py"],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    if run.returncode:
        raise AssertionError((run.stdout + run.stderr)[-1500:])
    counts = [line for line in run.stdout.splitlines() if " passed" in line or "collected" in line]
    return {"summary": counts[-1].strip("= ")}


def table(results: dict[str, Any]) -> None:
    """What was found, for a reader."""
    for name, part in results.items():
        if "error" in part:
            print(f"{name}: FAILED\n{part['error'][-1500:]}")
    for dtype, found in results.get("correctness", {}).get("largest_relative_error", {}).items():
        print(dtype, " ".join(f"{name} {error:.1e}" for name, error in found.items()))
    measured = results.get("speed", {})
    print(
        f"{'kernel':20}{'dtype':16}{'fwd ms':>9}{'both ms':>9}{'MiB':>9}{'GB/s':>8}{'Gexp/s':>8}",
        end="",
    )
    print(f"{'of copy':>8}{'of exp':>8}")
    for row in measured.get("rows", []):
        forward, both = row["forward"]["ms"], row["both"]["ms"]
        memory = row["both"]["extra_memory_mib"]
        print(f"{row['kernel']:20}{row['dtype']:16}{forward:9.2f}{both:9.2f}{memory:9.0f}", end="")
        print(f"{row['forward_gb_s']:8.0f}{row['forward_gexp_s']:8.0f}", end="")
        shares = (row["of_copy_rate"], row["of_exp_limit"])
        print("".join("       -" if share is None else f"{share:8.0%}" for share in shares))
    for name in ("copy_gb_s", "exp_limit_gexp_s", "mamba_ssm_absent", "mamba_ssm_built_in_s"):
        print(f"{name}: {measured.get(name)}")
    print("\n".join(f"{name}: {json.dumps(results.get(name))}" for name in ("network", "tests")))


PARTS = {"correctness": correctness, "speed": speed, "network": network, "tests": tests}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--dry", action="store_true", help="tiny shapes in Triton's interpreter")
    arguments = parser.parse_args()
    machine = check()
    results = {"machine": machine}
    if arguments.json and arguments.json.exists():  # parts of one call of gpu.sh add to one file
        results = json.loads(arguments.json.read_text())
    if arguments.only == "table":
        table(results)
        return 0
    failed = False
    for name in arguments.only.split(","):
        if name not in PARTS:
            continue
        try:
            results[name] = PARTS[name]()
        except Exception as error:  # the others are to be run all the same
            found = error.found if isinstance(error, IncompleteError) else {}
            results[name], failed = {"error": traceback.format_exc(), **found}, True
        print(f"{name}: {'failed' if 'error' in results[name] else 'done'}", flush=True)
        if not DRY:
            torch.cuda.empty_cache()
        if arguments.json:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    if DRY:
        table(results)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
