"""The parts of `gpu.sh`: correctness and speed of the kernels on this GPU, and of a network.

    python benchmarks/gpu.py --only correctness,speed,network,tests --json gpu.json

Every part stands by itself: what it finds is written when it ends, and one that fails leaves its
error in the results. No GPU has run it yet.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import platform
import statistics
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).parents[1]
BATCH, LENGTH, CHANNELS, DIRECTIONS, STATES = 16, 4096, 192, 4, 16
# (B, L, D, K, N): one of everything, odd, blocks and chunks that divide nothing, long, many states.
SHAPES = (
    (1, 1, 1, 1, 1),
    (2, 35, 19, 3, 5),
    (3, 70, 40, 2, 16),
    (1, 1025, 192, 4, 16),
    (2, 130, 33, 1, 64),
)
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2**-8, torch.float16: 2**-10}


def check() -> dict[str, Any]:
    """The machine; ends the script where there is no GPU."""
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


def make(shape: tuple[int, ...], restart: bool, **options: Any) -> Any:
    """Float64 inputs on the CPU that are exact in bfloat16, along random orders."""
    from ssmdiff.ops.kernels import ScanInputs

    batch, L, D, K, N = shape
    g = torch.Generator().manual_seed(0)

    def normal(*sides: int) -> Tensor:
        return torch.randn(sides, generator=g).bfloat16().double()

    return ScanInputs(
        normal(batch, L, D),
        normal(batch, K, L, D) - 1,
        (-torch.rand(K, D, N, generator=g) - 0.05).bfloat16().double(),
        normal(batch, K, L, N),
        normal(batch, K, L, N),
        torch.stack([torch.randperm(L, generator=g) for _ in range(K)]).int(),
        normal(K, D),
        normal(K, D),
        torch.rand(K, L, generator=g) < 0.05 if restart else None,
        **options,
    )


def correctness() -> dict[str, Any]:
    """The largest relative error of every output and gradient against the float64 reference."""
    from ssmdiff.ops.reference import TorchKernel
    from ssmdiff_kernels.triton_kernel import TritonKernel

    def everything(kernel: Any, inputs: Any, dy: Tensor) -> dict[str, Tensor]:
        return {"y": kernel.forward(inputs), **kernel.backward(dy, inputs)._asdict()}

    errors: dict[str, dict[str, float]] = {str(dtype): {} for dtype in TOLERANCE}
    wrong = []
    for shape, method, restart in itertools.product(SHAPES, ("euler", "zoh"), (False, True)):
        exact = make(shape, restart, discretization=method)
        dy = torch.randn(exact.u.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
        expected = everything(TorchKernel(), exact, dy.double())
        for dtype, limit in TOLERANCE.items():
            inputs = exact.to("cuda", dtype)
            got = everything(TritonKernel(), inputs, dy.to(inputs.u))
            again = everything(TritonKernel(), inputs, dy.to(inputs.u))
            for name, value in expected.items():
                error = (got[name].cpu().double() - value).abs().max()
                relative = float(error / value.abs().max().clamp_min(1e-30))
                before = errors[str(dtype)].get(name, 0.0)
                if not relative <= before:
                    errors[str(dtype)][name] = relative
                told = f"{name} {dtype} {shape} {method} restart={restart}"
                if not relative <= limit:
                    wrong.append(f"{told}: {relative:.2e}")
                if not torch.equal(got[name], again[name]):
                    wrong.append(f"{told}: other bits the second time")
    if wrong:
        raise AssertionError("; ".join(wrong[:20]))
    return {"largest_relative_error": errors, "shapes": SHAPES, "equal_bits_twice": True}


def timed(function: Callable[[], Any], repetitions: int = 20) -> dict[str, float]:
    """Median and quartiles in ms over calls that are timed one by one, and the peak memory."""
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
    peak = (torch.cuda.max_memory_allocated() - before) / 2**20
    return {"ms": median, "quartiles_ms": [low, high], "extra_memory_mib": round(peak, 1)}


def _nbytes(*tensors: Tensor | None) -> int:
    return sum(x.numel() * x.element_size() for x in tensors if x is not None)


class ExpandScanMerge:
    """VMamba's expand, scan, merge over our kernel: gathered copies, one walk each, scattered."""

    name = "expand-scan-merge"

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def _parts(self, s: Any) -> Any:
        order = s.order.long()
        straight = torch.arange(s.order.shape[1], dtype=torch.int32, device=s.u.device)[None]
        for k in range(s.order.shape[0]):
            each = (x[:, k : k + 1, order[k]] for x in (s.delta, s.B, s.C))
            delta, B, C = each
            D, bias = (None if x is None else x[k : k + 1] for x in (s.D, s.delta_bias))
            part = s._replace(
                u=s.u[:, order[k]], delta=delta, A=s.A[k : k + 1], B=B, C=C, order=straight, D=D,
                delta_bias=bias,
            )  # fmt: skip
            yield k, order[k], part

    def forward(self, s: Any) -> Tensor:
        y = torch.empty(s.delta.shape, dtype=s.u.dtype, device=s.u.device)
        for k, order, part in list(self._parts(s)):  # expand all, as VMamba does, then scan
            y[:, k, order] = self.inner.forward(part)
        return y.sum(1)

    def backward(self, dy: Tensor, s: Any) -> tuple[Tensor, ...]:
        du, ddelta, dB, dC = (torch.empty_like(x) for x in (s.delta, s.delta, s.B, s.C))
        others = []
        for k, order, part in list(self._parts(s)):
            g = self.inner.backward(dy[:, order], part)
            du[:, k, order], ddelta[:, k : k + 1, order] = g.u, g.delta
            dB[:, k : k + 1, order], dC[:, k : k + 1, order] = g.B, g.C
            others.append((g.A, g.D, g.delta_bias))
        return du.sum(1), ddelta, dB, dC, *(torch.cat(x) for x in zip(*others, strict=True))


