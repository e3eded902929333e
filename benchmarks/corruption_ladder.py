"""Does a figure grow worse as images do? Five corruptions in five strengths, every figure.

    python benchmarks/corruption_ladder.py         # ten minutes or so on two cores

The samples are 256 heads of 32 pixels that come after those of training and those held out. They
are blurred, given noise, robbed of contrast, of their lesions, or replaced by duplicates of one
another; each set goes through the three feature networks that need no download and all metrics of
`ssmdiff evaluate`, against 1,024 of the heads of the preset `tiny`. For every figure: Spearman's
rho between strength and how much worse the figure is, 1 where it sorts all five. Writes
benchmarks/results/corruption_ladder.json, and prints the matrix of docs/evaluate.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before torch loads OpenMP, as the command line does it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import ssmdiff
import torch
from numpy.typing import NDArray
from scipy import stats
from scipy.ndimage import gaussian_filter
from ssmdiff_bench.machine import machine
from ssmdiff_data.phantom import HELD_OUT
from ssmdiff_evaluate.evaluation import FEATURES, Network, Sets, components, judge
from ssmdiff_evaluate.sets import DataImages

ROOT = Path(__file__).parents[1]
Levels = NDArray[np.uint8]
LENGTH, REFERENCE, COUNT, SIDE = 4096, 1024, 256, 32
METRICS: tuple[Any, ...] = (
    {"name": "frechet", "infinite": False, "halves": False},
    {"name": "mmd", "subsets": 10, "subset_size": 250},
    "manifold",
    {"name": "ms-ssim", "pairs": 128},
    "copies",
    "nearness",
)
STRENGTHS: dict[str, tuple[float, ...]] = {
    "blur": (0.3, 0.5, 0.75, 1.0, 1.5),  # standard deviation, pixels
    "noise": (4, 8, 16, 32, 64),  # standard deviation, levels of 255
    "contrast": (0.95, 0.9, 0.8, 0.65, 0.5),  # share that is left, about the middle grey
    "lesions": (0.5, 0.4, 0.25, 0.1, 0.0),  # share of heads; 0.5 is that of the training
    "duplicates": (0.1, 0.25, 0.5, 0.75, 0.9),  # share of samples that stand there already
}


@dataclass
class Given:
    """Images that are there, as `evaluate` takes them."""

    images: Levels
    labels: None = None
    groups: None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.images.shape[1:]

    def __len__(self) -> int:
        return len(self.images)

    def levels(self, indices: Sequence[int]) -> Levels:
        return self.images[list(indices)]

    def digest(self) -> str:
        return hashlib.sha256(self.images.tobytes()).hexdigest()


class Fitted:
    """A feature network that is fitted already, once for all sets."""

    trained_on_reference = True

    def __init__(self, network: ssmdiff.FeatureNetwork, reference: ssmdiff.ImageSet) -> None:
        network.fit(reference)
        self.network = network

    def fit(self, reference: ssmdiff.ImageSet) -> None:
        """Nothing."""

    def __call__(self, levels: Levels) -> NDArray[np.floating]:
        return self.network(levels)

    def digest(self) -> str:
        return self.network.digest()


def heads() -> tuple[Levels, Levels]:
    """Healthy heads, and heads with a lesion, of those that come after the held-out ones."""
    first = LENGTH + HELD_OUT
    table = {"name": "phantom", "length": first + 2 * COUNT}
    dataset: Any = ssmdiff.create("dataset", table, image_size=(SIDE, SIDE))
    images = DataImages(dataset).levels(range(first, first + 2 * COUNT))
    return images[0::2], images[1::2]


def corrupted(kind: str, strength: float, healthy: Levels, sick: Levels) -> Levels:
    """256 heads of that corruption."""
    generator = np.random.default_rng(0)
    half = COUNT // 2
    clean = np.concatenate([healthy[:half], sick[:half]])[generator.permutation(COUNT)]
    if kind == "lesions":
        count = round(strength * COUNT)
        return np.concatenate([healthy[: COUNT - count], sick[:count]])
    if kind == "duplicates":
        kept = COUNT - round(strength * COUNT)
        return clean[np.arange(COUNT) % kept]
    grey = clean.astype(np.float64)
    change: dict[str, Callable[[], NDArray[np.float64]]] = {
        "blur": lambda: gaussian_filter(grey, (0, 0, strength, strength), mode="nearest"),
        "noise": lambda: grey + strength * generator.standard_normal(grey.shape),
        "contrast": lambda: 127.5 + strength * (grey - 127.5),
    }
    levels: Levels = np.rint(change[kind]()).clip(0, 255).astype(np.uint8)
    return levels


@contextmanager
def silent(what: str, total: int) -> Iterator[Callable[[int], None]]:
    yield lambda _: None


def measure(cache: Path) -> dict[str, Any]:
    """Every figure of every set: corruption -> strength -> features, figure -> value."""
    dataset = ssmdiff.build_dataset(ssmdiff.resolve(ssmdiff.load_preset("tiny")))
    reference, held_out = DataImages(dataset, REFERENCE), DataImages(dataset.held_out)
    healthy, sick = heads()
    chosen, metrics = components(FEATURES, METRICS)
    networks = {
        name: Network(Fitted(network.network, reference), network.options)
        for name, network in chosen.items()
    }
    found: dict[str, Any] = {}
    for kind, strengths in STRENGTHS.items():
        for strength in strengths:
            samples = Given(corrupted(kind, strength, healthy, sick))
            sets = Sets(reference, samples, held_out)
            record = judge(sets, networks, metrics, cache, {}, {}, silent)
            found.setdefault(kind, {})[str(strength)] = {
                f"{judged.features}: {plain(judged.figure.name, judged.features)}": {
                    "value": judged.figure.value,
                    "worse": worse(judged.figure),
                }
                for judged in record.figures
            }
            print(kind, strength, flush=True)
    return found


def plain(name: str, features: str) -> str:
    """A figure's name without its features and counts."""
    return name.split(" (n = ")[0].replace(f" {features}", "").split(" (n to")[0].strip() + (
        ", n to infinity" if "infinity" in name else ""
    )


