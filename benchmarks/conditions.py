"""What models do of what they are told: labels and guidance, findings, numbers, masks, images.

    python benchmarks/conditions.py            # says first how long it will take
    python benchmarks/conditions.py --only label mask
    python benchmarks/conditions.py --only label --batch-size 64    # a row of its own

A training of `tiny` on the built-in heads for each, and what comes of it read by networks that were
trained on other heads (benchmarks/head_readers.py), beside what they say of real ones. What is in
the result already is not done again, and a training that was stopped goes on. On a GPU if there is
one. Writes benchmarks/results/conditions.json and docs/images/conditions-*.png.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# Before torch loads OpenMP, as the command line does it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import head_readers as readers_of
import numpy as np
import ssmdiff
import torch
from conditions_pictures import SHOWN, pictures
from head_readers import FINDINGS, NUMBERS, SIDE, Readers, accuracies, areas, correlations, dice
from numpy.typing import NDArray
from presets import trained
from ssmdiff_bench.machine import load_average, machine
from ssmdiff_data.phantom import PhantomDataset
from ssmdiff_evaluate.sets import DataImages
from ssmdiff_export.runtime import OnnxSampler
from ssmdiff_metrics.frechet import frechet_estimate
from ssmdiff_metrics.paired import peak_ratio, similarity
from torch import Tensor

ROOT = Path(__file__).parents[1]
TRAININGS: dict[str, list[str]] = {
    "label": ["label"],
    "findings": ["findings"],
    "numbers": list(NUMBERS),
    "mask": ["mask"],
    "low": ["low"],
}
"""What each model is told."""
SCALES = (0.0, 1.0, 2.0, 4.0, 8.0)
BATCH = 16
DRAWN, PAIRED = 256, 64  # images of a set that is judged as one, and of one held against targets
TRAINED_A_SECOND, DRAWN_A_SECOND = 40, 130  # of `tiny`, images of one call; two cores
QUIET: dict[str, Any] = {"callbacks": [], "sample_every": 0, "bound_images": 0}
Numbers = dict[str, Any]


def config_of(name: str, steps: int, batch_size: int) -> ssmdiff.Config:
    """The configuration of a training."""
    train = {**QUIET, "steps": steps, "batch_size": batch_size, "checkpoint_every": 300}
    return ssmdiff.resolve(
        ssmdiff.load_preset("tiny"),
        {
            "model": {"conditions": TRAININGS[name]},
            "train": {**train, "condition_dropout": 0.1},
        },
    )


class Drawing:
    """Images of a run, each set once: what was drawn lies beside the run."""

    def __init__(self, folder: Path) -> None:
        self.run, self.folder = ssmdiff.open_model(folder), folder

    def __call__(
        self, name: str, count: int, told: Mapping[str, Any], scale: float = 1.0, **options: Any
    ) -> Tensor:
        """(count, 1, H, W): images 0 to count - 1 of seed 0."""
        kept = self.folder / "drawn" / f"{name}-{count}-{scale:g}.npy"
        if not kept.is_file():
            if scale != 1:
                options["guidance"] = ssmdiff.Guidance(scale)
            images = self.run.sample(count, seed=0, told=dict(told), batch_size=32, **options)
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.save(kept, images.numpy())
        return torch.from_numpy(np.load(kept, allow_pickle=False))


class Judge:
    """Real heads, and what is held against them."""

    def __init__(self, readers: Readers) -> None:
        self.readers, data = readers, PhantomDataset((SIDE, SIDE))
        self.fresh = [data.held_out[i] for i in range(DRAWN)]
        self.texture = ssmdiff.create("features", "texture")
        real = DataImages(data)
        self.texture.fit(real)
        self.known = self._features(real.levels(range(len(real))))

    def _features(self, levels: NDArray[np.uint8]) -> NDArray[np.floating]:
        parts = np.split(levels, range(256, len(levels), 256))
        return np.concatenate([self.texture(part) for part in parts])

    def images(self, count: int) -> Tensor:
        """Real heads that no model saw."""
        return torch.stack([item.image for item in self.fresh[:count]])

    def told(self, name: str, count: int) -> list[Any]:
        """What is known of them."""
        return [item.told[name] for item in self.fresh[:count]]

    def of_a_set(self, images: Tensor, labels: Sequence[int]) -> Numbers:
        """Does it look real, does it follow its labels, how different are images of one label."""
        levels = ssmdiff.to_levels(images.numpy())
        estimate = frechet_estimate(self.known, self._features(levels))
        lesions = self.readers.findings(images)[:, FINDINGS.index("lesion")]
        return {
            "accuracy": round(float((lesions == np.array(labels, bool)).mean()), 4),
            "texture": round(estimate.value, 4),
            "texture_interval": [round(end, 4) for end in estimate.interval],
            "diversity": round(self.diversity(images, labels), 4),
        }

    def diversity(self, images: Tensor, labels: Sequence[int]) -> float:
        """Mean distance of two images of one label, as a share of that of two real ones."""
        own = _spread(images, labels)
        fresh = self.fresh[: len(images)]
        return own / _spread(self.images(len(fresh)), [item.label for item in fresh])


def _spread(images: Tensor, labels: Sequence[int]) -> float:
    """Mean root mean square difference over all pairs of different images of one label."""
    found = []
    for label in sorted(set(labels)):
        flat = images[torch.tensor([x == label for x in labels])].flatten(1)
        found.append(float(torch.pdist(flat).mean()) / flat.shape[1] ** 0.5)
    return float(np.mean(found))


def of_labels(draw: Drawing, judge: Judge) -> Numbers:
    """The trade of guidance; and half a head filled in."""
    labels = [i % 2 for i in range(DRAWN)]
    table: Numbers = {"real": judge.of_a_set(judge.images(DRAWN), _labels(judge))}
    for scale in SCALES:
        images = draw("label", DRAWN, {"label": labels}, scale)
        table[f"{scale:g}"] = judge.of_a_set(images, labels)
    for scale in SCALES[1:]:  # the same noise with and without, for the picture
        for label, word in enumerate(("without", "with")):
            draw(word, SHOWN, {"label": label}, scale)
    return {
        "guidance": table,
        "onnx": of_a_file(draw),
        "filling_in": of_filling_in(draw, judge),
    }


def of_a_file(draw: Drawing) -> Numbers:
    """The same images by torch and by an ONNX file, guided, both on the CPU."""
    run, path = ssmdiff.load_run(draw.folder), draw.folder / "model.onnx"
    if not path.is_file():
        ssmdiff.job("export")(run, path)
    asked: Numbers = {"told": {"label": [0, 1]}, "guidance": ssmdiff.Guidance(2.0)}
    torchs = run.sample(8, seed=0, **asked).numpy()
    files = OnnxSampler(path).sample(8, seed=0, **asked)
    return {"guidance": 2.0, "images": 8, "largest_difference": float(np.abs(torchs - files).max())}


def _labels(judge: Judge) -> list[int]:
    return [item.label for item in judge.fresh]


def of_filling_in(draw: Drawing, judge: Judge) -> Numbers:
    """Half of each head, drawn anew; beside it the other half, mirrored."""
    real = judge.images(PAIRED)
    unknown = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    unknown[..., SIDE // 2 :] = True
    labels = [item.label for item in judge.fresh[:PAIRED]]
    course = ssmdiff.FillIn([x.numpy() for x in real], [unknown.numpy()], repeats=3, jump=5)
    images = draw("filled", PAIRED, {"label": labels}, course=course)
    known = ~unknown.expand_as(real)
    half = SIDE // 2
    return {
        "known_pixels_that_differ": int((images[known] != real[known]).sum()),
        "drawn_half": paired(images[..., half:], real[..., half:]),
        "mirrored_half": paired(real[..., :half].flip(-1), real[..., half:]),
        "lesion_accuracy": accuracies(judge.readers.findings(images), _given(judge, PAIRED))[
            "lesion"
        ],
    }


def _given(judge: Judge, count: int) -> NDArray[np.bool_]:
    """(N, findings): those of the real heads."""
    given = judge.told("findings", count)
    return np.array([[k in found for k in range(len(FINDINGS))] for found in given])


def paired(images: Tensor, targets: Tensor) -> Numbers:
    """Each image against its target, means over images."""
    pairs = [
        (ssmdiff.to_levels(x.numpy()), ssmdiff.to_levels(y.numpy()))
        for x, y in zip(images, targets, strict=True)
    ]
    return {
        "psnr_db": round(float(np.mean([peak_ratio(x, y) for x, y in pairs])), 3),
        "ssim": round(float(np.mean([similarity(x, y) for x, y in pairs])), 4),
        "mae": round(float((images - targets).abs().mean()) / 2, 5),
    }


def of_findings(draw: Drawing, judge: Judge) -> Numbers:
    """Each finding as it was told, whatever the others are."""
    told = {"findings": [list(found) for found in judge.told("findings", DRAWN)]}
    given, found = _given(judge, DRAWN), {}
    for scale in (1.0, 2.0, 4.0):
        scores = judge.readers.scores(draw("findings", DRAWN, told, scale))
        found[f"{scale:g}"] = {
            "accuracy": accuracies(scores > 0, given),
            "area": areas(scores, given),
        }
    return found


def of_numbers(draw: Drawing, judge: Judge) -> Numbers:
    """Size and angle, told independently of each other."""
    given = {name: judge.told(name, DRAWN) for name in NUMBERS}
    return {
        f"{scale:g}": correlations(
            judge.readers.numbers(draw("numbers", DRAWN, given, scale)), given
        )
        for scale in (1.0, 2.0)
    }


def of_masks(draw: Drawing, judge: Judge) -> Numbers:
    """The mask that was told, against the mask of the head that was drawn."""
    masks = judge.told("mask", PAIRED)
    given = np.stack([mask.numpy() for mask in masks])
    found: Numbers = {"real": dice(judge.readers.masks(judge.images(PAIRED)), given)}
    for scale in (1.0, 2.0):
        images = draw("mask", PAIRED, {"mask": list(given)}, scale)
        found[f"{scale:g}"] = dice(judge.readers.masks(images), given)
    return found


def of_low(draw: Drawing, judge: Judge) -> Numbers:
    """Back to the full resolution; the picture that was told is the baseline."""
    low = torch.stack(judge.told("low", PAIRED))
    images = draw("low", PAIRED, {"low": [x.numpy() for x in low]})
    real = judge.images(PAIRED)
    return {"drawn": paired(images, real), "copy": paired(low, real)}


MEASURES: dict[str, Callable[[Drawing, Judge], Numbers]] = {
    "label": of_labels,
    "findings": of_findings,
    "numbers": of_numbers,
    "mask": of_masks,
    "low": of_low,
}


def cost_s(names: Sequence[str], images: int) -> float:
    """About how long these take on two cores that do nothing else."""
    guided = DRAWN * (2 * len(SCALES) - 2)  # one call where the scale is 0 or 1
    calls = {"label": guided + PAIRED * 3, "findings": DRAWN * 5, "numbers": DRAWN * 3}
    calls |= {"mask": PAIRED * 3, "low": PAIRED}
    drawn = sum(25 * calls[name] for name in names)
    return len(names) * images / TRAINED_A_SECOND + drawn / DRAWN_A_SECOND


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=TRAININGS, default=list(TRAININGS))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=BATCH)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/conditions")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/conditions.json")
    parser.add_argument("--pictures", type=Path, default=ROOT / "docs/images")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    record: Numbers = {"machine": machine(), "steps": arguments.steps, "rows": {}}
    if arguments.out.is_file():
        record |= json.loads(arguments.out.read_text())
    if record["steps"] != arguments.steps:
        parser.error(f"{arguments.out} is of {record['steps']} steps; give another --out")
    batch = arguments.batch_size
    suffix, words = ("", "") if batch == BATCH else (f"-{batch}", f", batches of {batch}")
    missing = [name for name in arguments.only if name + words not in record["rows"]]
    print(
        f"{len(missing)} trainings of {arguments.steps} steps, about "
        f"{cost_s(missing, arguments.steps * batch) / 60:.0f} minutes on two cores that do nothing "
        "else, and some for the readers where they are not there",
        flush=True,
    )
    readers = Readers(arguments.runs / "readers.pt")
    if "readers" not in record:
        record["readers"] = readers_of.on_real(readers)
        _write(arguments.out, record)
    judge = Judge(readers)
    for name in missing:
        folder = arguments.runs / f"{name}-{arguments.steps}{suffix}"
        took = trained(config_of(name, arguments.steps, batch), folder)
        begin = time.perf_counter()
        found = MEASURES[name](Drawing(folder), judge)
        record["rows"][name + words] = {
            "told": TRAININGS[name],
            "images_seen": arguments.steps * batch,
            **found,
            "training_s": took and round(took[0], 1),
            "drawing_s": round(time.perf_counter() - begin, 1),
            "load_average": load_average(),
        }
        print(json.dumps({name + words: record["rows"][name + words]}), flush=True)
        _write(arguments.out, record)
    pictures(arguments.runs, arguments.steps, judge, arguments.pictures)


def _write(path: Path, record: Mapping[str, Any]) -> None:
    ssmdiff.write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
