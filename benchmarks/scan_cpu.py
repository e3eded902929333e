"""The numba kernel against the recurrence that is published for machines without CUDA.

    python benchmarks/scan_cpu.py --json benchmarks/results/scan_cpu.json

The peer is mamba-ssm's ``selective_scan_ref`` as `ssmdiff_bench.scan_peers` has it, a Python loop
over time with autograd for the gradients. Its gradients are timed once: one to four minutes, mostly
the system clearing memory for them, so that the time depends on what else runs; ``--no-gradients``
leaves them out. Then, over the number of tokens and in a process that keeps freed memory: raster
against random, the time of a token, and that of forward and backward over the forward. All computes
in float32 with the threads torch has, everything in turn, so that a drift hits all alike. Run it on
a quiet machine; the load is part of the result. For memory: ssmdiff bench scan.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ssmdiff.ops import ScanInputs, both_passes, load_kernel
from ssmdiff_bench.machine import load_average, machine
from ssmdiff_bench.scan import ScanShape, make_inputs
from ssmdiff_bench.scan_peers import both_by_autograd, mamba_reference
from ssmdiff_bench.timing import Timing, clocked, interleaved
from ssmdiff_train.memory import keep_freed_memory
from torch import Tensor

BATCH, LENGTH, CHANNELS, DIRECTIONS, STATES = 2, 1024, 192, 4, 16
LENGTHS = (256, 1024, 4096, 16384, 65536)
ORDERS = ("raster", "random")
PASSES = ("forward", "forward_backward")
PEER_S = 3.0  # for its forward calls, a second or so each


def inputs_of(order: str, length: int) -> tuple[ScanInputs, Tensor]:
    """The benchmark's inputs along an order, and a gradient of y."""
    shape = ScanShape(BATCH, CHANNELS, DIRECTIONS, STATES, order)
    inputs = make_inputs(shape, length)
    generator = torch.Generator().manual_seed(1)
    return inputs, torch.randn(inputs.u.shape, generator=generator)


def timed(
    calls: dict[tuple[str, ...], Callable[[], Any]], repeats: int, budget_s: float = float("inf")
) -> dict[tuple[str, ...], Timing]:
    """Each call's times, taken in turn after an uncounted call of each."""
    for call in calls.values():
        call()
    names = {" ".join(key): key for key in calls}
    turns = {name: clocked(calls[key]) for name, key in names.items()}
    found = interleaved(turns, repeats, budget_s)
    return {names[name]: t for name, t in found.items() if isinstance(t, Timing)}


def against_the_peer(repeats: int, gradients: bool) -> dict[str, Any]:
    """Times of both, the ratios of their medians, and how far the two outputs are apart."""
    kernel = load_kernel("numba")
    ours: dict[tuple[str, ...], Callable[[], Any]] = {}
    peers: dict[tuple[str, ...], Callable[[], Any]] = {}
    results: dict[str, Any] = {}
    for order in ORDERS:
        inputs, grad_y = inputs_of(order, LENGTH)
        zoh = inputs._replace(discretization="zoh")
        peer = functools.partial(torch.no_grad()(mamba_reference), inputs)
        ours[order, "numba_forward"] = functools.partial(kernel.forward, inputs)
        ours[order, "numba_forward_zoh"] = functools.partial(kernel.forward, zoh)
        ours[order, "numba_forward_backward"] = functools.partial(
            both_passes, kernel, inputs, grad_y
        )
        peers[order, "peer_forward"] = peer
        expected = peer()
        difference = (kernel.forward(inputs) - expected).abs().max() / expected.abs().max()
        results[order] = {"max_relative_difference": float(difference)}
    found = timed(ours | peers, repeats, PEER_S)
    if gradients:  # the same time in any order; the inputs are those of the last one
        once = functools.partial(both_by_autograd, mamba_reference, inputs, grad_y)
        (seconds,) = clocked(once)(1, False)
        for order in ORDERS:
            found[order, "peer_forward_backward"] = Timing((seconds,))
    for (order, name), timing in found.items():
        results[order][name] = {f"{key}_ms": v for key, v in timing.to_json().items()}
        results[order][name]["repeats"] = results[order][name].pop("repeats_ms")
    for order, entry in results.items():
        for what in PASSES:
            if (order, f"peer_{what}") in found:
                theirs, numba = found[order, f"peer_{what}"], found[order, f"numba_{what}"]
                entry[f"ratio_{what}"] = theirs.median_s / numba.median_s
    return results


