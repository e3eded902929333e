"""Folders of small images for studies, and what a key says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

PLANTED = ("DOE^JANE", "MRN-0042", "scan-of-jane-doe")
"""In the real files: a text chunk, another, and the name of the files."""


def write_images(
    folder: Path, n: int, *, smooth: bool, seed: int, side: int = 16, name: str = "{i:06d}"
) -> Path:
    """Noise, or what is smooth; real ones carry text chunks, a palette of metadata and a name."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(n):
        levels = rng.integers(0, 256, (side, side)).astype(np.uint8)
        if smooth:
            levels = (levels // 64 + np.arange(side, dtype=np.uint8)[:, None] * 8).astype(np.uint8)
        info = None
        if smooth:
            info = PngInfo()
            info.add_text("PatientName", PLANTED[0])
            info.add_itxt("Comment", PLANTED[1])
        path = folder / f"{name.format(i=i)}.png"
        Image.fromarray(levels).save(path, pnginfo=info, dpi=(72, 72) if smooth else None)
    return folder


def truths(key: Path) -> list[str]:
    return [image["kind"] for image in json.loads(key.read_text())["images"]]
