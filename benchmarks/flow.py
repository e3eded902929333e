"""Flow against diffusion: one network, the same images, the distance by calls of the network.

    python benchmarks/flow.py            # says first how long it will take
    python benchmarks/flow.py --steps 20 --images 40 --seeds 1 --runs /tmp/a --out /tmp/a.json

Trains `tiny` and `tiny-flow` on the built-in heads with three seeds each, one after the other: the
same network, optimiser, average, batches and images seen. Each is drawn from by its own samplers
with at most 5, 10, 25 and 50 calls of the network an image, and held against the 4,096 heads of its
training by `texture` and `pixels` features, beside as many heads that were held out. What is in the
result already is not done again, and a training that was stopped goes on. Writes
benchmarks/results/flow.json and docs/images/flow.png.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# Before torch loads OpenMP, as the command line does it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import ssmdiff
import torch
from presets import QUIET, ROOT, Judge, Levels, trained
from ssmdiff_bench.machine import load_average, machine
from ssmdiff_evaluate.sets import to_levels

CALLS = (5, 10, 25, 50)
WAYS: dict[str, tuple[str, Mapping[str, Any], Sequence[str]]] = {
    "diffusion": ("tiny", {}, ("ddim", "dpmpp", "unipc")),
    "flow": ("tiny-flow", {}, ("flow-euler", "flow-heun", "flow-adams")),
    "flow, uniform times": ("tiny-flow", {"times": "uniform"}, ("flow-heun", "flow-adams")),
}
"""Of each way its preset, options of its method, and its samplers."""
MAIN = ("diffusion", "flow")
IMAGES_A_SECOND = 40, 130  # trained, and drawn by one call; two cores
FRESH = 256  # heads held out
FEATURE = "texture"


def config_of(way: str, seed: int, steps: int | None) -> ssmdiff.Config:
    """The configuration that is trained."""
    preset, method, _ = WAYS[way]
    train = QUIET | ({} if steps is None else {"steps": steps})
    changes: dict[str, Any] = {"seed": seed, "train": {**train, "held_out_every": 0}}
    if method:
        changes["method"] = dict(method)
    return ssmdiff.resolve(ssmdiff.load_preset(preset), changes)


def steps_for(sampler: str, calls: int) -> int:
    """Steps of at most so many calls: Heun makes two a step, and one in the last."""
    return (calls + 1) // 2 if sampler == "flow-heun" else calls


def drawn(run: Any, sampler: str, steps: int, count: int, kept: Path) -> Levels:
    """Images 0 to count - 1 of seed 0, from the disk if they are there."""
    if not kept.is_file():
        images = run.sample(count, seed=0, steps=steps, scheduler=sampler, batch_size=32)
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, to_levels(images.numpy()))
    levels: Levels = np.load(kept, allow_pickle=False)
    return levels


def rows_of(
    way: str, seed: int, steps: int | None, count: int, judge: Judge, runs: Path
) -> Iterator[dict[str, Any]]:
    """The rows of one training: one for each sampler and number of calls."""
    config = config_of(way, seed, steps)
    folder = runs / f"{way.replace(', ', '-').replace(' ', '-')}-{seed}"
    took = trained(config, folder)
    run: Any = ssmdiff.open_model(folder)
    for sampler in WAYS[way][2]:
        for calls in CALLS:
            asked = steps_for(sampler, calls)
            made = run.calls(run.sampling(sampler, asked))
            begin = time.perf_counter()
            kept = folder / "drawn" / f"{sampler}-{asked}-{count}.npy"
            levels = drawn(run, sampler, asked, count, kept)
            yield {
                "way": way,
                "seed": seed,
                "parameters": sum(p.numel() for p in run.model.parameters()),
                "images_seen": config.train.steps * config.train.batch_size,
                "method": dict(config.method),
                "sampler": sampler,
                "at_most": calls,
                "calls": made,
                "sampling_steps": asked,
                **judge.figures(levels),
                "training_s": took and round(took[0], 1),
                "sampling_s": round(time.perf_counter() - begin, 1),
                "load_average": load_average(),
            }


def cost_s(cells: Sequence[tuple[str, int]], steps: int | None, count: int) -> float:
    """About how long these take on two cores that do nothing else."""
    trains, draws = IMAGES_A_SECOND
    total = 0.0
    for way, seed in cells:
        train = config_of(way, seed, steps).train
        total += train.steps * train.batch_size / trains
        total += count * sum(CALLS) * len(WAYS[way][2]) / draws
    return total


def plot(record: Mapping[str, Any], target: Path) -> None:
    """Distance by calls, the mean over seeds within their range."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    cells: dict[tuple[str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in record["rows"]:
        cells[row["way"], row["sampler"]][row["calls"]].append(row[FEATURE])
    figure, axis = plt.subplots(figsize=(7.2, 4.6), layout="constrained")
    colours = {"diffusion": plt.cm.Blues, "flow": plt.cm.Oranges}
    drawn: dict[str, int] = defaultdict(int)
    for (way, sampler), values in cells.items():
        calls = sorted(values)
        means = [float(np.mean(values[n])) for n in calls]
        shades = colours.get(way, plt.cm.Greens)
        colour = shades(0.9 - 0.22 * drawn[way])
        style = ("-", "--", ":")[drawn[way] % 3]
        marker = "os^"[drawn[way] % 3]
        drawn[way] += 1
        axis.plot(calls, means, style, color=colour, marker=marker, label=f"{way}, {sampler}")
        ends = [(min(values[n]), max(values[n])) for n in calls]
        axis.fill_between(calls, *zip(*ends, strict=True), color=colour, alpha=0.12, linewidth=0)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("{x:g}")
    axis.set_xticks(CALLS, [str(n) for n in CALLS])
    axis.set_xticks([], minor=True)
    axis.set_xlabel("calls of the network for an image")
    axis.set_ylabel(f"distance of {FEATURE} features")
    seeds = len({row["seed"] for row in record["rows"]})
    seen = {row["images_seen"] for row in record["rows"]}
    images = {row["images"] for row in record["rows"]}
    axis.set_title(
        f"the same network, {max(seen):,} images seen, {max(images)} images drawn, "
        f"{seeds} seed{'s' * (seeds > 1)}; {FRESH} heads held out: {record['real'][FEATURE]:.1f}",
        fontsize=10,
    )
    axis.legend(fontsize=8)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(MAIN))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="Optimiser steps; by default the presets'.")
    parser.add_argument("--images", type=int, default=256, help="Drawn for each distance.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/flow")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/flow.json")
    parser.add_argument("--plot", type=Path, default=ROOT / "docs/images/flow.png")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    record: dict[str, Any] = {"machine": machine(), "real": {}, "rows": []}
    if asked.out.is_file():
        record |= json.loads(asked.out.read_text())
    cells = [(way, seed) for seed in range(asked.seeds) for way in asked.only]
    there = {(row["way"], row["seed"]) for row in record["rows"]}
    missing = [one for one in cells if one not in there]
    print(
        f"{len(missing)} trainings of {len(cells)}, about "
        f"{cost_s(missing, asked.steps, asked.images) / 60:.0f} minutes on two cores that do "
        "nothing else",
        flush=True,
    )
    judge = Judge(config_of("diffusion", 0, asked.steps)) if missing else None
    for way, seed in missing:
        assert judge is not None
        record["real"] = judge.figures(judge.fresh.levels(range(FRESH)))
        rows = []
        for row in rows_of(way, seed, asked.steps, asked.images, judge, asked.runs):
            rows.append(row)
            print(json.dumps(row), flush=True)
        record["rows"] += rows
        text = json.dumps(record, indent=1) + "\n"
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        ssmdiff.write_atomically(asked.out, text.encode())
    plot(record, asked.plot)


if __name__ == "__main__":
    main()
