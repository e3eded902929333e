"""The small presets by measurement: prediction, betas, loss weight, rate, average, sampler.

    python benchmarks/presets.py            # says first how long it will take
    python benchmarks/presets.py --only before after

Trainings of `tiny` on the built-in heads, one after the other: short ones with one seed each, in
which one thing differs, then the demo as it was and as it is, with three seeds. Each is drawn from
and held against the 4,096 heads of its training by `texture` and `pixels` features, beside as many
heads that were held out. A short pair of `small` stands at the end. What is in the result already
is not done again, and a training that was stopped goes on. Writes benchmarks/results/presets.json
and docs/images/presets.png.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before torch loads OpenMP, as the command line does it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import ssmdiff
import torch
from numpy.typing import NDArray
from ssmdiff_bench.machine import load_average, machine
from ssmdiff_evaluate.sets import DataImages, to_levels
from ssmdiff_metrics.frechet import frechet_estimate

ROOT = Path(__file__).parents[1]
Levels = NDArray[np.uint8]
CORNER = [0, 1, 2, -3, -2, -1]  # rows and columns in whose corners no head ever is
FEATURES = ("texture", "pixels")
IMAGES_A_SECOND = {"tiny": (40, 130), "small": (6, 25)}  # trained, and drawn by one call; two cores
QUIET: dict[str, Any] = {"callbacks": [], "sample_every": 0, "bound_images": 0}
EPSILON: dict[str, Any] = {"prediction": "epsilon", "beta_schedule": "linear"}
V: dict[str, Any] = {"prediction": "v_prediction", "beta_schedule": "linear"}
COSINE = {**V, "beta_schedule": "cosine"}
RATE = {"learning_rate": 1e-3, "ema_decay": 0.995}
DDIM, DPMPP = {"name": "ddim"}, {"name": "dpmpp"}


@dataclass(frozen=True)
class Way:
    """How a preset is trained and drawn from.

    Args:
        diffusion: Keys of that section.
        train: Likewise.
        samplers: Each with its steps.
        preset: Whose other keys are taken.
        short: Fewer steps and images, one seed.
        raw: Also without the average of the weights.
    """

    diffusion: Mapping[str, Any]
    train: Mapping[str, Any]
    samplers: Sequence[tuple[Mapping[str, Any], int]]
    preset: str = "tiny"
    short: bool = True
    raw: bool = False


BOTH = ((DPMPP, 25), (DDIM, 25))
SMALL = {"learning_rate": 1e-3, "ema_decay": 0.98, "warmup_steps": 20, "schedule": "cosine"}
WAYS = {
    "epsilon": Way(EPSILON, RATE, BOTH),
    "v": Way(V, RATE, BOTH, raw=True),
    "v, cosine betas": Way(COSINE, RATE, BOTH),
    "v, min-SNR 5": Way({**V, "min_snr_gamma": 5.0}, RATE, BOTH[:1]),
    "v, twice the rate": Way(V, {**RATE, "learning_rate": 2e-3}, BOTH[:1]),
    "before": Way(EPSILON, RATE, ((DDIM, 50),), short=False),
    "after": Way({}, {}, (), short=False),
    "small, epsilon": Way(EPSILON, SMALL, ((DPMPP, 25), (DDIM, 25)), preset="small"),
    "small, v, cosine betas": Way(COSINE, SMALL, ((DPMPP, 25),), preset="small"),
}
"""What each is; `after` is the preset as it stands."""
SHORT = {
    "tiny": {"steps": 300, "checkpoint_every": 300},
    "small": {"steps": 120, "batch_size": 8, "checkpoint_every": 120},
}
DRAWN = {"tiny": 128, "small": 40}  # images of a training
FRESH = 256  # heads held out


def config_of(way: Way, seed: int) -> ssmdiff.Config:
    """The configuration that is trained."""
    short = SHORT[way.preset] if way.short else {}
    return ssmdiff.resolve(
        ssmdiff.load_preset(way.preset),
        {
            "seed": seed,
            "diffusion": dict(way.diffusion),
            "train": {**QUIET, **short, **way.train},
        },
    )


def samplers_of(way: Way, config: ssmdiff.Config) -> list[tuple[Mapping[str, Any], int]]:
    """How it is drawn from: as the way says, or as the preset does."""
    return list(way.samplers) or [(config.sample.scheduler, config.sample.steps)]


class Judge:
    """Holds images against a preset's training images."""

    def __init__(self, config: ssmdiff.Config) -> None:
        dataset = ssmdiff.build_dataset(config)
        self.reference, self.fresh = DataImages(dataset), DataImages(dataset.held_out)
        self.networks = {name: ssmdiff.create("features", name) for name in FEATURES}
        self.known = {}
        for name, network in self.networks.items():
            network.fit(self.reference)
            self.known[name] = self._features(name, self.reference.levels(range(4096)))

    def _features(self, name: str, levels: Levels) -> NDArray[np.floating]:
        parts = np.split(levels, range(256, len(levels), 256))
        return np.concatenate([self.networks[name](part) for part in parts])

    def figures(self, levels: Levels) -> dict[str, Any]:
        """Distances with their intervals, and the greys."""
        found: dict[str, Any] = {}
        for name in FEATURES:
            estimate = frechet_estimate(self.known[name], self._features(name, levels))
            found[name] = round(estimate.value, 4)
            found[f"{name}_interval"] = [round(end, 4) for end in estimate.interval]
        grey = levels.astype(np.float64) / 127.5 - 1
        means = grey.mean(axis=(1, 2, 3))
        corners = grey[:, :, CORNER][..., CORNER]
        return found | {
            "images": len(levels),
            "mean_grey": round(float(means.mean()), 4),
            "spread_of_mean": round(float(means.std()), 4),
            "background": round(float(corners.mean()), 4),
        }


