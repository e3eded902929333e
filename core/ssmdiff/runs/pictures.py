"""Images as files: 8-bit PNG for people, ``.npy`` for programs."""

from __future__ import annotations

import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from torch import Tensor

from ssmdiff.errors import ConfigError
from ssmdiff.runs.checkpoint import write_atomically


def to_uint8(image: Tensor) -> np.ndarray:
    """(C, H, W) in -1 .. 1 to (H, W) or (H, W, 3) uint8, rounded to the nearest level.

    Raises:
        ConfigError: Not a 2-D image of one or three channels.
    """
    if image.dim() != 3 or image.shape[0] not in (1, 3):
        raise ConfigError(
            f"a PNG shows (1, H, W) or (3, H, W), got {tuple(image.shape)}; write .npy instead"
        )
    levels = ((image.float() + 1) * 127.5).round().clamp(0, 255).numpy().astype(np.uint8)
    return levels[0] if len(levels) == 1 else np.moveaxis(levels, 0, -1)


def to_png(levels: np.ndarray) -> bytes:
    """(H, W) or (H, W, 3) uint8 as a PNG: its header, one chunk of unfiltered rows, its end.

    Here, because a run is to be sampled where no imaging library is installed; readers of images
    belong to the data sets.
    """
    height, width = levels.shape[:2]
    colour = 0 if levels.ndim == 2 else 2
    rows = np.zeros((height, 1 + levels[0].size), np.uint8)  # each row begins with its filter, none
    rows[:, 1:] = levels.reshape(height, -1)
    chunks = (
        (b"IHDR", struct.pack(">2I5B", width, height, 8, colour, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows.tobytes(), 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def write_image(path: Path, image: Tensor) -> None:
    """One image (C, H, W) in -1 .. 1: ``.png``, or ``.npy`` as float32; whole or not at all."""
    buffer = io.BytesIO()
    if path.suffix == ".npy":
        np.save(buffer, image.float().numpy(), allow_pickle=False)
    else:
        buffer.write(to_png(to_uint8(image)))
    write_atomically(path, buffer.getvalue())


def write_grid(path: Path, images: Tensor) -> None:
    """(n, C, H, W) in -1 .. 1 as one PNG, near square, two pixels apart, small images enlarged."""
    n, channels, height, width = images.shape
    columns = math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    gap = 2
    sheet = images.new_full(
        (channels, rows * (height + gap) + gap, columns * (width + gap) + gap), -1.0
    )
    for i, image in enumerate(images):
        top, left = (gap + place * (side + gap) for place, side in zip(
            divmod(i, columns), (height, width), strict=True
        ))  # fmt: skip
        sheet[:, top : top + height, left : left + width] = image
    scale = max(1, 96 // max(height, width))
    write_image(path, sheet.repeat_interleave(scale, 1).repeat_interleave(scale, 2))