def speed() -> dict[str, Any]:
    """Forward, and forward with backward, of our kernel and of what it replaces, in one run."""
    from ssmdiff_kernels.mamba_ssm_kernel import MambaSsmKernel
    from ssmdiff_kernels.triton_kernel import TritonKernel

    block = torch.empty(2**28, device="cuda")
    other = torch.empty_like(block)
    copy = timed(lambda: other.copy_(block))["ms"]
    rates: dict[str, Any] = {"copy_gb_s": 2 * _nbytes(block) / copy / 1e6}
    block = other = torch.empty(0)
    mamba = MambaSsmKernel()
    reason = mamba.unavailable(torch.device("cuda"), torch.bfloat16)
    kernels = [TritonKernel(), ExpandScanMerge(TritonKernel()), *([] if reason else [mamba])]
    exps = BATCH * LENGTH * CHANNELS * DIRECTIONS * STATES
    rows = []
    for dtype in (torch.bfloat16, torch.float32):
        shape = (1, LENGTH, CHANNELS, DIRECTIONS, STATES)
        s = make(shape, restart=False).to("cuda", dtype)
        again = lambda x: x.repeat(BATCH, *[1] * (x.dim() - 1))  # noqa: E731
        s = s._replace(**{name: again(getattr(s, name)) for name in ("u", "delta", "B", "C")})
        s = s._replace(A=s.A.float(), D=s.D.float(), delta_bias=s.delta_bias.float())
        dy = torch.randn_like(s.u)
        needed = _nbytes(s.u, s.delta, s.B, s.C, s.u)
        for kernel in kernels:
            row = {"kernel": kernel.name, "dtype": str(dtype)}
            row["forward"] = timed(lambda kernel=kernel, s=s: kernel.forward(s))
            row["both"] = timed(
                lambda kernel=kernel, s=s, dy=dy: (kernel.forward(s), kernel.backward(dy, s))
            )
            seconds = row["forward"]["ms"] / 1e3
            row["forward_gb_s"] = needed / seconds / 1e9  # what must be read and written once
            row["forward_gexp_s"] = exps / seconds / 1e9  # what must be computed once
            rows.append(row)
    card = torch.cuda.get_device_properties(0)
    clock_khz = getattr(card, "clock_rate", None)
    if clock_khz:  # 16 exponentials a clock for each multiprocessor of NVIDIA's since 7.0
        rates["exp_limit_gexp_s"] = card.multi_processor_count * 16 * clock_khz / 1e6
    return {
        "shape": {"B": BATCH, "L": LENGTH, "D": CHANNELS, "K": DIRECTIONS, "N": STATES},
        "mamba_ssm_absent": reason,
        **rates,
        "rows": rows,
    }


