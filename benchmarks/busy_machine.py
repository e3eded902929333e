"""Seconds a training step of the preset `tiny` takes, alone and beside a second such program.

    python benchmarks/busy_machine.py --json benchmarks/results/busy_machine.json

Once with libgomp's default, where waiting threads spin, and once with OMP_WAIT_POLICY=passive,
which the command line sets.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

STEPS = 6


def steps() -> None:
    """Print the median time of a step, forward and backward."""
    import torch
    from ssmdiff import order_tensors
    from ssmdiff.runs import compose
    from ssmdiff.runs.config import load_preset, resolve

    config = resolve(load_preset("tiny"))
    model = compose.build_backbone(config, 1)
    plan = compose.order_plan(model, config)
    x = torch.randn(config.train.batch_size, 1, *config.data.image_size)
    timesteps = torch.randint(0, 1000, (len(x),))
    times_s = []
    for step in range(STEPS + 2):
        start_s = time.perf_counter()
        orders = order_tensors(plan.draw(step), x.device)
        model(x=x, timesteps=timesteps, orders=orders).square().mean().backward()
        times_s.append(time.perf_counter() - start_s)
    print(statistics.median(times_s[2:]))


def measure(policy: dict[str, str], programs: int) -> list[float]:
    """The median step of each of so many programs that run at the same time."""
    running = [
        subprocess.Popen(
            [sys.executable, __file__, "--steps"],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | policy,
        )
        for _ in range(programs)
    ]
    return [round(float(p.communicate()[0].splitlines()[-1]), 3) for p in running]


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a training step beside another program.")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--steps", action="store_true", help="be one of the programs")
    options = parser.parse_args()
    if options.steps:
        steps()
        return
    from ssmdiff.runs.provenance import versions

    os.environ.pop("OMP_WAIT_POLICY", None)
    results = {}
    for name, policy in (("default", {}), ("passive", {"OMP_WAIT_POLICY": "passive"})):
        for programs in (1, 2):
            results[f"{name}, {programs} at once"] = measure(policy, programs)
            print(name, programs, results[f"{name}, {programs} at once"], flush=True)
    if options.json:
        record = {"machine": versions() | {"cores": os.cpu_count()}, "seconds_a_step": results}
        options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
