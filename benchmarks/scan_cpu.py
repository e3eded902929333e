"""The numba kernel against the recurrence that is published for machines without CUDA.

    python benchmarks/scan_cpu.py --json benchmarks/results/scan_cpu.json

The peer is written down here as published: mamba-ssm's ``selective_scan_ref``, a Python loop over
time with autograd for the gradients, over sequences that were gathered into the scan's order and
whose K directions are folded into the channels, as VMamba's CrossScan and CrossMerge do. Its
gradients are timed once: one to four minutes, mostly the system clearing memory for them, so that
the time depends on what else runs. Both compute in float32 with the threads torch has. Run it on a
quiet machine; the load is part of the result.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import torch
import torch.nn.functional as F
from ssmdiff.ops.kernels import ScanInputs
from ssmdiff_kernels.numba_kernel import NumbaKernel
from torch import Tensor

BATCH, LENGTH, CHANNELS, DIRECTIONS, STATES = 2, 1024, 192, 4, 16


def make_inputs(order: Tensor) -> ScanInputs:
    """Float32 inputs of the benchmark's shape, with small steps as Mamba initialises them."""
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    row = (BATCH, DIRECTIONS, LENGTH)
    A = -torch.arange(1.0, STATES + 1).expand(DIRECTIONS, CHANNELS, STATES).contiguous()
    return ScanInputs(
        u=randn(BATCH, LENGTH, CHANNELS),
        delta=randn(*row, CHANNELS),
        A=A,
        B=randn(*row, STATES),
        C=randn(*row, STATES),
        order=order,
        D=torch.ones(DIRECTIONS, CHANNELS),
        delta_bias=torch.full((DIRECTIONS, CHANNELS), -3.0),
    )


def orders() -> dict[str, Tensor]:
    """Raster as VMamba has it (rows, columns, and both reversed), and a random order for each."""
    side = int(LENGTH**0.5)
    rows = torch.arange(LENGTH)
    columns = rows.view(side, side).T.reshape(-1)
    generator = torch.Generator().manual_seed(0)
    random = [torch.randperm(LENGTH, generator=generator) for _ in range(DIRECTIONS)]
    raster = [rows, columns, rows.flip(0), columns.flip(0)]
    return {"raster": torch.stack(raster).int(), "random": torch.stack(random).int()}


def selective_scan_ref(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor
) -> Tensor:
    """As in mamba-ssm: u, delta (B, D, L), A (D, N), B, C (B, K, N, L), D and delta_bias (D,)."""
    delta = F.softplus(delta + delta_bias[..., None])
    repeat = A.shape[0] // B.shape[1]
    B, C = B.repeat_interleave(repeat, 1), C.repeat_interleave(repeat, 1)
    deltaA = torch.exp(torch.einsum("bdl,dn->bdln", delta, A))
    deltaB_u = torch.einsum("bdl,bdnl,bdl->bdln", delta, B, u)
    x = A.new_zeros(u.shape[0], *A.shape)
    ys = []
    for i in range(u.shape[2]):
        x = deltaA[:, :, i] * x + deltaB_u[:, :, i]
        ys.append(torch.einsum("bdn,bdn->bd", x, C[:, :, :, i]))
    return torch.stack(ys, 2) + u * D[:, None]


def peer_forward(inputs: ScanInputs) -> Tensor:
    """Gather (CrossScan), scan with the directions folded into the channels, merge (CrossMerge)."""
    order = inputs.order.long()
    at = order[None, :, :, None]

    def gathered(x: Tensor) -> Tensor:  # (B, K, L, .) to (B, K, ., L)
        return x.gather(2, at.expand(x.shape)).transpose(2, 3)

    assert inputs.D is not None
    assert inputs.delta_bias is not None
    y = selective_scan_ref(
        inputs.u[:, order].transpose(2, 3).flatten(1, 2),
        gathered(inputs.delta).flatten(1, 2),
        inputs.A.flatten(0, 1),
        gathered(inputs.B),
        gathered(inputs.C),
        inputs.D.flatten(),
        inputs.delta_bias.flatten(),
    )
    y = y.unflatten(1, (DIRECTIONS, CHANNELS)).transpose(2, 3)
    return torch.zeros_like(y).scatter(2, at.expand(y.shape), y).sum(1)


