"""What a data set is: the interface that plugins fill."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor


class ImageItem(NamedTuple):
    """One image of a data set."""

    image: Tensor
    """(C, *image_size) float32, -1 to 1."""
    label: int = 0
    """Class index, 0 where the data set has no classes."""


class ImageDataset(Protocol):
    """Images of one size; a map-style ``torch.utils.data.Dataset``, a pure function of the index.

    A factory is called as ``factory(image_size=(H, W), **options)``.
    """

    channels: int
    class_names: tuple[str, ...]
    """Empty where the data set has no classes."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> ImageItem: ...

    def fingerprint(self) -> str:
        """A digest of what the images are made from, so that a resumed run can tell a change."""
        ...
