"""200 images and 500 steps: from a run on 4,096 heads, and from nothing.

    python benchmarks/init_from.py                       # says first how long it will take
    python benchmarks/init_from.py --only nothing heads --seeds 0
    python benchmarks/init_from.py --side 16             # a quarter of the work, kept apart
    python benchmarks/init_from.py --short               # a proof in a minute, kept apart

The run that is begun with is `tiny` as it stands, on the 4,096 built-in heads of seed 0. What is
trained then are 200 heads of seed 1 in another contrast, as T2 weighting has it: fluid bright,
white matter darker than grey. They lie as PNG in a folder, and have neither the first run's heads
nor its greys. Images of each run are held against 4,096 further heads of that kind by `texture` and
`pixels` features, beside 256 fresh ones and beside the 200 themselves. `nothing` and `heads` differ
in --init-from alone, with three seeds; the other ways, of one seed, are rates and averages. What is
in the result already is not done again, and a training that was stopped goes on. Writes
benchmarks/results/init_from.json and docs/images/init_from.png; of 16 pixels beside them.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Before torch loads OpenMP, as the command line does it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import ssmdiff
import torch
from numpy.typing import NDArray
from presets import grid, trained
from ssmdiff_bench.machine import load_average, machine
from ssmdiff_evaluate.sets import DataImages, to_levels
from ssmdiff_metrics.frechet import frechet_estimate

ROOT = Path(__file__).parents[1]
Levels = NDArray[np.uint8]
IMAGES, FRESH, REFERENCE = 200, 256, 4096
FEATURES = ("texture", "pixels")
STORED, SHOWN = (
    (0.0, 0.03, 0.10, 0.16, 0.25, 0.45, 0.68, 1.0),
    (0, 0.05, 0.4, 0.95, 0.85, 0.6, 0.3, 0.5),
)
"""The curve over the grey levels: fluid 0.10 to 0.22, grey matter 0.4 to 0.5, white to 0.78."""
QUIET: dict[str, Any] = {"callbacks": [], "sample_every": 0, "bound_images": 0}
IMAGES_A_SECOND = (40, 130)  # of 32 pixels: trained, and drawn by one call; two cores


@dataclass(frozen=True)
class Way:
    """How the 200 images are trained on.

    Args:
        init: Whether it begins with the run on the 4,096 heads.
        train: Keys of that section, over those of `tiny`.
        seeds: How many.
        early: Whether it is also drawn from after a fifth of the steps.
    """

    init: bool = True
    train: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = 1
    early: bool = False


WAYS = {
    "nothing": Way(init=False, seeds=3, early=True),
    "heads": Way(seeds=3, early=True),
    "heads, rate 3e-4": Way(train={"learning_rate": 3e-4}),
    "heads, rate 1e-4": Way(train={"learning_rate": 1e-4}),
    "heads, average 0.98": Way(train={"ema_decay": 0.98}),
    "heads, average 0.999": Way(train={"ema_decay": 0.999}),
}


@dataclass(frozen=True)
class Scale:
    """How much is done, on images of how many pixels."""

    source_steps: int
    steps: int
    drawn: int
    side: int


FULL, SHORT = (600, 500, 256), (20, 10, 64)


class OtherContrast:
    """Heads of seed 1 through the curve, from one number on.

    Args:
        first: Number of the first.
        count: How many.
        side: Pixels.
    """

    channels, class_names = 1, ()

    def __init__(self, first: int, count: int, side: int) -> None:
        table = {"name": "phantom", "seed": 1, "length": first + count}
        self.heads: Any = ssmdiff.create("dataset", table, image_size=(side, side))
        self.first, self.count = first, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> ssmdiff.ImageItem:
        head = self.heads[self.first + index].image.numpy()
        shown = np.interp((head + 1) / 2, STORED, SHOWN).astype(np.float32)
        return ssmdiff.ImageItem(torch.from_numpy(2 * shown - 1))


class Judge:
    """Holds images against heads of the other contrast that nothing was trained on."""

    def __init__(self, side: int) -> None:
        reference = DataImages(OtherContrast(IMAGES + FRESH, REFERENCE, side))
        self.networks = {name: ssmdiff.create("features", name) for name in FEATURES}
        self.known = {}
        for name, network in self.networks.items():
            network.fit(reference)
            self.known[name] = self._features(name, reference.levels(range(REFERENCE)))

    def _features(self, name: str, levels: Levels) -> NDArray[np.floating]:
        parts = np.split(levels, range(256, len(levels), 256))
        return np.concatenate([self.networks[name](part) for part in parts])

    def figures(self, levels: Levels) -> dict[str, Any]:
        """Distances with their intervals."""
        found: dict[str, Any] = {"images": len(levels)}
        for name in FEATURES:
            estimate = frechet_estimate(self.known[name], self._features(name, levels))
            found[name] = round(estimate.value, 4)
            found[f"{name}_interval"] = [round(end, 4) for end in estimate.interval]
        return found


def pictures(folder: Path, side: int) -> None:
    """The 200 images as PNG, written once."""
    images = OtherContrast(0, IMAGES, side)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(IMAGES):
        path = folder / f"{i:03d}.png"
        if not path.exists():
            ssmdiff.write_image(path, images[i].image)


def source(scale: Scale, runs: Path) -> None:
    """The run on 4,096 heads."""
    train = {**QUIET, "steps": scale.source_steps, "checkpoint_every": scale.source_steps}
    asked = {"train": train, "data": {"image_size": scale.side}}
    trained(ssmdiff.resolve(ssmdiff.load_preset("tiny"), asked), runs / "source")


def config_of(name: str, seed: int, scale: Scale, runs: Path) -> ssmdiff.Config:
    """The configuration of a training on the 200 images; they are mirrored, as the heads are."""
    way = WAYS[name]
    init = {"init_from": str(runs / "source")} if way.init else {}
    train = {**QUIET, "steps": scale.steps, "checkpoint_every": scale.steps // 5,
             "keep_checkpoints": 6, **init, **way.train}  # fmt: skip
    folder = {"name": "folder", "path": str(runs / "images")}
    data = {"dataset": folder, "flip": True, "image_size": scale.side}
    preset = ssmdiff.load_preset("tiny")
    return ssmdiff.resolve(preset, {"seed": seed, "data": data, "train": train})


def cell(name: str, seed: int, judge: Judge, scale: Scale, runs: Path) -> list[dict[str, Any]]:
    """The rows of one training: at its end, and early where that is asked for."""
    config = config_of(name, seed, scale, runs)
    folder = runs / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
    took = trained(config, folder)
    rows = []
    for step in [scale.steps // 5, scale.steps] if WAYS[name].early else [scale.steps]:
        kept = folder / "drawn" / f"{step}.npy"
        if not kept.is_file():
            run = ssmdiff.open_model(folder, f"step-{step:08d}")
            images = run.sample(scale.drawn, seed=0, batch_size=32)
            kept.parent.mkdir(exist_ok=True)
            np.save(kept, to_levels(images.numpy()))
        row = {
            "way": name,
            "seed": seed,
            "step": step,
            "batch_size": config.train.batch_size,
            "learning_rate": config.train.learning_rate,
            "average": config.train.ema_decay,
            **judge.figures(np.load(kept, allow_pickle=False)),
            "training_s": took and round(took[0], 1),
            "load_average": load_average(),
        }
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def cost_s(cells: Sequence[tuple[str, int]], scale: Scale, runs: Path) -> float:
    """About how long these take on two cores that do nothing else."""
    trains, draws = IMAGES_A_SECOND
    there = (runs / "source" / "checkpoints").is_dir()
    total = 0.0 if there else scale.source_steps * 16 / trains
    for name, _ in cells:
        drawn = scale.drawn * (1 + WAYS[name].early)
        total += scale.steps * 16 / trains + drawn * 25 / draws
    return total * (scale.side / 32) ** 2


def picture(runs: Path, scale: Scale, target: Path) -> None:
    """Sixteen of the 200 images, and sixteen drawn of each seed from nothing and from the heads."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    kept = {
        (way, seed): runs / f"{way}-{seed}" / "drawn" / f"{scale.steps}.npy"
        for way in ("nothing", "heads")
        for seed in range(3)
    }
    seeds = [s for s in range(3) if kept["nothing", s].is_file() and kept["heads", s].is_file()]
    if not seeds:
        return
    size = (3.1 * (len(seeds) + 1), 6.6)
    figure, axes = plt.subplots(2, len(seeds) + 1, figsize=size, layout="constrained")
    for line, way in zip(axes, ("nothing", "heads"), strict=True):
        for axis, seed in zip(line, seeds, strict=False):
            grid(axis, np.load(kept[way, seed], allow_pickle=False))
            axis.set_title(f"from {'the run on heads' if way == 'heads' else way}, seed {seed}")
        line[-1].axis("off")
    grid(axes[0, -1], DataImages(OtherContrast(0, IMAGES, scale.side)).levels(range(16)))
    axes[0, -1].set_title(f"of the {IMAGES} images")
    begun: Any = ssmdiff.create("dataset", "phantom", image_size=(scale.side,) * 2)
    grid(axes[1, -1], DataImages(begun).levels(range(16)))
    axes[1, -1].set_title("of the 4,096 heads before")
    figure.savefig(target, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seeds", nargs="+", type=int, choices=range(3), default=[0, 1, 2])
    parser.add_argument("--side", type=int, default=32, help="pixels of the images")
    parser.add_argument("--short", action="store_true", help="few steps, to prove that it runs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=Path, help="where the runs lie")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    scale = Scale(*(SHORT if arguments.short else FULL), arguments.side)
    name = "init_from" if scale.side == 32 else f"init_from_{scale.side}"
    runs = arguments.runs or ROOT / "runs" / (f"{name}_short" if arguments.short else name)
    out, plot = ROOT / "benchmarks/results" / f"{name}.json", ROOT / "docs/images" / f"{name}.png"
    if arguments.short:
        out, plot = runs / out.name, runs / plot.name
    runs.mkdir(parents=True, exist_ok=True)
    record = {"machine": machine(), "steps": scale.steps, "source_steps": scale.source_steps,
              "images": IMAGES, "side": scale.side, "real": {}, "rows": []}  # fmt: skip
    if out.is_file():
        record |= json.loads(out.read_text())
    cells = [(name, s) for s in arguments.seeds for name in arguments.only if s < WAYS[name].seeds]
    there = {(row["way"], row["seed"]) for row in record["rows"]}
    missing = [one for one in cells if one not in there]
    print(
        f"{len(missing)} trainings of {len(cells)}, about "
        f"{cost_s(missing, scale, runs) / 60:.0f} minutes on two cores that do nothing else",
        flush=True,
    )
    if missing:
        pictures(runs / "images", scale.side)
        source(scale, runs)
        judge = Judge(scale.side)
        for name, first, count in (("fresh heads", IMAGES, FRESH), ("the 200", 0, IMAGES)):
            real = DataImages(OtherContrast(first, count, scale.side)).levels(range(count))
            record["real"][name] = judge.figures(real)
        for name, seed in missing:
            record["rows"] += cell(name, seed, judge, scale, runs)
            ssmdiff.write_atomically(out, (json.dumps(record, indent=1) + "\n").encode())
    picture(runs, scale, plot)


if __name__ == "__main__":
    main()