def worse(figure: ssmdiff.Figure) -> float:
    """The figure, turned so that more is worse."""
    if figure.better == "reference" and figure.reference is not None:
        return abs(figure.value - figure.reference)
    return -figure.value if figure.better == "higher" else figure.value


def correlations(found: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """Figure -> corruption -> Spearman's rho; None where the figure never moves."""
    rho: dict[str, dict[str, float | None]] = {}
    for kind, by_strength in found.items():
        common = set.intersection(*(set(figures) for figures in by_strength.values()))
        for name in next(iter(by_strength.values())):
            values = [f[name]["worse"] for f in by_strength.values() if name in common]
            moves = len(set(values)) > 1
            known = float(stats.spearmanr(range(len(values)), values)[0]) if moves else None
            rho.setdefault(name, {})[kind] = known
    return rho


def table(rho: dict[str, dict[str, float | None]]) -> str:
    """Markdown: a row a figure, a cell the rho over texture / contrastive / pixels."""
    figures = list(dict.fromkeys(name.split(": ")[1] for name in rho))
    lines = [f"| figure | {' | '.join(STRENGTHS)} |", f"|---|{'---|' * len(STRENGTHS)}"]
    for figure in figures:
        cells = []
        for kind in STRENGTHS:
            of = [rho.get(f"{network}: {figure}", {}).get(kind) for network in FEATURES]
            several = [v for f, v in zip(FEATURES, of, strict=True) if f"{f}: {figure}" in rho]
            cells.append(" / ".join("-" if v is None else f"{v:.1f}" for v in several))
        lines.append(f"| {figure} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache", type=Path, default=ROOT / "runs/corruption_ladder")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks/results/corruption_ladder.json"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{sum(map(len, STRENGTHS.values()))} sets of {COUNT} images", flush=True)
    found = measure(arguments.cache)
    rho = correlations(found)
    record = {
        "machine": machine(),
        "images": COUNT,
        "reference": REFERENCE,
        "rho": rho,
        "figures": found,
    }
    ssmdiff.write_atomically(arguments.out, (json.dumps(record, indent=1) + "\n").encode())
    print(table(rho))


if __name__ == "__main__":
    main()
