"""What a data set is: the interface that plugins fill."""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from ssmdiff.diffusion.conditions import LABEL, Condition, Conditions


class ImageItem(NamedTuple):
    """One image of a data set."""

    image: Tensor
    """(C, *image_size) float32, -1 to 1."""
    label: int = 0
    """Class index, 0 where the data set has no classes."""
    told: Mapping[str, Any] = {}
    """What else is known of it, by the names of the data set's ``conditions``; see
    :class:`ssmdiff.Condition`. One that is not known for this image is missing."""


class DatasetSummary(NamedTuple):
    """What a data set tells people before it is trained on; nothing of it is written down."""

    lines: tuple[str, ...] = ()
    """What is read and how, what is left out: a fact a line."""
    warnings: tuple[str, ...] = ()
    """What may be wrong with it, each with the option or step that mends it."""
    folders: tuple[Path, ...] = ()
    """Where its images lie; a run may not be written there."""


class ImageDataset(Protocol):
    """Images of one size; a map-style ``torch.utils.data.Dataset``, a pure function of the index.

    A factory is called as ``factory(image_size=(H, W), **options)``. A data set may have a method
    ``summary() -> DatasetSummary``, see :func:`summary_of`; and for evaluations ``groups``, the
    patient of each image (a sequence of words), ``held_out``, a data set of images of other
    patients that training never sees, and ``is_open``, True where its images may be shown. It may
    declare ``augmentation``, what training does to its images unless the configuration says
    otherwise, such as ``{"flip": True, "rotate_deg": 10.0}``; and have ``terms``, a ``DataTerms``,
    and ``image_facts``, an ``ImageFacts`` with what all its images have in common. It may declare
    ``conditions``, a sequence of :class:`ssmdiff.Condition`: what it tells of an image in
    :attr:`ImageItem.told`, beside the class, which is the condition ``label`` where there are some.
    """

    channels: int
    class_names: tuple[str, ...]
    """Empty where the data set has no classes."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> ImageItem: ...

    def fingerprint(self) -> str:
        """A digest of what the images are made from, so that a resumed run can tell a change."""
        ...


def summary_of(dataset: ImageDataset) -> DatasetSummary:
    """What the data set says of itself; nothing, if it has no ``summary``."""
    summary = getattr(dataset, "summary", None)
    return summary() if summary else DatasetSummary()


def conditions_of(dataset: ImageDataset) -> Conditions:
    """All that a data set can tell of an image, its class first.

    Raises:
        ConfigError: Two are of one name.
    """
    classes = tuple(dataset.class_names)
    label = [Condition(LABEL, "label", classes)] if classes else []
    return Conditions([*label, *getattr(dataset, "conditions", ())])


def told_of(dataset: ImageDataset, item: ImageItem) -> Mapping[str, Any]:
    """What is known of an image, its class with it; a value is worked out when it is asked for, if
    the data set does so."""
    return ChainMap({LABEL: item.label} if dataset.class_names else {}, item.told)  # type: ignore[arg-type]


class _Values(Sequence[Any]):
    """What a data set tells of its images as one condition, read when it is asked for; in an order
    whose beginning is spread over all of them."""

    def __init__(self, dataset: ImageDataset, name: str) -> None:
        self.dataset, self.name, count = dataset, name, len(dataset)
        self.fingerprint = f"data {dataset.fingerprint()}"
        near = range(max(1, round(0.618 * count)), 0, -1)
        self.stride = next(stride for stride in near if math.gcd(stride, count) == 1)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: Any) -> Any:
        if not 0 <= i < len(self):
            raise IndexError(f"image {i} of {len(self)}")
        item = ImageItem(*self.dataset[i * self.stride % len(self)])
        return told_of(self.dataset, item).get(self.name)


def told_by(dataset: ImageDataset, conditions: Iterable[Condition]) -> dict[str, Sequence[Any]]:
    """The masks and images of a data set, for samples that are told them."""
    return {one.name: _Values(dataset, one.name) for one in conditions if one.planes}
