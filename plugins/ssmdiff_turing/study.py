"""A study: images shuffled into one page, and the key that stays behind.

The page holds pixels and the SHA-256 of the key, and nothing else of what an image is. The order
comes from the system's randomness and stands in the key alone, and so does a nonce of 256 bits:
without it nobody can try orders against the hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ssmdiff_turing.images import Kind

KEY_FORMAT = "ssmdiff-turing-key-1"
Design = Literal["yes-no", "forced-choice"]
SINGLE: Design = "yes-no"
PAIRS: Design = "forced-choice"
Confidence = Literal["low", "medium", "high"]
CONFIDENCES: tuple[Confidence, ...] = ("low", "medium", "high")


@dataclass(frozen=True)
class Study:
    """What the page shows, and the key of it.

    Args:
        pictures: PNG files in the order of the page; of pairs, A before B.
        key: What :func:`commitment` is taken of.
    """

    pictures: Sequence[bytes]
    key: Mapping[str, Any]

    @property
    def commitment(self) -> str:
        return commitment(self.key)


def make_study(
    synthetic: Kind,
    real: Kind,
    *,
    design: Design,
    margin: float,
    counted: Confidence,
    made: str,
) -> Study:
    """Shuffle as many images of either kind into a study.

    Args:
        synthetic: Images of the model.
        real: As many real ones.
        design: Single images, or pairs of one real and one synthetic image.
        margin: Of the equivalence test.
        counted: The least confidence that will be counted.
        made: When, for the key.
    """
    n = len(real.indices)
    chance = secrets.SystemRandom()
    if design == PAIRS:
        others = chance.sample(range(n), n)
        pairs = [[("synthetic", i), ("real", others[i])] for i in range(n)]
        chance.shuffle(pairs)
        for pair in pairs:
            chance.shuffle(pair)
        order = [item for pair in pairs for item in pair]
    else:
        order = [(kind, i) for kind in ("synthetic", "real") for i in range(n)]
        chance.shuffle(order)
    kinds = {"synthetic": synthetic, "real": real}
    pictures = [png(kinds[kind].levels[i]) for kind, i in order]
    key = {
        "format": KEY_FORMAT,
        "design": design,
        "images": [
            {
                "kind": kind,
                "index": kinds[kind].indices[i],
                "sha256": hashlib.sha256(picture).hexdigest(),
            }
            for (kind, i), picture in zip(order, pictures, strict=True)
        ],
        "margin": margin,
        "counted": counted,
        "sources": {name: dict(kind.source) for name, kind in kinds.items()},
        "made": made,
        "nonce": secrets.token_hex(32),
    }
    return Study(pictures, json.loads(json.dumps(key)))


def commitment(key: Mapping[str, Any]) -> str:
    """SHA-256 of a key, whatever the white space of its file."""
    text = json.dumps(key, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def png(levels: NDArray[np.uint8]) -> bytes:
    """(C, H, W) levels as a PNG without compression: 8 bits, no palette, header, rows, end.

    Written here, since every image of a size must give as many bytes and the same chunks.
    Compressed, noise is longer than what is smooth, and the length would tell the kinds apart.
    """
    channels, height, width = levels.shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)  # each begins with its filter: none
    rows[:, 1:] = np.moveaxis(levels, 0, -1).reshape(height, -1)
    chunks = (
        (b"IHDR", struct.pack(">2I5B", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows.tobytes(), 0)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def inline(picture: bytes) -> str:
    """A picture as a data URL."""
    return "data:image/png;base64," + base64.b64encode(picture).decode()
