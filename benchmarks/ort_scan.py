"""The custom op of ONNX Runtime against the ONNX ``Scan`` body that runs without it.

    python benchmarks/ort_scan.py --json benchmarks/results/ort_scan.json

Both run one model file: a node ``ssmdiff::SelectiveScan`` and the body as its function. The session
of the op registers the compiled library. Random orders, K = 4, N = 16, float32, two threads, inputs
and output bound. They take turns, each with a new session: the threads of an idle session
spin and would slow down the other. Run it on a quiet machine; the load is part of the result.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper
from ssmdiff_bench.machine import load_average, machine
from ssmdiff_bench.timing import Timing, Turn, clocked, interleaved
from ssmdiff_export.function import scan_function
from ssmdiff_export.ort_library.build import library
from ssmdiff_export.runtime.card import ATTRIBUTES, DOMAIN, INPUTS, OPSETS

SHAPES = ((1, 256, 96), (1, 1024, 192), (4, 1024, 192), (1, 4096, 96))  # (B, L, D)
DIRECTIONS, STATES, THREADS = 4, 16, 2
BUDGET_S = 2.0  # for the timed calls of a way at a shape
RANKS = (3, 4, 3, 4, 4, 2)


def make_inputs(batch: int, length: int, channels: int) -> dict[str, np.ndarray]:
    """Float32 inputs with steps and A as Mamba initialises them, and a random int32 order."""
    rng = np.random.default_rng(0)
    row = (batch, DIRECTIONS, length)
    A = -np.tile(np.arange(1.0, STATES + 1, dtype=np.float32), (DIRECTIONS, channels, 1))
    order = [rng.permutation(length) for _ in range(DIRECTIONS)]
    values = (
        rng.standard_normal((batch, length, channels), np.float32),
        np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), (*row, channels))).astype(np.float32),
        A,
        rng.standard_normal((*row, STATES), np.float32),
        rng.standard_normal((*row, STATES), np.float32),
        np.stack(order).astype(np.int32),
    )
    return dict(zip(INPUTS, values, strict=True))


def make_model() -> bytes:
    """A model of one node, for any shape, with its function."""
    inputs = [
        helper.make_tensor_value_info(
            name, TensorProto.INT32 if name == "order" else TensorProto.FLOAT, [None] * rank
        )
        for name, rank in zip(INPUTS, RANKS, strict=True)
    ]
    node = helper.make_node("SelectiveScan", list(INPUTS), ["y"], domain=DOMAIN, **ATTRIBUTES)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)
    model = helper.make_model(
        helper.make_graph([node], "scan", inputs, [y]),
        opset_imports=[helper.make_opsetid("", OPSETS["fp32"]), helper.make_opsetid(DOMAIN, 1)],
        functions=[scan_function("SelectiveScan")],
        ir_version=10,
    )
    serialized: bytes = model.SerializeToString()
    return serialized


def make_session(path: Path | None) -> ort.InferenceSession:
    """A session of the model, with the library of custom ops if its path is given."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    if path:
        options.register_custom_ops_library(str(path))
    return ort.InferenceSession(make_model(), options, providers=["CPUExecutionProvider"])


def turn_of(path: Path | None, feeds: dict[str, Any], outputs: list[Any]) -> Turn:
    """A turn with these inputs; it leaves what was written in ``outputs``."""

    def turn(calls: int, warm: bool) -> list[float]:
        session = make_session(path)
        binding = session.io_binding()
        for name, value in feeds.items():
            binding.bind_cpu_input(name, value)
        y = ort.OrtValue.ortvalue_from_numpy(np.full_like(feeds["delta"], np.nan))
        binding.bind_ortvalue_output("y", y)
        session.run_with_iobinding(binding)  # the first call allocates
        outputs[:] = [y.numpy().copy()]  # what numpy() returns goes with the value
        return list(clocked(lambda: session.run_with_iobinding(binding))(calls, True))

    return turn


def measure(repeats: int) -> dict[str, Any]:
    """Times of both for each shape, the ratio of the medians, and how far the outputs are apart."""
    paths = {"scan": None, "op": library()}
    results: dict[str, Any] = {}
    for shape in SHAPES:
        feeds = make_inputs(*shape)
        outputs: dict[str, list[Any]] = {name: [] for name in paths}
        calls = {name: turn_of(path, feeds, outputs[name]) for name, path in paths.items()}
        entry: dict[str, Any] = {}
        for name, timing in interleaved(calls, repeats, BUDGET_S).items():
            if not isinstance(timing, Timing):
                raise timing
            entry[name] = {f"{key}_ms": value for key, value in timing.to_json().items()}
            entry[name]["repeats"] = entry[name].pop("repeats_ms")
        entry["ratio"] = entry["scan"]["median_ms"] / entry["op"]["median_ms"]
        (op,), (scan,) = outputs["op"], outputs["scan"]
        entry["max_relative_difference"] = float(np.abs(op - scan).max() / np.abs(scan).max())
        results["B {} L {} D {}".format(*shape)] = entry
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the custom op and the plain ONNX Scan.")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--repeats", type=int, default=40, help="timed calls of each")
    options = parser.parse_args()
    sizes = {"K": DIRECTIONS, "N": STATES}
    record: dict[str, Any] = {"machine": machine() | {"threads": THREADS}, "shape": sizes}
    record["results"] = measure(options.repeats)
    record["machine"]["load_average_after"] = load_average()
    for name, entry in record["results"].items():
        op, scan = entry["op"]["median_ms"], entry["scan"]["median_ms"]
        print(f"{name:18}  op {op:6.2f} ms  scan {scan:6.1f} ms  {entry['ratio']:.1f} times")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
