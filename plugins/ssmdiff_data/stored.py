"""A store as a data set."""

from __future__ import annotations

import copy
import math
import operator
from collections import Counter
from typing import Any

import numpy as np
from ssmdiff import (
    Condition,
    ConfigError,
    DatasetSummary,
    DataTerms,
    ImageFacts,
    ImageItem,
    did_you_mean,
    printable,
    size_text,
    terms_of,
)

from ssmdiff_data.scaling import Resize, scale
from ssmdiff_data.store import Store
from ssmdiff_data.stored_told import StoreTells


class StoreDataset:
    """Images of a store, as ``ssmdiff data prepare`` wrote them.

    Its images of another size than ``image_size`` are scaled to it when they are read.

    Args:
        image_size: Of the images that come out.
        path: The store; ``--data STORE`` sets it.
        split: Whose images are trained on.
        held_out: Whose images evaluations take as those of other patients.
        array: Which array, ``image`` or a further modality.
        resize: How images of another size are scaled: see ``folder``.
        verify: Hold all values against their digests when it is opened.

    Raises:
        ConfigError: It has no such split or array, or cannot serve the size.
        DataError: It is no store, or damaged.
    """

    channels: int
    class_names: tuple[str, ...]

    def __init__(
        self,
        image_size: tuple[int, ...],
        *,
        path: str,
        split: str = "train",
        held_out: str = "test",
        array: str = "image",
        resize: Resize = "center",
        verify: bool = False,
    ) -> None:
        self.store = Store(path)
        if verify:
            self.store.verify()
        images = [name for name, spec in self.store.arrays.items() if spec.kind == "image"]
        if array not in images:
            raise ConfigError(
                f"data.dataset.array: the store has no images called {array!r}; "
                f"{did_you_mean(array, images)}"
            )
        spec = self.store.arrays[array]
        self.image_size, self._array, self._resize = tuple(image_size), array, resize
        self.channels, self.stored_size = spec.shape[0], spec.shape[1:]
        if self.image_size != self.stored_size and len(self.stored_size) != 2:
            raise ConfigError(
                f"the store {printable(self.store.path)} has images of "
                f"{size_text(self.stored_size)}; got {size_text(self.image_size)}. Give "
                f"--image-size {'x'.join(map(str, self.stored_size))}, or prepare it at this size"
            )
        if len(self.image_size) != len(self.stored_size):
            raise ConfigError(
                f"data set 'store' was asked for {size_text(self.image_size)}; its images are "
                f"{size_text(self.stored_size)}"
            )
        self.class_names = self.store.classes
        splits = self.store.table.split
        if split not in splits:
            raise ConfigError(
                f"data.dataset.split: no image of the store {printable(self.store.path)} is in the "
                f"split {split!r}; expected one of {', '.join(sorted(set(splits)))}"
            )
        self._split, self._other = split, held_out
        self._own = [i for i, word in enumerate(splits) if word == split]
        self._tells = StoreTells(self.store, self._own, array, self.image_size, resize)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """What can be told of an image beside its class; ranges are those of ``split``."""
        return self._tells.conditions

    def __len__(self) -> int:
        return len(self._own)

    def __getitem__(self, index: int) -> ImageItem:
        """Image ``index`` of the split: (channels, *image_size) float32 in -1 to 1, its class, and
        what else is told.

        Raises:
            IndexError: ``index`` is not from 0 to len - 1.
        """
        index = operator.index(index)
        if not 0 <= index < len(self._own):
            raise IndexError(f"index {index} of {len(self._own)} images")
        i = self._own[index]
        image = self.store.image(self._array, i)
        if self.image_size != self.stored_size:
            height, width = self.image_size
            image = scale(image, (height, width), self._resize)
        return ImageItem(image, self.store.table.label[i], self._tells.of(i, image))

    @property
    def groups(self) -> tuple[str, ...]:
        """The patient of each image, as a salted hash."""
        group = self.store.table.group
        return tuple(group[i] for i in self._own)

    @property
    def held_out(self) -> StoreDataset | None:
        """The images of the split ``held_out``, None if it has none."""
        own = [i for i, word in enumerate(self.store.table.split) if word == self._other]
        if not own or self._other == self._split:
            return None
        others = copy.copy(self)
        others._own, others._split = own, self._other
        return others

    @property
    def value_range(self) -> tuple[float, float] | None:
        """Black and white in the data's own units; None where they differ from item to item."""
        suffix = "" if self._array == "image" else f"_{self._array}"
        low, high = self._common(f"low{suffix}"), self._common(f"high{suffix}")
        return None if low is None or high is None else (low, high)

    @property
    def image_facts(self) -> ImageFacts:
        """What all images have in common, in the data's own units and millimetres."""
        return ImageFacts(
            value_range=self.value_range,
            units=self.store.fact_text("units"),
            spacing=self._spacing(),
            modality=self.store.fact_text("modality"),
            body_part=self.store.fact_text("body_part"),
        )

    def _spacing(self) -> tuple[float, float] | None:
        """mm of a row and of a column, where all pixels are of one size."""
        if self.image_size != self.stored_size:
            return None
        sides = [self._common(name) for name in ("row_mm", "column_mm")]
        return None if None in sides else (sides[0] or 0.0, sides[1] or 0.0)

    def _common(self, name: str) -> float | None:
        """A number that is the same for all items and known, else None."""
        found = set(self.store.table.numbers.get(name, [math.nan]))
        value = found.pop()
        return None if found or math.isnan(value) else value

    @property
    def terms(self) -> DataTerms | None:
        """On which terms the images may be used, where the store says so."""
        return terms_of(self.store.fact("terms"))

    def fingerprint(self) -> str:
        """The store's digest, and what is taken of it."""
        chosen = [self.store.digest, self._split, self._array]
        if self.image_size != self.stored_size:
            chosen.append(f"{self.image_size} {self._resize}")
        return " ".join(chosen)

    def summary(self) -> DatasetSummary:
        """What the store holds, how it was made, and what of it is used."""
        store, table = self.store, self.store.table
        lines = [f"read: {len(self)} images of the split {self._split!r} in {self._place()}"]
        people = Counter(dict(zip(table.group, table.split, strict=True)).values())
        counts = Counter(table.split)
        lines.append(
            "splits: "
            + ", ".join(f"{word} {counts[word]} ({people[word]} patients)" for word in counts)
        )
        if (other := self.held_out) is not None:
            lines.append(f"held out: {len(other)} images, nothing is trained on them")
        lines += [f"{key}: {text}" for key, text in store.fact("told").items()]
        if (terms := self.terms) is not None:
            lines.append(f"licence of {terms.name}: {terms.licence}. Cite: {terms.cite}")
        stored = size_text(self.stored_size)
        same = self.image_size == self.stored_size
        lines.append(
            f"sizes: all {stored}"
            + ("" if same else f"; each becomes {size_text(self.image_size)} ({self._resize})")
        )
        names = ", ".join(
            f"{name} {count}"
            for name, count in zip(self.class_names, self._class_counts(), strict=True)
        )
        lines.append(f"classes: {names or 'none'}")
        lines += self._tells.in_words()
        return DatasetSummary(tuple(lines), (), (store.path,))

    def _class_counts(self) -> list[int]:
        counts = Counter(self.store.table.label[i] for i in self._own)
        return [counts[i] for i in range(len(self.class_names))]

    def _place(self) -> str:
        return f"the store {printable(self.store.path)} ({self.store.digest[:12]})"


def levels_of(images: Any, dtype: str) -> Any:
    """-1 to 1 as an array stores it: whole numbers rounded to the nearest."""
    if dtype == "float32":
        return np.asarray(images, np.float32)
    white = np.float64(np.iinfo(dtype).max)
    levels = np.rint((np.asarray(images, np.float64) + 1) / 2 * white)
    return levels.clip(0, white).astype(dtype)
