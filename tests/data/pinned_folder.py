"""Pictures of every kind, and digests of what the data set ``folder`` makes of them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import ssmdiff
from PIL import Image

OPTIONS: dict[str, dict[str, Any]] = {
    "grey": {},
    "deep": {},
    "palette": {},
    "colour": {"channels": 1},
    "alpha": {"alpha": "white"},
    "alpha over a window": {"alpha": "black", "value_range": [20, 200], "clip": True},
    "grey alpha": {"alpha": "white"},
    "bits": {},
    "turned": {},
    "float": {"value_range": [-2, 2], "clip": True},
    "signed": {"value_range": [-1000, 2000]},
    "wide": {"value_range": [0, 2**31]},
    "white is zero": {},
    "third axis": {"channels": 3},
}


def _write(name: str, folder: Path) -> None:
    draw = np.random.default_rng(len(name))
    grey = draw.integers(0, 256, (20, 14), dtype=np.uint8)
    colour = draw.integers(0, 256, (20, 14, 4), dtype=np.uint8)
    deep = draw.integers(0, 65536, (20, 14), dtype=np.uint16)
    match name:
        case "grey":
            Image.fromarray(grey).save(folder / "a.png")
        case "deep":
            Image.fromarray(deep).save(folder / "a.png")
            Image.fromarray(deep).save(folder / "b.tif", compression="tiff_lzw")
        case "palette":
            Image.fromarray(colour[..., :3]).convert("P").save(folder / "a.png")
        case "colour":
            Image.fromarray(colour[..., :3]).save(folder / "a.png")
        case "alpha" | "alpha over a window":
            Image.fromarray(colour).save(folder / "a.png")
        case "grey alpha":
            Image.fromarray(colour).convert("LA").save(folder / "a.png")
        case "bits":
            Image.fromarray(grey > 100).save(folder / "a.png")
        case "turned":
            exif = Image.Exif()
            exif[274] = 6
            Image.fromarray(grey).save(folder / "a.png", exif=exif)
            Image.fromarray(grey).save(folder / "b.tif", exif=exif)
        case "float":
            np.save(folder / "a.npy", draw.normal(size=(20, 14)))
        case "signed":
            np.save(folder / "a.npy", draw.integers(-1000, 2000, (20, 14), dtype=np.int16))
        case "wide":
            np.save(folder / "a.npy", draw.integers(0, 2**31, (20, 14), dtype=np.uint32))
        case "white is zero":
            Image.fromarray(deep).save(folder / "a.tif", tiffinfo={262: 0})
            Image.fromarray(grey).save(folder / "b.tif", tiffinfo={262: 0})
        case "third axis":
            np.save(folder / "a.npy", grey[..., None])
            np.save(folder / "b.npy", colour[..., :3])


def digests(root: Path) -> dict[str, str]:
    """Of the fingerprint and every pixel, at the size of the files: nothing is resampled."""
    found = {}
    for name, options in OPTIONS.items():
        folder = root / name
        folder.mkdir()
        _write(name, folder)
        size = (14, 20) if name == "turned" else (20, 14)
        spec = {"name": "folder", "path": str(folder), **options}
        data = ssmdiff.create("dataset", spec, image_size=size)
        digest = hashlib.sha256(data.fingerprint().encode())
        for i in range(len(data)):
            digest.update(data[i].image.numpy().tobytes())
        found[name] = digest.hexdigest()[:16]
    return found
