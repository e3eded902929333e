"""Draws docs/images/gans.png: samples of trained runs in a row each, real images above.

python docs/make_gans.py RUN [RUN ...]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import ssmdiff
from PIL import Image, ImageDraw

COUNT, SCALE, GAP, LEFT = 12, 2, 3, 96


def main(paths: list[str]) -> None:
    runs = [ssmdiff.load_run(path) for path in paths]
    dataset = ssmdiff.build_dataset(runs[0].config)
    real = np.stack([dataset[i].image.numpy() for i in range(COUNT)])
    rows = {"real": real}
    for run in runs:
        rows[ssmdiff.parts_of(run.config.to_dict())["gan"]] = run.sample(COUNT).numpy()
    side = real.shape[-1] * SCALE
    page = Image.new("L", (LEFT + COUNT * (side + GAP), len(rows) * (side + GAP)), 255)
    pen = ImageDraw.Draw(page)
    for r, (name, images) in enumerate(rows.items()):
        top = r * (side + GAP)
        pen.text((6, top + side // 2 - 6), name, fill=0)
        for i, levels in enumerate(ssmdiff.to_levels(images)[:, 0]):
            one = Image.fromarray(levels).resize((side, side), Image.Resampling.NEAREST)
            page.paste(one, (LEFT + i * (side + GAP), top))
    page.save(Path(__file__).parent / "images" / "gans.png", optimize=True)


main(sys.argv[1:])
