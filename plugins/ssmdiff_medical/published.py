"""What the published data sets have in common: the class reads a folder, an instance a store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from ssmdiff import (
    Case,
    Condition,
    DataError,
    DatasetSummary,
    DataTerms,
    ImageDataset,
    ImageFacts,
    ImageItem,
    create,
    summary_of,
    terms_of,
)


class Published:
    """A published data set, see ``ssmdiff.PublishedDataset``: built, it serves a store of it.

    Args:
        image_size: Of the images that come out.
        path: The store that ``ssmdiff data prepare FOLDER --as NAME`` made.
        split: Whose images are trained on.
        held_out: Whose images evaluations take as those of other patients.
        array: Which array, ``image`` or a further modality.
        resize: How images of another size are scaled: see ``folder``.

    Raises:
        DataError: The path is no store of this data set.
    """

    NAME: ClassVar[str]
    """Of the component."""
    TERMS: ClassVar[DataTerms]
    CLASSES: ClassVar[tuple[str, ...]] = ()
    MASK: ClassVar[tuple[str, ...]] = ()
    COLUMNS: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Columns of numbers that are no plain numbers, see ``ssmdiff.PublishedDataset``."""
    RECIPE: ClassVar[Mapping[str, Any]] = {}
    AUGMENTATION: ClassVar[Mapping[str, Any]] = {}
    MODALITY: ClassVar[str] = ""
    BODY_PART: ClassVar[str] = ""

    def __init__(
        self,
        image_size: tuple[int, ...],
        *,
        path: str | None = None,
        split: str = "train",
        held_out: str = "test",
        array: str = "image",
        resize: Literal["center", "pad", "stretch"] = "center",
    ) -> None:
        if path is None or not (Path(path).expanduser() / "store.json").is_file():
            raise DataError(
                f"{path or 'data.dataset.path'} is no store; prepare the folder of "
                f"{self.TERMS.name}: ssmdiff data prepare FOLDER --as {self.NAME} --out STORE, and "
                "give --data STORE"
            )
        table = {
            "name": "store",
            "path": path,
            "split": split,
            "held_out": held_out,
            "array": array,
            "resize": resize,
        }
        self.images: Any = create("dataset", table, image_size=image_size)
        found = terms_of(self.images)
        if found is None or found.name != self.TERMS.name:
            raise DataError(
                f"{path} is a store of {found.name if found else 'other images'}; expected one of "
                f"{self.TERMS.name}. Take it as it is: --data {path}"
            )
        self.channels: int = self.images.channels
        self.class_names: tuple[str, ...] = self.images.class_names

    @classmethod
    def cases(cls, root: Path) -> Iterable[Case]:
        """Everything in the folder that belongs to the data set."""
        raise NotImplementedError

    @classmethod
    def notes(cls, kept: int | None = None) -> Iterator[str]:
        """What a person should know, before (None) and after ``kept`` images were chosen."""
        yield from ()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> ImageItem:
        item: ImageItem = self.images[index]
        return item

    @property
    def groups(self) -> tuple[str, ...]:
        """The patient of each image, as a salted hash."""
        found: tuple[str, ...] = self.images.groups
        return found

    @property
    def held_out(self) -> ImageDataset | None:
        """The images that nothing is trained on, if there are some."""
        found: ImageDataset | None = self.images.held_out
        return found

    @property
    def conditions(self) -> Sequence[Condition]:
        """What can be told of an image beside its class: masks, further arrays, columns."""
        found: Sequence[Condition] = self.images.conditions
        return found

    @property
    def terms(self) -> DataTerms:
        return self.TERMS

    @property
    def augmentation(self) -> Mapping[str, Any]:
        return self.AUGMENTATION

    @property
    def value_range(self) -> tuple[float, float] | None:
        """Black and white in the data's own units; None where they differ from item to item."""
        found: tuple[float, float] | None = self.images.value_range
        return found

    @property
    def image_facts(self) -> ImageFacts:
        """What all images have in common."""
        found: ImageFacts = self.images.image_facts
        return found

    def fingerprint(self) -> str:
        return str(self.images.fingerprint())

    def summary(self) -> DatasetSummary:
        return summary_of(self.images)


def layout(name: str, root: Path, expected: str, found: str) -> DataError:
    """The folder is not the official one."""
    return DataError(
        f"{root} has not the layout of {name}: expected {expected}; {found}. See docs/data.md"
    )
