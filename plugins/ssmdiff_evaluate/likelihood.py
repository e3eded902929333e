"""How likely real images are under a model, in bits per dimension, as its method has it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from ssmdiff import ConfigError, ImageItem, ImageModel, Method, told_entries, told_of

AT_ONCE = 16


def refuse_bits(model: ImageModel[Any]) -> None:
    """Check that a model has bits per dimension: it is a run, of a method that has some.

    Raises:
        ConfigError: It is a file, or its method has none.
    """
    method = getattr(model, "method", None)
    if method is None:
        raise ConfigError("--bits takes a run; an exported file has no gradients to compute it by")
    if type(method).bits_per_dim is Method.bits_per_dim:
        raise ConfigError(
            f"--bits: method {model.config.method['name']!r} has no likelihood; leave it out"  # type: ignore[attr-defined]
        )


def bits_of(model: Any, dataset: Any, count: int, seed: int) -> dict[str, float]:
    """Bits per dimension of evenly spread images that were held out, or of training images where
    none were, by what they are called."""
    import torch

    held_out = getattr(dataset, "held_out", None)
    images, what = (dataset, "training") if held_out is None else (held_out, "held-out")
    count = min(count, len(images))
    places = np.linspace(0, len(images) - 1, count).astype(int).tolist()
    found: list[float] = []
    for start in range(0, count, AT_ONCE):
        items = [ImageItem(*images[place]) for place in places[start : start + AT_ONCE]]
        known = [told_of(images, item) for item in items]
        levels = ((torch.stack([item.image for item in items]) + 1) * 127.5).round()
        batch = {
            "x_0": (levels / 127.5 - 1).clamp(-1, 1),
            "label": torch.tensor([item.label for item in items]),
            **told_entries(model.conditions, known, levels.shape[2:], held_out=True),
        }
        batch = {name: values.to(model.device) for name, values in batch.items()}
        with torch.no_grad():
            bits = model.method.bits_per_dim(model.model, batch, seed + start)
        found += bits.tolist()
    return {f"bits per dimension of {count} {what} images": math.fsum(found) / count}
