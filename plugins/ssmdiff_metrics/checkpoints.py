"""Files of weights: held against a hash before they are opened, and against a table after."""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ssmdiff import ConfigError, DataError
from torch import Tensor


def require_hash(path: Path, sha256: str) -> None:
    """Refuse a file that is not the one that is meant, before anything opens it.

    Raises:
        DataError: It has another hash.
    """
    with path.open("rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != sha256:
        raise DataError(
            f"{path} has the sha256 {got}; expected {sha256}. It was not opened. Fetch it again, "
            "or give the hash of a file that you trust as features.sha256"
        )


def require_grey_or_colour(levels: NDArray[np.uint8], name: str) -> None:
    """Refuse images that a network of colour pictures cannot see.

    Raises:
        ConfigError: They are not (B, 1, H, W) or (B, 3, H, W).
    """
    if levels.ndim != 4 or levels.shape[1] not in (1, 3):
        raise ConfigError(f"features {name!r} see 1 or 3 channels; the images are {levels.shape}")


def table(name: str) -> dict[str, tuple[int, ...]]:
    """The keys of a file and their shapes, from a table beside this module."""
    text = resources.files("ssmdiff_metrics").joinpath(name).read_text(encoding="utf-8")
    return {key: tuple(shape) for key, shape in json.loads(text).items()}


def require_keys(state: Any, name: str, problem: str) -> None:
    """Nothing if a file holds the tensors of its table.

    Raises:
        DataError: A key is unknown or missing, or has another shape. Begins with ``problem``.
    """
    known = table(name)
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise DataError(f"{problem}: it holds no dict of tensors; expected {len(known)}")
    missing, strange = sorted(known.keys() - state.keys()), sorted(state.keys() - known.keys())
    shapes = [k for k in known.keys() & state.keys() if tuple(state[k].shape) != known[k]]
    if missing or strange or shapes:
        first = [*strange[:2], *missing[:2], *sorted(shapes)[:2]]
        raise DataError(
            f"{problem}: {len(strange)} keys are unknown, {len(missing)} are missing, "
            f"{len(shapes)} have other shapes, {', '.join(first)} among them"
        )
