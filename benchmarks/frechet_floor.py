"""The finite-sample floor of the Frechet distance: formula against simulation.

    python benchmarks/frechet_floor.py            # some minutes on two cores

Two samples of n images each from one Gaussian, of a white spectrum and of one that falls as 1/i,
d = 64, 256, 2048 and n from d/2 to 10 d. For each: the formula with the true spectrum, the mean of
distances that were drawn, and what an evaluation says that sees one sample alone: the formula or,
at n <= d, the simulation, from the spectrum fitted to that sample. Writes
benchmarks/results/frechet_floor.json and docs/images/frechet-floor.png.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ssmdiff import write_atomically
from ssmdiff_metrics.frechet import (
    Reference,
    floor,
    frechet_distance,
    moments,
    simulated_floor,
    unspread,
)

ROOT = Path(__file__).parents[1]
RATIOS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
FEWER = (0.5, 1.0, 2.0, 5.0, 10.0)  # of more than 1,000 features
SPECTRA = {"white": lambda i: np.ones_like(i), "1/i": lambda i: 1 / i}


def drawn(spectrum: NDArray[np.float64], n: int, repeats: int) -> list[float]:
    """Distances between pairs of samples of n images, drawn image by image."""
    found = []
    for repeat in range(repeats):
        generator = np.random.default_rng([n, spectrum.size, repeat])
        first, second = (
            generator.standard_normal((n, spectrum.size)) * np.sqrt(spectrum) for _ in range(2)
        )
        found.append(frechet_distance(first, second))
    return found


def as_evaluated(spectrum: NDArray[np.float64], n: int) -> float:
    """The floor that an evaluation states which knows one sample of n images."""
    generator = np.random.default_rng([7, n, spectrum.size])
    sample = generator.standard_normal((n, spectrum.size)) * np.sqrt(spectrum)
    fitted = unspread(Reference(moments(sample)).spectrum, n)
    if n > spectrum.size:
        return floor(fitted, n, n)
    return simulated_floor(fitted, n, n, repeats=2)[0]


def measure(dimensions: list[int]) -> list[dict[str, Any]]:
    rows = []
    for d in dimensions:
        for name, of in SPECTRA.items():
            spectrum = of(np.arange(1.0, d + 1))
            for ratio in FEWER if d > 1000 else RATIOS:
                n, started = int(ratio * d), time.perf_counter()
                repeats = 2 if d > 1000 else 10
                found = drawn(spectrum, n, repeats)
                rows.append(
                    {
                        "d": d,
                        "spectrum": name,
                        "n": n,
                        "formula": floor(spectrum, n, n),
                        "drawn": float(np.mean(found)),
                        "drawn_error": float(np.std(found, ddof=1) / np.sqrt(repeats)),
                        "repeats": repeats,
                        "as_evaluated": as_evaluated(spectrum, n),
                        "seconds": round(time.perf_counter() - started, 1),
                    }
                )
                print(json.dumps(rows[-1]), flush=True)
    return rows


def plot(rows: list[dict[str, Any]], target: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9.5, 4), sharey=True, layout="constrained")
    colours = dict(zip(sorted({row["d"] for row in rows}), ("C0", "C1", "C2"), strict=False))
    for axis, name in zip(axes, SPECTRA, strict=True):
        for d, colour in colours.items():
            of = [row for row in rows if row["d"] == d and row["spectrum"] == name]
            x = [row["n"] / d for row in of]
            for key, style in (("formula", "-"), ("as_evaluated", "x")):
                y = [row[key] / row["drawn"] for row in of]
                axis.plot(x, y, style, color=colour, label=f"d = {d}, {key.replace('_', ' ')}")
        axis.axhspan(0.94, 1.06, color="0.9", zorder=0)
        axis.axvline(1, color="0.6", linewidth=0.8)
        axis.set(xscale="log", xlabel="n / d", title=f"eigenvalues: {name}")
        axis.set_xticks(RATIOS, [f"{ratio:g}" for ratio in RATIOS])
        axis.minorticks_off()
    axes[0].set_ylabel("floor / mean of drawn distances")
    axes[1].legend(fontsize=8)
    figure.savefig(target, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--d", type=int, nargs="+", default=[64, 256, 2048])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/frechet_floor.json")
    parser.add_argument("--plot", type=Path, default=ROOT / "docs/images/frechet-floor.png")
    arguments = parser.parse_args()
    rows = measure(arguments.d)
    write_atomically(arguments.out, (json.dumps(rows, indent=1) + "\n").encode())
    plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
