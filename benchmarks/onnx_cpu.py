"""A whole model on a CPU: torch, torch.compile, and ONNX Runtime with and without our operators.

    python benchmarks/onnx_cpu.py --json benchmarks/results/onnx_cpu.json

The preset `small` at 128 x 128, float32, random orders, batches of 1, 2 and 8 images, five steps of
DDIM. Its weights are drawn, those that training starts at zero too, so that images differ where
anything does. Each way has a process of its own; at each batch they take turns, and ratios are to
torch in the same run. Memory is the peak of the process while it draws. Every way draws the same
images; the largest difference to torch's stands beside its time. With --profile the milliseconds
of ONNX Runtime's nodes, by operator, of one call with a batch of two. Takes about six minutes on
two cores, of which four are torch.compile's. With --one-thread the processor's time for one call of
the network in a single thread, and nothing else: for a machine that others use.
"""

from __future__ import annotations

import argparse
import bisect
import functools
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Before torch loads OpenMP, as the command line does it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import ssmdiff
from ssmdiff_bench.compare import Effort, choose, measure
from ssmdiff_bench.machine import load_average, machine
from ssmdiff_bench.record import Row
from ssmdiff_bench.worker import Case, Job, Way

PRESET, SIDE, STEPS, SEED = "small", 128, 5, 0
BATCHES = (1, 2, 8)
PROFILED, PROFILED_CALLS = 2, 5
SCALE = 2.0  # images reach from -1 to 1
Draws = dict[str, Any]


def untrained_run(folder: Path) -> Path:
    """A run of the preset, with weights of which none is zero."""
    import torch
    from ssmdiff.runs import checkpoint

    config = ssmdiff.resolve(
        ssmdiff.load_preset(PRESET), {"data": {"image_size": SIDE}, "train": {"callbacks": []}}
    )
    torch.manual_seed(0)
    network = ssmdiff.build_backbone(config, 1)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.02)
    run = ssmdiff.RunFolder(folder)
    run.create(config)
    weights = {"model": network.state_dict(), "ema": network.state_dict()}
    checkpoint.save(run.checkpoints, 1, weights, {"channels": 1, "class_names": []})
    return folder


def draws(case: Case) -> Draws:
    """What is drawn: as many images as a call of the network takes."""
    n = case["size"]
    return {"n": n, "batch_size": n, "steps": STEPS, "seed": SEED, "scheduler": "ddim"}


@functools.cache
def _run(folder: Path, compiled: bool) -> Any:
    run = ssmdiff.load_run(folder)
    if compiled:
        run.compile()
    return run


def load_torch(folder: Path, compiled: bool, case: Case) -> Job:
    """In the worker: torch as it stands, or compiled for this batch."""
    start_s = time.perf_counter()
    run = _run(folder, compiled)
    if compiled:
        run.sample(**{**draws(case), "steps": 1})
    facts = {"load_s": round(time.perf_counter() - start_s, 2)}
    return Job(lambda: run.sample(**draws(case)), facts=facts, output=lambda x: x.numpy())


@functools.cache
def _sampler(path: Path, library: Path | None) -> Any:
    return ssmdiff.job("export").onnx_sampler(path, library=library)


def load_onnx(path: Path, library: Path | None, case: Case) -> Job:
    """In the worker, which imports no torch: a session of ONNX Runtime."""
    start_s = time.perf_counter()
    sampler = _sampler(path, library)
    facts = {"load_s": round(time.perf_counter() - start_s, 2)}
    return Job(lambda: sampler.sample(**draws(case)), facts=facts, output=lambda x: x)


def make_ways(folder: Path) -> list[Way]:
    """The run, its file, and who draws from them; torch comes first."""
    run = untrained_run(folder / "run")
    export = ssmdiff.job("export")
    file, library = folder / "model.onnx", export.ort_library()
    export(run, file, verify=False)
    return [
        Way("torch", functools.partial(load_torch, run, False)),
        Way("torch.compile", functools.partial(load_torch, run, True)),
        Way("onnx", functools.partial(load_onnx, file, None)),
        Way("onnx, our operators", functools.partial(load_onnx, file, library)),
    ]


