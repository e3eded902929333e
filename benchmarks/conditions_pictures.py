"""Pictures of docs/conditions.md, of what benchmarks/conditions.py drew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

SHOWN = 6
Row = tuple[str, Sequence[Any]]


def pictures(runs: Path, steps: int, judge: Any, target: Path) -> None:
    """Those whose images are there."""

    def drawn(name: str, kept: str) -> np.ndarray | None:
        path = next((runs / f"{name}-{steps}" / "drawn").glob(f"{kept}.npy"), None)
        return None if path is None else np.load(path, allow_pickle=False)[:, 0]

    real = judge.images(SHOWN * 2)[:, 0].numpy()
    rows: list[Row] = []
    for scale in (1, 2, 4, 8):
        for kept, word in (("without", "no lesion"), ("with", "lesion")):
            if (images := drawn("label", f"{kept}-*-{scale}")) is not None:
                rows.append((f"{word}, guidance {scale}", images))
    if rows:
        write(target / "conditions-lesion.png", rows)
    if (images := drawn("label", "filled-*")) is not None:
        given = real[:SHOWN].copy()
        given[..., given.shape[-1] // 2 :] = -1
        rows = [("a real head", real[:SHOWN]), ("half of it", given), ("filled in", images[:SHOWN])]
        write(target / "conditions-filled.png", rows)
    if (images := drawn("mask", "mask-*-1")) is not None:
        masks = np.stack([mask.numpy() for mask in judge.told("mask", SHOWN)])
        rows = [
            ("the mask", masks / masks.max() * 2 - 1),
            ("drawn from it", images[:SHOWN]),
            ("its real head", real[:SHOWN]),
        ]
        write(target / "conditions-mask.png", rows)
    if (images := drawn("low", "low-*")) is not None:
        low = torch.stack(judge.told("low", SHOWN))[:, 0].numpy()
        rows = [("low resolution", low), ("drawn", images[:SHOWN]), ("real", real[:SHOWN])]
        write(target / "conditions-low.png", rows)
    if (images := drawn("numbers", "numbers-*-1")) is not None:
        angles = np.array(judge.told("angle", len(images)))
        order = np.argsort(angles)[np.linspace(0, len(angles) - 1, SHOWN).astype(int)]
        write(
            target / "conditions-angle.png",
            [("told the angle", images[order])],
            [f"{angles[i]:.0f} degrees" for i in order],
        )


def write(path: Path, rows: Sequence[Row], over: Sequence[str] = ()) -> None:
    """Rows of images, each with its words at the left."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    title = 0.3 * bool(over)  # inches
    height = 1.1 * len(rows) + title
    figure, axes = plt.subplots(
        len(rows), SHOWN, figsize=(1.1 * SHOWN + 1.6, height), squeeze=False
    )
    for line, (words, images) in zip(axes, rows, strict=True):
        for axis, image in zip(line, images, strict=True):
            axis.imshow(image, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
            axis.axis("off")
        line[0].text(-0.1, 0.5, words, transform=line[0].transAxes, ha="right", va="center")
    for axis, word in zip(axes[0], over, strict=False):
        axis.set_title(word, fontsize=9)
    figure.subplots_adjust(0.24, 0, 1, 1 - title / height, wspace=0.02, hspace=0.02)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
