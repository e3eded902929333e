"""Copies of training images: a run that learnt 64 heads by heart, one of 4,096, and fresh heads.

    python benchmarks/copies.py [--steps 3000]     # some minutes on two cores

Two runs of one setting, at 16 pixels with a small network, which differ in how many heads they are
trained on. `ssmdiff evaluate` looks for copies among 256 images of each, by `contrastive` features
that are learnt from the run's own training images. Heads that come after those held out, which
neither run ever saw, go the same way as a folder of images, against both, and so do the training
heads themselves with a little noise. A training that was stopped goes on. Writes
benchmarks/results/copies.json.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Before torch loads OpenMP, as the command line does it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import ssmdiff
import torch
from ssmdiff.runs.pictures import write_image
from ssmdiff_bench.machine import machine
from ssmdiff_data.phantom import HELD_OUT

ROOT = Path(__file__).parents[1]
LENGTHS = (64, 4096)
SIDE = 16
COUNT = 256  # images that are judged
NOISE = 4.0  # levels of 255, standard deviation
METRICS = ("copies", "nearness", "frechet")


def setting(length: int, steps: int) -> ssmdiff.Config:
    """The one setting; ``length`` is how many heads are trained on."""
    return ssmdiff.resolve(
        ssmdiff.load_preset("tiny"),
        {
            "data": {
                "image_size": SIDE,
                "flip": False,
                "dataset": {"name": "phantom", "length": length},
            },
            "model": {"backbone": {"channels": 16}, "block": "conv"},
            "train": {
                "steps": steps,
                "checkpoint_every": 500,
                "sample_every": 0,
                "bound_images": 0,
                "callbacks": [],
            },
        },
    )


def trained(length: int, steps: int, runs: Path) -> Path:
    """A run of that many heads, trained or gone on with as far as it is not there."""
    folder = runs / f"heads-{length}"
    begun = folder.is_dir() and bool(ssmdiff.RunFolder(folder).checkpoint_paths())
    config = setting(length, steps)
    ssmdiff.train(config, folder, resume=begun, overwrite=folder.is_dir() and not begun)
    return folder


def heads_in(folder: Path, length: int, indices: Sequence[int], noise: float = 0.0) -> Path:
    """A folder of these heads of the data set, with noise of that standard deviation in levels."""
    table = {"name": "phantom", "length": length + HELD_OUT + COUNT}
    dataset: Any = ssmdiff.create("dataset", table, image_size=(SIDE, SIDE))
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    for place, i in enumerate(indices):
        image = dataset[i].image
        image = image + noise / 127.5 * torch.randn(image.shape, generator=generator)
        write_image(folder / f"head-{place:04d}.png", image.clamp(-1, 1))
    return folder


def judged(what: Path, against: Path, out: Path, name: str, length: int) -> dict[str, Any]:
    """What `evaluate` says of it."""
    newest = ssmdiff.RunFolder(against).checkpoint_paths()[0].name
    record = ssmdiff.job("evaluate")(
        what, against, out, n=COUNT, features=["contrastive"], metrics=METRICS
    )
    copies = record.find("copies")
    row = {
        "what": name,
        "training_heads": length,
        "trained_to": newest,
        "images": COUNT,
        "called_copies": copies.value,
        "fresh_share": copies.details["fresh_share"],
        "bound": copies.details["fresh_bound"],
        "threshold": copies.details["threshold"],
        "memorised": copies.details["memorised_share"],
        "copying": copies.details["copying"],
    }
    for figure in ("authenticity", "distance ratio", "C_T", "FD contrastive (n = "):
        try:
            found = record.find(figure)
        except ssmdiff.ConfigError:  # no cell of C_T has enough images
            continue
        row[figure.removesuffix(" (n = ")] = [found.value, found.reference]
    print(json.dumps(row), flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/copies")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/copies.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    images = 2 * arguments.steps * setting(64, 1).train.batch_size
    print(f"two trainings, {images:,} images of {SIDE} pixels in all", flush=True)
    rows = []
    for length in LENGTHS:
        run = trained(length, arguments.steps, arguments.runs)
        judgements = run / "evaluations"
        after = range(length + HELD_OUT, length + HELD_OUT + COUNT)
        fresh = heads_in(arguments.runs / f"fresh-{length}", length, after)
        copied = [i % length for i in range(COUNT)]
        copies = heads_in(arguments.runs / f"copied-{length}", length, copied, NOISE)
        rows.append(judged(run, run, judgements / "run", f"run of {length} heads", length))
        rows.append(judged(fresh, run, judgements / "fresh", "fresh heads", length))
        rows.append(judged(copies, run, judgements / "copied", "training heads, noise", length))
    record = {"machine": machine(), "side": SIDE, "rows": rows}
    ssmdiff.write_atomically(arguments.out, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