def trained(config: ssmdiff.Config, folder: Path) -> tuple[float, float] | None:
    """Train, or go on, or nothing; seconds by the clock and of the processor, None where it was
    not one piece."""
    newest = ssmdiff.RunFolder(folder).checkpoint_paths() if folder.is_dir() else []
    done = int(newest[0].name.removeprefix("step-")) if newest else 0
    if done >= config.train.steps:
        return None
    begin, busy = time.perf_counter(), time.process_time()
    ssmdiff.train(config, folder, resume=done > 0, overwrite=folder.is_dir() and not done)
    return None if done else (time.perf_counter() - begin, time.process_time() - busy)


def drawn(run: Any, table: Mapping[str, Any], steps: int, count: int, kept: Path) -> Levels:
    """Images 0 to count - 1 of seed 0, from the disk if they are there."""
    if not kept.is_file():
        images = run.sample(count, seed=0, steps=steps, scheduler=dict(table), batch_size=32)
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, to_levels(images.numpy()))
    levels: Levels = np.load(kept, allow_pickle=False)
    return levels


def cell(name: str, seed: int, judge: Judge, runs: Path) -> list[dict[str, Any]]:
    """The rows of one training: one for each sampler."""
    way = WAYS[name]
    config = config_of(way, seed)
    folder = runs / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
    seconds = trained(config, folder)
    count = DRAWN[way.preset]
    weights = [(True, samplers_of(way, config))]
    weights += [(False, samplers_of(way, config)[:1])] if way.raw else []
    rows = []
    for average, samplers in weights:
        run = ssmdiff.load_run(folder, ema=average)
        for table, steps in samplers:
            kept = folder / "drawn" / f"{table['name']}-{steps}-{average}.npy"
            begin = time.perf_counter()
            levels = drawn(run, table, steps, count, kept)
            rows.append(
                {
                    "way": name,
                    "seed": seed,
                    "steps": config.train.steps,
                    "batch_size": config.train.batch_size,
                    "diffusion": config.diffusion.model_dump(mode="json"),
                    "learning_rate": config.train.learning_rate,
                    "average": config.train.ema_decay if average else None,
                    "sampler": dict(table),
                    "sampling_steps": steps,
                    **judge.figures(levels),
                    "training_s": seconds and round(seconds[0], 1),
                    "training_cpu_s": seconds and round(seconds[1], 1),
                    "sampling_s": round(time.perf_counter() - begin, 1),
                    "load_average": load_average(),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    return rows


def cost_s(cells: Sequence[tuple[str, int]]) -> float:
    """About how long these take on two cores that do nothing else."""
    total = 0.0
    for name, seed in cells:
        way = WAYS[name]
        config = config_of(way, seed)
        trains, draws = IMAGES_A_SECOND[way.preset]
        count = DRAWN[way.preset]
        calls = sum(steps for _, steps in samplers_of(way, config)) + 25 * way.raw
        total += config.train.steps * config.train.batch_size / trains + count * calls / draws
    return total


def picture(record: Mapping[str, Any], runs: Path, target: Path) -> None:
    """Sixteen images of each seed whose images are there, before and after, beside heads."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = {(row["way"], row["seed"]): row for row in record["rows"]}
    pairs = [seed for seed in range(3) if {("before", seed), ("after", seed)} <= rows.keys()]
    kept = {
        (way, seed): sorted((runs / f"{way}-{seed}" / "drawn").glob("*.npy"))
        for seed in pairs
        for way in ("before", "after")
    }
    seeds = [seed for seed in pairs if kept["before", seed] and kept["after", seed]]
    if not seeds:
        return
    columns = len(seeds) + 1
    figure, axes = plt.subplots(2, columns, figsize=(3.1 * columns, 6.8), layout="constrained")
    for line, way in zip(axes, ("before", "after"), strict=True):
        for axis, seed in zip(line, seeds, strict=False):
            (images,) = kept[way, seed]
            grid(axis, np.load(images, allow_pickle=False))
            axis.set_title(f"{way}, seed {seed}\n{_said(rows[way, seed])}", fontsize=9)
    dataset: Any = ssmdiff.build_dataset(config_of(WAYS["after"], 0))
    grid(axes[0, -1], DataImages(dataset.held_out).levels(range(16)))
    axes[0, -1].set_title(f"heads held out\n{_said(record['real']['tiny'])}", fontsize=9)
    axes[1, -1].axis("off")
    figure.savefig(target, dpi=110)


def _said(row: Mapping[str, Any]) -> str:
    texture, pixels, mean = (row[key] for key in ("texture", "pixels", "mean_grey"))
    return f"texture {texture:.1f}, pixels {pixels:.1f}, grey {mean:.3f}"


def grid(axis: Any, levels: Levels) -> None:
    side = levels.shape[-1]
    tiles = levels[:16, 0].reshape(4, 4, side, side).transpose(0, 2, 1, 3)
    axis.imshow(tiles.reshape(4 * side, 4 * side), cmap="gray", vmin=0, vmax=255)
    axis.axis("off")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/presets")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/presets.json")
    parser.add_argument("--plot", type=Path, default=ROOT / "docs/images/presets.png")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    record = {"machine": machine(), "real": {}, "rows": []}
    if arguments.out.is_file():
        record |= json.loads(arguments.out.read_text())
    seeds = [(name, seed) for seed in range(3) for name in arguments.only]
    cells = [(name, seed) for name, seed in seeds if seed == 0 or not WAYS[name].short]
    there = {(row["way"], row["seed"]) for row in record["rows"]}
    missing = [one for one in cells if one not in there]
    print(
        f"{len(missing)} trainings of {len(cells)}, about {cost_s(missing) / 60:.0f} minutes "
        "on two cores that do nothing else",
        flush=True,
    )
    judges: dict[str, Judge] = {}
    for name, seed in missing:
        preset = WAYS[name].preset
        if preset not in judges:
            judges[preset] = Judge(config_of(WAYS[name], seed))
        fresh = judges[preset].fresh.levels(range(FRESH))
        record["real"][preset] = judges[preset].figures(fresh)
        record["rows"] += cell(name, seed, judges[preset], arguments.runs)
        text = json.dumps(record, indent=1) + "\n"
        ssmdiff.write_atomically(arguments.out, text.encode())
    picture(record, arguments.runs, arguments.plot)


if __name__ == "__main__":
    main()
