"""Flows that train in a second."""

from __future__ import annotations

from typing import Any

import ssmdiff
from ssmdiff import Config

UNET = {"name": "vmddpm", "channels": 8, "widths": [1], "layers": 1, "stem_stride": 1}


def small(**changes: Any) -> Config:
    """A flow of 16 x 16 heads that trains in a second; ``changes`` are sections."""
    train = {
        "steps": 2, "batch_size": 4, "learning_rate": 1e-3, "callbacks": [], "sample_every": 0,
        "held_out_every": 0, **changes.pop("train", {}),
    }  # fmt: skip
    return ssmdiff.resolve(
        {
            "seed": 5,
            "data": {"image_size": 16, "dataset": {"name": "phantom", "length": 12}},
            "method": {"name": "flow", **changes.pop("method", {})},
            "model": {"backbone": UNET, "block": "conv", **changes.pop("model", {})},
            "train": train,
            "sample": {"count": 4, "steps": 2, **changes.pop("sample", {})},
            **changes,
        }
    )