def network() -> dict[str, Any]:
    """A training step and a sampling step of the preset small, in bfloat16, on random images."""
    from ssmdiff import compose
    from ssmdiff.config import Config, load_preset, merge
    from ssmdiff.ops import kernels_used
    from ssmdiff.options import validate

    # Not `resolve`: it looks up the noise scheduler, whose library a bare machine lacks.
    config = validate(Config, merge(Config().to_dict(), load_preset("small")), "")
    batch = config.train.batch_size
    model = compose.build_backbone(config, in_channels=1, num_classes=0).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    x = torch.randn(batch, 1, *config.data.image_size, device="cuda")
    t = torch.randint(0, config.diffusion.timesteps, (batch,), device="cuda")

    def predict() -> Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            prediction: Tensor = model(x=x, timesteps=t)
        return prediction

    def train_step() -> None:
        optimizer.zero_grad(set_to_none=True)
        (predict().float() - x).square().mean().backward()
        optimizer.step()

    trained = timed(train_step, 10)
    with torch.no_grad():
        sampled = timed(predict, 10)
    return {
        "preset": "small",
        "batch": batch,
        "train_step": trained,
        "train_images_per_s": batch / trained["ms"] * 1e3,
        "sample_step": sampled,
        "images_per_s_of_50_steps": batch / sampled["ms"] * 1e3 / 50,
        "kernels": kernels_used(),
    }


def tests() -> dict[str, Any]:
    """The tests marked gpu."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider",
         "-c", "/dev/null", "--rootdir", str(ROOT), "--noconftest", "tests/kernels"],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    tail = (run.stdout + run.stderr)[-1500:]
    if run.returncode:
        raise AssertionError(tail)
    return {"summary": tail.strip().splitlines()[-1]}


def table(results: dict[str, Any]) -> None:
    """What was found, for a reader."""
    for name, part in results.items():
        if "error" in part:
            print(f"{name}: FAILED\n{part['error'][-1500:]}")
    for dtype, found in results.get("correctness", {}).get("largest_relative_error", {}).items():
        print(dtype, " ".join(f"{name} {error:.1e}" for name, error in found.items()))
    measured = results.get("speed", {})
    print(f"{'kernel':20}{'dtype':16}{'fwd ms':>9}{'both ms':>9}{'MiB':>9}{'GB/s':>8}{'Gexp/s':>8}")
    for row in measured.get("rows", []):
        forward, both = row["forward"]["ms"], row["both"]["ms"]
        memory = row["both"]["extra_memory_mib"]
        print(f"{row['kernel']:20}{row['dtype']:16}{forward:9.2f}{both:9.2f}{memory:9.0f}", end="")
        print(f"{row['forward_gb_s']:8.0f}{row['forward_gexp_s']:8.0f}")
    for name in ("copy_gb_s", "exp_limit_gexp_s", "mamba_ssm_absent"):
        print(f"{name}: {measured.get(name)}")
    for name in ("network", "tests"):
        print(f"{name}: {json.dumps(results.get(name))}")


PARTS = {"correctness": correctness, "speed": speed, "network": network, "tests": tests}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--json", type=Path)
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
        except Exception:  # the others are to be run all the same; the error stands in the results
            results[name], failed = {"error": traceback.format_exc()}, True
        print(f"{name}: {'failed' if 'error' in results[name] else 'done'}", flush=True)
        torch.cuda.empty_cache()
        if arguments.json:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