def profile(path: Path, library: Path | None, folder: Path) -> dict[str, float]:
    """Milliseconds of a call by operator, the least of some calls; `Scan: Mul` are part of Scan."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.enable_profiling, options.log_severity_level = True, 3
    options.profile_file_prefix = str(folder / "profile")
    if library:
        options.register_custom_ops_library(str(library))
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feeds: dict[str, Any] = {
        "x": rng.standard_normal((PROFILED, 1, SIDE, SIDE), np.float32),
        "timesteps": np.full(PROFILED, 500, np.float32),
    }
    for value in session.get_inputs():
        if value.name.startswith("order_"):
            rows, tokens = value.shape
            order = [rng.permutation(tokens) for _ in range(rows)]
            feeds[value.name] = np.stack(order).astype(np.int32)
    for _ in range(PROFILED_CALLS):
        session.run(None, feeds)
    events = json.loads(Path(session.end_profiling()).read_text())
    nodes = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
    calls = [e for e in events if e["name"] == "model_run"]
    least: Counter[str] = Counter()
    for call in calls[1:]:
        sums = _sums([e for e in nodes if call["ts"] <= e["ts"] < call["ts"] + call["dur"]])
        least.update({k: ms for k, ms in sums.items() if k not in least})
        least = Counter({k: min(least[k], sums[k]) for k in sums})
    return {name: round(ms, 2) for name, ms in least.most_common(16)}


def _sums(nodes: list[dict[str, Any]]) -> dict[str, float]:
    """Of one call; what lies within the time of a Scan is a node of its body."""
    spans = [(e["ts"], e["ts"] + e["dur"]) for e in nodes if e["args"]["op_name"] == "Scan"]
    spans.sort()
    starts = [start for start, _ in spans]
    milliseconds: Counter[str] = Counter()
    for event in nodes:
        kind, i = event["args"]["op_name"], bisect.bisect_right(starts, event["ts"]) - 1
        inside = kind != "Scan" and i >= 0 and event["ts"] < spans[i][1]
        milliseconds[f"Scan: {kind}" if inside else kind] += event["dur"] / 1e3
    return dict(milliseconds)


def one_thread(
    folder: Path, path: Path, library: Path, batches: Sequence[int]
) -> dict[int, dict[str, float]]:
    """Milliseconds of the processor for one call of the network, all in this process, in turn.

    The least of five calls. Unlike seconds of the clock it hardly depends on what else runs.
    """
    import torch
    from ssmdiff import order_plan, order_tensors
    from ssmdiff_export.runtime import OnnxSampler

    torch.set_num_threads(1)
    run = ssmdiff.load_run(folder)
    drawn = order_plan(run.model, run.config, SEED).draw(0)
    samplers = {
        "onnx": OnnxSampler(path, threads=1),
        "onnx, our operators": OnnxSampler(path, library=library, threads=1),
    }
    found: dict[int, dict[str, float]] = {}
    for n in batches:
        x = np.random.default_rng(SEED).standard_normal((n, 1, SIDE, SIDE), np.float32)
        timesteps = np.full(n, 500, np.float32)
        tensors = {"x": torch.from_numpy(x), "timesteps": torch.from_numpy(timesteps)}
        orders = order_tensors(drawn, run.device)

        @torch.inference_mode()
        def by_torch(tensors: Any = tensors, orders: Any = orders) -> Any:
            return run.model(**tensors, context=None, orders=orders)

        calls = {"torch": by_torch} | {
            name: functools.partial(sampler.denoise, x, timesteps, drawn)
            for name, sampler in samplers.items()
        }
        least = dict.fromkeys(calls, float("inf"))
        for _ in range(6):
            for name, call in calls.items():
                start_s = time.process_time()
                call()
                least[name] = min(least[name], time.process_time() - start_s)
        found[n] = {name: round(seconds * 1e3, 1) for name, seconds in least.items()}
    return found


def document(row: Row, base: dict[int, Row]) -> dict[str, Any]:
    """A row as plain values, with images a second and their ratio to torch's."""
    found = row.to_json()
    if row.timing:
        found["images_per_s"] = round(row.size / row.timing.median_s, 3)
        torch = base[row.size].timing
        assert torch
        found["of_torch"] = round(torch.median_s / row.timing.median_s, 3)
    return found


def show(rows: Sequence[dict[str, Any]]) -> None:
    """The table, as docs/performance.md has it."""
    print("| batch | | images per second | of torch | memory of the process | largest difference |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        if row["status"] != "ok":
            print(f"| {row['size']} | {row['way']} | {row['status']}: {row['detail']} | | | |")
            continue
        print(
            f"| {row['size']} | {row['way']} | {row['images_per_s']:.2f} | {row['of_torch']:.2f} | "
            f"{row['peak_mib']:.0f} MiB | {row['difference']:.1e} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="A whole model on a CPU, in torch and ONNX.")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--repeats", type=int, default=7, help="timed calls of each at a batch")
    parser.add_argument("--seconds", type=float, default=8.0, help="of timed calls of each")
    parser.add_argument("--only", nargs="+", help="ways by name, torch among them")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--one-thread", action="store_true", help="processor time of a call alone")
    parser.add_argument("--profile", action="store_true", help="ONNX Runtime's time by operator")
    options = parser.parse_args()
    start_s = time.perf_counter()
    record: dict[str, Any] = {"machine": machine()}
    record["settings"] = {"preset": PRESET, "side": SIDE, "steps": STEPS, "scale": SCALE}
    with tempfile.TemporaryDirectory(prefix="ssmdiff-onnx-cpu-") as name:
        ways = choose(make_ways(Path(name)), options.only)
        if options.one_thread:
            files = [Path(name) / file for file in ("run", "model.onnx")]
            library = ssmdiff.job("export").ort_library()
            record["one_thread_ms"] = one_thread(*files, library, options.batches)
            ways = []
        cases = [{"series": "sample", "size": n} for n in sorted(options.batches)]
        effort = Effort(options.repeats, options.seconds, limit_s=100.0)
        rows = measure(
            ways, cases, effort, lambda text: text and print(text, file=sys.stderr), SCALE
        )
        base = {row.size: row for row in rows if row.way == "torch"}
        record["rows"] = [document(row, base) for row in rows]
        if options.profile:
            parts = {way.name: way.load for way in ways if way.name.startswith("onnx")}
            record["profile_ms"] = (
                {name: profile(*load.args, Path(name_of)) for name, load in parts.items()}
                if (name_of := name)
                else {}
            )
    record["machine"]["load_average_after"] = load_average()
    record["seconds"] = round(time.perf_counter() - start_s)
    if record["rows"]:
        show(record["rows"])
    for n, table in record.get("one_thread_ms", {}).items():
        print(
            f"batch {n}, ms of the processor", *(f"{k} {ms}" for k, ms in table.items()), sep=", "
        )
    for way, table in record.get("profile_ms", {}).items():
        print(way, *(f"{op} {ms}" for op, ms in table.items()), sep=", ")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
