"""Small sets of images, and evaluations of known features, for feature networks and metrics."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ssmdiff.orders.seeds import stream
from ssmdiff.runs.evaluation import Evaluated, Evaluation, ImageSet


class ProbeImages:
    """Smooth random images as 8-bit levels, of patients with two images each.

    Args:
        count: N.
        shape: (C, H, W).
        seed: Image i is a function of the seed and i.
        brightness: Added to every level, -1 to 1 of the range.
    """

    labels: NDArray[np.int64] | None
    groups: Sequence[str] | None
    class_names: Sequence[str] = ("even", "odd")

    def __init__(
        self, count: int, shape: tuple[int, ...], seed: int = 0, brightness: float = 0.0
    ) -> None:
        self.shape, self.count, self.seed, self.brightness = shape, count, seed, brightness
        self.labels = np.arange(count) % 2
        self.groups = tuple(f"patient {seed} {i // 2}" for i in range(count))
        self.drawn: dict[int, NDArray[np.uint8]] = {}

    def _image(self, index: int) -> NDArray[np.uint8]:
        generator = stream(self.seed, "probe image", index)
        channels, *sides = self.shape
        places = np.meshgrid(*(np.linspace(-1, 1, side) for side in sides), indexing="ij")
        image = np.zeros(self.shape)
        for _ in range(3):
            centre, width = generator.uniform(-0.6, 0.6, 2), generator.uniform(0.1, 0.5)
            away = sum((p - c) ** 2 for p, c in zip(places, centre, strict=True)) / width**2
            image += generator.uniform(0.2, 0.6, channels)[:, None, None] * np.exp(-away)
        image += 0.03 * generator.standard_normal(self.shape) + self.brightness
        found: NDArray[np.uint8] = np.rint(image.clip(0, 1) * 255).astype(np.uint8)
        return found

    def __len__(self) -> int:
        return self.count

    def levels(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """(B, C, H, W)."""
        if not len(indices):
            return np.empty((0, *self.shape), np.uint8)
        for i in indices:
            if i not in self.drawn:
                self.drawn[i] = self._image(i)
        return np.stack([self.drawn[i] for i in indices])

    def digest(self) -> str:
        return hashlib.sha256(self.levels(range(self.count)).tobytes()).hexdigest()


class Chosen:
    """Images of a set, some of them, in an order, flipped left to right if ``mirrored``; without
    groups where they are not known."""

    labels: NDArray[np.int64] | None
    groups: Sequence[str] | None

    def __init__(
        self, images: ImageSet, order: Sequence[int], groups: bool = True, mirrored: bool = False
    ) -> None:
        self.images, self.order, self.shape = images, [int(i) for i in order], images.shape
        self.mirrored = mirrored
        self.labels = None if images.labels is None else images.labels[self.order]
        self.class_names = images.class_names
        known = images.groups if groups else None
        self.groups = None if known is None else [known[i] for i in self.order]

    def __len__(self) -> int:
        return len(self.order)

    def levels(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """(B, C, H, W)."""
        found = self.images.levels([self.order[i] for i in indices])
        return found[..., ::-1].copy() if self.mirrored else found

    def digest(self) -> str:
        text = f"{self.images.digest()} {self.order} {self.mirrored}"
        return hashlib.sha256(text.encode()).hexdigest()


def chosen(side: Evaluated, order: Sequence[int], groups: bool = True) -> Evaluated:
    """Some of a set, images and features."""
    rows = np.asarray(order, dtype=np.intp)
    return Evaluated(Chosen(side.images, order, groups), side.features[rows])


def probe_evaluation(count: int, network: str = "probe", away: float = 0.0) -> Evaluation:
    """``count`` images a set, features (N, 6) from one Gaussian; those of another network differ.

    Args:
        count: Images of the reference, of the samples, and of the held-out set.
        network: Name of the feature network, and what its features are drawn from.
        away: How far the samples' features and brightness are from the others'.
    """
    shape, d = (1, 16, 16), 6
    scale = np.array([1.0, 2.0, 0.5, 1.0, 1.5, 0.2])

    def side(number: int, offset: float) -> Evaluated:
        drawn = stream(number, f"probe features {network}").standard_normal((count, d))
        features = (drawn * scale + 1 + offset).astype(np.float32)
        return Evaluated(ProbeImages(count, shape, number, min(offset, 0.5)), features)

    mirrored = dataclasses.replace(
        side(9, 0.0), images=Chosen(ProbeImages(count, shape, 1), range(count), mirrored=True)
    )
    return Evaluation(
        network,
        side(1, 0.0),
        side(2, away),
        side(3, 0.0),
        seed=4,
        mirrored=mirrored,
        targets=side(1, 0.0),  # so that the reference itself is what it should be
    )
