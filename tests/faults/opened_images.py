"""Images of every format that the folder data set reads, to be damaged and read."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import mutations
import numpy as np
import ssmdiff
import torch
from fuzzing import Mutate, Opener
from PIL import Image

SIDE = 24


def _image(form: str, **options: Any) -> bytes:
    values = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    mode = options.pop("mode", "RGB")
    file = io.BytesIO()
    picture = Image.fromarray(values).convert(mode)
    if mode == "I;16":
        picture = Image.fromarray(values[..., 0].astype(np.uint16) * 200)
    if form == "npy":
        np.save(file, values[..., 0])
    else:
        picture.save(file, form, **options)
    return file.getvalue()


def _open_images(folder: Path) -> list[Any]:
    data = ssmdiff.create(
        "dataset", {"name": "folder", "path": str(folder), "max_pixels": 10_000, "alpha": "black"},
        image_size=(16, 16),
    )  # fmt: skip
    return [data.channels, *(data[i] for i in range(len(data)))]


def _images_are_images(folder: Path, found: list[Any]) -> None:
    channels, *items = found
    assert 1 <= len(items) <= 1
    for item in items:
        assert item.image.shape == (channels, 16, 16)
        assert item.image.dtype == torch.float32
        assert math.isfinite(float(item.image.sum()))
        assert float(item.image.abs().max()) <= 1 + 1e-5


def images() -> dict[str, Opener]:
    forms: dict[str, tuple[bytes, Mutate]] = {
        "grey.png": (_image("PNG", mode="L"), mutations.png),
        "deep.png": (_image("PNG", mode="I;16"), mutations.png),
        "palette.png": (_image("PNG", mode="P"), mutations.png),
        "alpha.png": (_image("PNG", mode="RGBA"), mutations.png),
        "colour.jpg": (_image("JPEG"), mutations.some_bytes),
        "deflate.tif": (_image("TIFF", compression="tiff_adobe_deflate"), mutations.tiff),
        "plain.tif": (_image("TIFF", mode="I;16"), mutations.tiff),
        "array.npy": (_image("npy"), mutations.npy),
    }
    return {
        f"image {name}": Opener({name: data}, {name: mutate}, _open_images, _images_are_images)
        for name, (data, mutate) in forms.items()
    }
