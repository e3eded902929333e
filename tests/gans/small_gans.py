"""GANs that train in a second."""

from __future__ import annotations

from typing import Any

import ssmdiff
from ssmdiff import Config


def small(name: str = "dcgan", **changes: Any) -> Config:
    """A GAN of 16 x 16 heads that trains in a second; ``changes`` are sections."""
    network = {"name": name, "width": 4}
    method = {"name": "gan", "latent_size": 8, "network": network, "collapse_every": 0}
    method |= changes.pop("method", {})
    train = {
        "steps": 2, "batch_size": 4, "learning_rate": 2e-4, "grad_clip": 0.0, "callbacks": [],
        "sample_every": 0, **changes.pop("train", {}),
    }  # fmt: skip
    return ssmdiff.resolve(
        {
            "seed": 5,
            "data": {"image_size": 16, "dataset": {"name": "phantom", "length": 12}},
            "method": method,
            "train": train,
            "sample": {"count": 4},
            **changes,
        }
    )