def peer_forward_backward(inputs: ScanInputs, grad_y: Tensor) -> None:
    """All gradients by autograd, as in training."""
    names = ("u", "delta", "A", "B", "C", "D", "delta_bias")
    leaves = {name: getattr(inputs, name).clone().requires_grad_() for name in names}
    peer_forward(inputs._replace(**leaves)).backward(grad_y)


def timed(function: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Milliseconds of single calls, after an uncounted one if there are several."""
    if repeats > 1:
        function()
    times = []
    processor_start = time.process_time()
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append((time.perf_counter() - start) * 1e3)
    return {
        "median_ms": statistics.median(times),
        "min_ms": min(times),
        "processor_ms": (time.process_time() - processor_start) / repeats * 1e3,  # all threads
        "repeats": repeats,
    }


def processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def measure(repeats: int) -> dict[str, Any]:
    """Times of both, the ratios of their medians, and how far the two outputs are apart."""
    kernel = NumbaKernel()
    results: dict[str, Any] = {}
    for name, order in orders().items():
        inputs = make_inputs(order)
        grad_y = torch.randn(inputs.u.shape, generator=torch.Generator().manual_seed(1))

        def both(inputs: ScanInputs = inputs, grad_y: Tensor = grad_y) -> None:
            kernel.forward(inputs)
            kernel.backward(grad_y, inputs)

        def forward(inputs: ScanInputs = inputs) -> Tensor:
            return kernel.forward(inputs)

        def zoh(inputs: ScanInputs = inputs) -> Tensor:
            return kernel.forward(inputs._replace(discretization="zoh"))

        def peer(inputs: ScanInputs = inputs) -> Tensor:
            with torch.no_grad():
                return peer_forward(inputs)

        results[name] = {
            "numba_forward": timed(forward, repeats),
            "numba_forward_zoh": timed(zoh, repeats),
            "numba_forward_backward": timed(both, repeats),
            "peer_forward": timed(peer, 3),
        }
        expected = peer(inputs)
        results[name]["max_relative_difference"] = float(
            (forward() - expected).abs().max() / expected.abs().max()
        )
    # The peer's gradients take the same time in any order; inputs are those of the last one.
    once = timed(lambda: peer_forward_backward(inputs, grad_y), 1)
    for entry in results.values():
        entry["peer_forward_backward"] = once
        for what in ("forward", "forward_backward"):
            ours, theirs = entry[f"numba_{what}"], entry[f"peer_{what}"]
            entry[f"ratio_{what}"] = theirs["median_ms"] / ours["median_ms"]
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the numba kernel and the published loop.")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--repeats", type=int, default=50, help="timed calls of the numba kernel")
    options = parser.parse_args()
    load = os.getloadavg()[0]  # more than this program's threads afterwards: others were busy
    machine: dict[str, Any] = {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numba": numba.__version__,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    shape = {"B": BATCH, "L": LENGTH, "D": CHANNELS, "K": DIRECTIONS, "N": STATES}
    print("  ".join(f"{key} {value}" for key, value in (machine | shape).items()))
    results = measure(options.repeats)
    for name, entry in results.items():
        print(f"\n{name}")
        for key, value in entry.items():
            if isinstance(value, dict):
                median, least, cpu = (value[f"{k}_ms"] for k in ("median", "min", "processor"))
                print(f"  {key:26} median {median:9.2f}  min {least:9.2f}  processor {cpu:9.2f} ms")
            else:
                print(f"  {key:26} {value:.3g}")
    machine["load_average_before_and_after"] = [load, os.getloadavg()[0]]
    if options.json:
        text = json.dumps({"machine": machine, "shape": shape, "results": results}, indent=2)
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
