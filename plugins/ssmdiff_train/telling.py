"""What a run tells its model of each image: moved as the image is, some of it left out at random.

What is left out of image number i of a run is a function of (seed, i), drawn from a stream of its
own, so that no other draw depends on it.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from ssmdiff import (
    Condition,
    Conditions,
    Config,
    DataError,
    ImageDataset,
    ImageItem,
    SsmdiffError,
    stream,
    told_conditions,
    told_entries,
    told_of,
)
from torch import Tensor

from ssmdiff_train.augment import Change


class Telling(NamedTuple):
    """What the model is told, and how often it is not."""

    conditions: Conditions = Conditions()
    dropout: float = 0.0
    """With this probability an image is told nothing; and where there are several conditions, each
    of them is left out alone as often."""

    @classmethod
    def of(cls, config: Config, dataset: ImageDataset) -> Telling:
        """That of a run; a model of ``model.class_conditional`` is always told.

        Raises:
            ConfigError: The data set cannot tell it.
        """
        often = config.train.condition_dropout if config.model.conditions else 0.0
        return cls(told_conditions(config, dataset), often)

    def drawn(
        self,
        dataset: ImageDataset,
        item: ImageItem,
        change: Change,
        mirrored: bool,
        seed: int,
        number: int,
    ) -> dict[str, Tensor]:
        """Image ``number`` of a run: entries of an ``ssmdiff.Batch``, without the axis B.

        Args:
            dataset: Whose image it is.
            item: The image.
            change: That it was turned, moved and zoomed by.
            mirrored: Whether it was mirrored after that.
            seed: Of the run.
            number: Of the image in the run.

        Raises:
            DataError: The data set tells what cannot be told.
        """
        known = {
            one.name: _moved(one, value, change, mirrored)
            for one, value in self._known(dataset, item, self._left_out(seed, number))
        }
        entries = self._entries([known], tuple(item.image.shape[1:]))
        return {name: values[0] for name, values in entries.items()}

    def batch(self, dataset: ImageDataset, items: Sequence[ImageItem]) -> dict[str, Tensor]:
        """All that is known of some images as they are: entries of an ``ssmdiff.Batch``.

        A number of a held-out image may lie beyond those of the images trained on; the nearest of
        these is told.

        Raises:
            DataError: The data set tells what cannot be told.
        """
        known = [{one.name: v for one, v in self._known(dataset, item)} for item in items]
        return self._entries(known, tuple(items[0].image.shape[1:]), held_out=True)

    def empty(self, x: Tensor) -> tuple[Tensor, ...]:
        """Zeros in the place of what is told of images (B, C, *image_size)."""
        shapes = [(self.conditions.width,), (self.conditions.planes, *x.shape[2:])]
        return tuple(x.new_zeros(len(x), *shape) for shape in shapes if shape[0])

    def _known(
        self, dataset: ImageDataset, item: ImageItem, without: Container[str] = ()
    ) -> list[tuple[Condition, Any]]:
        known = told_of(dataset, item)
        told = (one for one in self.conditions if one.name not in without)
        return [(one, known[one.name]) for one in told if one.name in known]

    def _left_out(self, seed: int, number: int) -> set[str]:
        names = self.conditions.names
        if not self.dropout:
            return set()
        nothing, *each = stream(seed, "left out", number).random(1 + len(names)) < self.dropout
        if nothing:
            return set(names)
        alone = zip(names, each, strict=True)
        return {name for name, out in alone if out} if len(names) > 1 else set()

    def _entries(
        self, known: Sequence[Mapping[str, Any]], image_size: Sequence[int], held_out: bool = False
    ) -> dict[str, Tensor]:
        try:
            return told_entries(self.conditions, known, image_size, held_out)
        except SsmdiffError as error:
            raise DataError(f"what the data set tells of it cannot be told: {error}") from None


def _moved(one: Condition, value: Any, change: Change, mirrored: bool) -> Any:
    """A value after what was done to the image: masks and images go with it."""
    if not one.planes or value is None:
        return value
    pixels = torch.as_tensor(value)
    moved = change.mask(pixels) if one.kind == "mask" else change(pixels)
    return moved.flip(-1) if mirrored else moved
