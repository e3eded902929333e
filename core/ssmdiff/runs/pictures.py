"""Images as files: 8-bit PNG for people, ``.npy`` for programs."""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ssmdiff.errors import ConfigError
from ssmdiff.runs.checkpoint import write_atomically
from ssmdiff.runs.letters import lines


def to_levels(images: NDArray[np.floating]) -> NDArray[np.uint8]:
    """-1 to 1 as 8-bit levels, 0 to 255, rounded to the nearest: what a PNG of the image holds."""
    scaled = (images.astype(np.float32) + 1) * np.float32(127.5)
    levels: NDArray[np.uint8] = np.rint(scaled).clip(0, 255).astype(np.uint8)
    return levels


def to_uint8(image: Tensor) -> np.ndarray:
    """(C, H, W) in -1 .. 1 to (H, W) or (H, W, 3) uint8, by :func:`to_levels`.

    Raises:
        ConfigError: Not a 2-D image of one or three channels.
    """
    if image.dim() != 3 or image.shape[0] not in (1, 3):
        raise ConfigError(
            f"a PNG shows (1, H, W) or (3, H, W), got {tuple(image.shape)}; write .npy instead"
        )
    levels = to_levels(image.float().numpy())
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


def write_grid(
    path: Path,
    images: Tensor,
    captions: Sequence[str] = (),
    title: str = "",
    real: Tensor | None = None,
    real_captions: Sequence[str] = (),
    real_title: str = "real",
) -> None:
    """(n, C, H, W) in -1 .. 1 as one PNG, near square, two pixels apart, small images enlarged.

    Args:
        path: The file.
        images: What was drawn.
        captions: Words over each image, such as its class, in as many lines as they take; none by
            default.
        title: Over all of them.
        real: Images of the data set, beside the others.
        real_captions: Words over each of these.
        real_title: Over all of these.
    """
    sheet = _sheet(images, captions, title)
    if real is not None:
        other = _sheet(real, real_captions, real_title)
        tall = max(len(sheet), len(other))
        blocks = [_padded(block, tall, EDGE * (block is sheet)) for block in (sheet, other)]
        sheet = np.concatenate(blocks, axis=1)
    write_atomically(path, to_png(sheet))


GAP, EDGE, WORDS, ROOM = 2, 16, 14, 96
"""Pixels between images, between what was drawn and what is real, of a line of words, and that
words over an image have at least."""


def _padded(sheet: np.ndarray, height: int, right: int) -> np.ndarray:
    more = ((0, height - len(sheet)), (0, right), *((0, 0),) * (sheet.ndim - 2))
    return np.pad(sheet, more)


def _sheet(images: Tensor, captions: Sequence[str], title: str) -> np.ndarray:
    """(height, width[, 3]) uint8."""
    levels = [to_uint8(image) for image in images]
    scale = max(1, ROOM // max(levels[0].shape[:2]))
    levels = [image.repeat(scale, 0).repeat(scale, 1) for image in levels]
    columns = math.ceil(math.sqrt(len(levels)))
    rows = math.ceil(len(levels) / columns)
    gap, room = GAP * scale, max(levels[0].shape[1], ROOM * any(captions))
    words = [lines(text, room) for text in captions] if any(captions) else [[]] * len(levels)
    over, width = WORDS * max(map(len, words)), room + gap
    head = lines(title, columns * width - gap) if title else []
    height, top = levels[0].shape[0] + gap + over, WORDS * len(head)
    size = (top + rows * height + gap, columns * width + gap)
    sheet = np.zeros((*size, *levels[0].shape[2:]), np.uint8)
    _write(sheet, head, 0, gap)
    for i, image in enumerate(levels):
        y, x = top + gap + i // columns * height + over, gap + i % columns * width
        sheet[y : y + len(image), x : x + image.shape[1]] = image
        _write(sheet, words[i], y - WORDS * len(words[i]), x)
    return sheet


def _write(sheet: np.ndarray, words: Sequence[np.ndarray], y: int, x: int) -> None:
    """Lines of words, the first at row y."""
    for i, letters in enumerate(words):
        row = y + 1 + i * WORDS
        place = sheet[row : row + len(letters), x : x + letters.shape[1]]
        place[:] = letters.reshape(*letters.shape, *(1,) * (sheet.ndim - 2))