def over_lengths(repeats: int) -> list[dict[str, Any]]:
    """Microseconds of a token and the cost of a random order, from few tokens to many.

    All lengths and orders in turn: the speed of a virtual machine drifts by a quarter.
    """
    kernel = load_kernel("numba")
    calls: dict[tuple[str, ...], Callable[[], Any]] = {}
    for length in LENGTHS:
        for order in ORDERS:
            inputs, grad_y = inputs_of(order, length)
            calls[str(length), order, "forward"] = functools.partial(kernel.forward, inputs)
            calls[str(length), order, "forward_backward"] = functools.partial(
                both_passes, kernel, inputs, grad_y
            )
    found = timed(calls, repeats, 10.0)
    rows = []
    for length in LENGTHS:
        row: dict[str, Any] = {"L": length}
        for what in PASSES:
            medians = [found[str(length), order, what].median_s for order in ORDERS]
            row[f"random_over_raster_{what}"] = medians[1] / medians[0]
            for order in ORDERS:
                timing = found[str(length), order, what]
                tokens = BATCH * length
                row[f"{order}_{what}_us_per_token"] = {
                    "median": timing.median_s / tokens * 1e6,
                    "min": min(timing.seconds) / tokens * 1e6,
                    "repeats": len(timing.seconds),
                }
        for order in ORDERS:
            forward, backward = (row[f"{order}_{what}_us_per_token"] for what in PASSES)
            row[f"{order}_both_over_forward"] = {
                kind: backward[kind] / forward[kind] for kind in ("median", "min")
            }
        rows.append(row)
    return rows


def spread(lengths: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The dearest length's time of a token over the cheapest one's, for each order and pass."""
    names = [name for name in lengths[0] if name.endswith("us_per_token")]
    return {
        name.removesuffix("_us_per_token"): {
            kind: max(row[name][kind] for row in lengths) / min(row[name][kind] for row in lengths)
            for kind in ("median", "min")
        }
        for name in names
    }


def show(results: dict[str, Any], lengths: list[dict[str, Any]]) -> None:
    """What was found, for a reader."""
    for order, entry in results.items():
        print(f"\n{order}")
        for key, value in entry.items():
            if isinstance(value, dict):
                low, high = value["quartiles_ms"]
                median, least = value["median_ms"], value["min_ms"]
                print(f"  {key:26} {median:9.2f} ({low:.2f} to {high:.2f}), min {least:.2f} ms")
            else:
                print(f"  {key:26} {value:.3g}")
    print()
    for row in lengths:
        for key, value in row.items():
            if isinstance(value, dict):
                print(f"  {key:36} {value['median']:6.2f}, min {value['min']:.2f}")
            else:
                print(f"  {key:36} {value:6.5g}")
    print("the dearest length over the cheapest:")
    for key, value in spread(lengths).items():
        print(f"  {key:36} {value['median']:6.2f}, of the fastest calls {value['min']:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the numba kernel and the published loop.")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--repeats", type=int, default=200, help="timed calls of the numba kernel")
    parser.add_argument("--no-gradients", action="store_true", help="leave out the peer's")
    options = parser.parse_args()
    shape = {"B": BATCH, "L": LENGTH, "D": CHANNELS, "K": DIRECTIONS, "N": STATES}
    record: dict[str, Any] = {"machine": machine(), "shape": shape}
    print("  ".join(f"{key} {value}" for key, value in (record["machine"] | shape).items()))
    record["results"] = against_the_peer(options.repeats, not options.no_gradients)
    keep_freed_memory()  # as ssmdiff train does: else new pages are cleared in every call
    record["lengths"] = over_lengths(2 * options.repeats)
    record["lengths_spread"] = spread(record["lengths"])
    show(record["results"], record["lengths"])
    record["machine"]["load_average_after"] = load_average()
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
